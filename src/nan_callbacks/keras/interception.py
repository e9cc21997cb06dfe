"""Hooks inside a training step: the raw loss, the gradients and the learning rate as they pass by."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import keras
from keras import ops

from nan_callbacks.keras.model_parts import leaf_optimizers, loss_trackers
from nan_callbacks.keras.patches import Patches


class Watcher(Protocol):
    """One step that wants to see what passes by."""

    def on_loss(self, loss: Any, *, final: bool) -> None:
        """A loss was computed; ``final`` if it is the raw loss of the batch that metrics are fed."""

    def on_apply(self, stream: int, optimizer: Any, original: Callable[..., Any], *args: Any) -> Any:
        """An optimizer is about to update; the result is handed to the caller."""

    def scale_rate(self, stream: int, rate: Any) -> Any:
        """The learning rate to use instead of ``rate``."""


class Interception:
    """Hooks on one model's optimizers and loss trackers.

    The hooks are in place only while a step is traced, or run by Python, and only act for the thread that watches:
    distribution strategies trace one replica per thread, and callbacks may work in threads of their own.

    Args:
        model: The model.
        optimizers: Its optimizers, in the order of their streams.
        entry: Name of the optimizer method to hook: ``apply``, or ``stateless_apply`` on JAX.
    """

    def __init__(self, model: Any, optimizers: list[Any], entry: str) -> None:
        self._here = threading.local()
        self._lock = threading.Lock()
        self._users = 0
        self._before: list[Any] = []
        self._patches = Patches()
        for stream, optimizer in enumerate(optimizers):
            self._patches.plan(optimizer, entry, self._apply_hook(stream, optimizer, getattr(optimizer, entry)))
            for leaf in leaf_optimizers(optimizer):
                original = leaf._get_current_learning_rate
                self._patches.plan(leaf, "_get_current_learning_rate", self._rate_hook(stream, original))
        self._patches.plan(model, "compute_loss", self._compute_loss_hook(model.compute_loss))
        for tracker in loss_trackers(model):
            self._patches.plan(tracker, "update_state", self._tracker_hook(tracker.update_state))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The hooks are in place inside the block, and until the last of several threads has left its own."""
        self._enter()
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def watching(self, watcher: Watcher) -> Iterator[None]:
        """The hooks are in place, and this thread's calls are shown to a watcher, inside the block."""
        self._enter()
        self._here.watcher = watcher
        try:
            yield
        finally:
            self._here.watcher = None
            self._leave()

    def _enter(self) -> None:
        with self._lock:
            if self._users == 0:
                self._before = self._patches.apply()
            self._users += 1

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._patches.undo(self._before)

    def _watcher(self) -> Watcher | None:
        return getattr(self._here, "watcher", None)

    def _apply_hook(self, stream: int, optimizer: Any, original: Callable[..., Any]) -> Callable[..., Any]:
        def apply(*args: Any, **kwargs: Any) -> Any:
            watcher = self._watcher()
            if watcher is None:
                return original(*args, **kwargs)
            return watcher.on_apply(stream, optimizer, original, *args, *kwargs.values())

        return apply

    def _rate_hook(self, stream: int, original: Callable[[], Any]) -> Callable[[], Any]:
        def current_rate() -> Any:
            watcher = self._watcher()
            return original() if watcher is None else watcher.scale_rate(stream, original())

        return current_rate

    def _compute_loss_hook(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def compute_loss(*args: Any, **kwargs: Any) -> Any:
            loss = original(*args, **kwargs)
            watcher = self._watcher()
            if watcher is not None:
                watcher.on_loss(loss, final=False)
            return loss

        return compute_loss

    def _tracker_hook(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def update_state(values: Any, *args: Any, **kwargs: Any) -> Any:
            watcher = self._watcher()
            if watcher is not None:
                watcher.on_loss(values, final=True)
            return original(values, *args, **kwargs)

        return update_state


class LossMemory:
    """The raw loss of a step, from the best source that has spoken so far."""

    def __init__(self) -> None:
        self.value: Any = None
        self._final = False

    def note(self, loss: Any, *, final: bool) -> None:
        """Keep a loss unless a better one is kept already."""
        if self.value is None or (final and not self._final):
            self.value, self._final = loss, final


def scaled_rate(rate: Any, scale: Any) -> Any:
    """A learning rate (number, tensor or variable) times a float32 scale of shape [], in its own type."""
    rate = ops.convert_to_tensor(rate)
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(rate.dtype)):
        rate = ops.cast(rate, keras.backend.floatx())
    return rate * ops.cast(scale, rate.dtype)
