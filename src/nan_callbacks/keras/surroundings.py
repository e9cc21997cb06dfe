"""What surrounds the steps of a fit: the list of callbacks, the progress bar, the validation and the data."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import keras

from nan_callbacks.keras.call_stack import callback_list, fit_frame
from nan_callbacks.keras.patches import Patches
from nan_callbacks.keras.voice import PREFIX

HOOKS = tuple(
    f"on_{what}_{end}" for what in ("train", "epoch", "train_batch", "test", "test_batch") for end in ("begin", "end")
)
"""What ``fit`` and the validation in it call."""


class Guarding(Protocol):
    """Who wants to know, and has something to show: the guard."""

    def broke_off(self) -> None:
        """An error is about to leave ``fit``."""

    def batch_values(self) -> dict[str, float]:
        """Values for the logs of the batch that has just ended."""

    def epoch_values(self) -> dict[str, float]:
        """Values for the logs of the epoch that has just ended, whose weights are sound."""

    def before_validation(self) -> dict[str, float]:
        """Make sure of the weights; nothing to show."""

    def catch_up(self) -> None:
        """Judge what has not been judged yet."""


class Surroundings:
    """Changes to the objects of one fit, all of them undone at its end.

    Every callback sees the values that the guard has to show, wherever it stands in the list, while ``fit`` itself and
    the progress bar do not. An error that leaves ``fit`` through a callback, the validation or the data is noticed,
    which ``fit`` itself tells no callback.

    Args:
        model: The model.
        guard: Who is told.
    """

    def __init__(self, model: Any, guard: Guarding) -> None:
        self._model = model
        self._guard = guard
        self._undo = ExitStack()
        self.unobserved = False
        """Whether Keras may call the callbacks at the end of a batch later: none of them has something to do there."""
        self.sees_callbacks = False
        """Whether there is a list of callbacks; otherwise the guard must do without what it is told from here."""

    def install(self) -> None:
        """Called while a list of callbacks is given its model."""
        patches = Patches()
        patches.plan(self._model, "evaluate", self._validation())
        if keras.backend.backend() == "jax":
            patches.plan(self._model, "jax_state_sync", self._sync(self._model.jax_state_sync))
        callbacks = callback_list()
        if callbacks is not None:
            for name in HOOKS:
                patches.plan(callbacks, name, self._list_hook(name, getattr(callbacks, name)))
            for bar in callbacks.callbacks:
                if isinstance(bar, keras.callbacks.ProgbarLogger):
                    for name in ("on_train_batch_end", "on_epoch_end"):
                        patches.plan(bar, name, _without_values(getattr(bar, name)))
            self.sees_callbacks = True
            self.unobserved = getattr(callbacks, "_async_train", False)
        self._undo.enter_context(patches.applied())

    def watch_data(self) -> None:
        """Called when training begins. On torch ``fit`` itself fetches the batches, elsewhere the train function."""
        frame = fit_frame(self._model)
        iterator = None if frame is None else frame.f_locals.get("epoch_iterator")
        original = getattr(iterator, "_get_iterator", None)
        if keras.backend.backend() != "torch" or original is None:
            return
        patches = Patches()
        patches.plan(iterator, "_get_iterator", self._data(original))
        self._undo.enter_context(patches.applied())

    def uninstall(self) -> None:
        """Give everything back."""
        self._undo.close()

    def _list_hook(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        # Before any other callback: one of them may put averaged weights where a rollback restores the others.
        values = {
            "on_train_batch_end": self._guard.batch_values,
            "on_epoch_end": self._guard.epoch_values,
            "on_test_begin": self._guard.before_validation,
        }.get(name)

        @functools.wraps(original)
        def hook(*args: Any, **kwargs: Any) -> Any:
            try:
                if values is not None:
                    args, kwargs = _with_values(args, kwargs, values() or {})
                return original(*args, **kwargs)
            except BaseException:
                self._guard.broke_off()
                raise

        return hook

    def _sync(self, original: Callable[[], None]) -> Callable[[], None]:
        """What whoever wants to see the model's variables calls on JAX, ``fit`` at the end of an epoch included."""

        def jax_state_sync() -> None:
            try:
                self._guard.catch_up()
            except BaseException:
                self._guard.broke_off()
                raise
            original()

        return jax_state_sync

    def _validation(self) -> Callable[..., Any]:
        @functools.wraps(type(self._model).evaluate)
        def evaluate(*args: Any, **kwargs: Any) -> Any:
            by_fit = sys._getframe(1).f_code.co_name == "fit"  # others may have reasons to expect an error
            try:
                return type(self._model).evaluate(self._model, *args, **kwargs)
            except BaseException:
                if by_fit:
                    self._guard.broke_off()
                raise

        return evaluate

    def _data(self, original: Callable[[], Any]) -> Callable[[], Iterator[Any]]:
        def batches() -> Iterator[Any]:
            try:
                iterator = iter(original())  # at once: beginning to iterate may draw random numbers
            except BaseException:
                self._guard.broke_off()
                raise
            return watched(iterator)

        def watched(iterator: Iterator[Any]) -> Iterator[Any]:
            try:
                yield from iterator
            except GeneratorExit:
                raise
            except BaseException:
                self._guard.broke_off()
                raise

        return batches


def _with_values(args: Any, kwargs: Any, values: dict[str, float]) -> tuple[Any, Any]:
    """Arguments of a hook ``(index, logs)`` with values added to the logs; those of the caller stay as they are."""
    logs = kwargs.get("logs", args[1] if len(args) > 1 else None)
    if not values or not isinstance(logs, dict):
        return args, kwargs
    return args[:1], {**{name: value for name, value in kwargs.items() if name != "logs"}, "logs": {**logs, **values}}


def _without_values(original: Callable[..., Any]) -> Callable[..., Any]:
    """A hook of the progress bar, whose line would not hold our values; incidents are printed beside it."""

    @functools.wraps(original)
    def hook(index: int, logs: dict[str, Any] | None = None) -> Any:
        if isinstance(logs, dict):
            logs = {name: value for name, value in logs.items() if not str(name).startswith(PREFIX)}
        return original(index, logs)

    return hook
