"""What the guard needs from a Keras backend; one implementation per backend, imported only when it is active."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import keras
import numpy as np

from nan_callbacks.keras.readings import Reading
from nan_callbacks.keras.snapshot import Snapshot


class Backend(Protocol):
    """The guarded step of one model, and access to the state that it changes."""

    optimizers: list[Any]
    """In the order of their streams."""
    slots: dict[int, Snapshot]
    """The snapshots of the present fit."""

    @property
    def runs_ahead(self) -> bool:
        """Whether the device may still be at work when a step returns, with logs that hold if it is dropped, too."""

    def begin(self, *args: Any) -> Iterator[Any]:
        """Take what ``fit`` hands to a train function; return an iterator over batches."""

    def end(self, logs: Any) -> Any:
        """What ``fit`` expects back."""

    def abandon(self) -> None:
        """An error leaves the train function: hand over the state as it is, so that ``fit`` can attach it."""

    def prepare(self, batch: Any) -> None:
        """Create variables that do not exist before the first batch."""

    def run(self, batch: Any, limits: np.ndarray) -> tuple[Any, Callable[[], list[Reading]]]:
        """One guarded step: logs, and what fetches its numbers from the device, one reading per update."""

    def run_plain(self, original: Callable[..., Any], batch: Any) -> Any:
        """One step of the model's own train function: logs."""

    def result(self, logs: Any) -> Any:
        """The logs computed anew from the metrics."""

    @property
    def can_try(self) -> bool:
        """Whether this is a :class:`TryingBackend` for this model, whose trials take every change back."""

    def capture(self, slot: int, epoch: int) -> None:
        """Copy the present state into a slot."""

    def restore(self, slot: int, epoch: int) -> None:
        """Put a slot's state back; metrics and data-order streams only within the epoch it was taken in."""

    def parameter_norms(self) -> dict[str, float]:
        """L2 norm of each trainable variable by path; non-finite exactly if the variable holds a NaN or an Inf."""


class TryingBackend(Backend, Protocol):
    """One whose compiled step can be tried out without a trace."""

    def on_copies(self) -> AbstractContextManager[None]:
        """Inside, steps change copies of the state, or what is put back at the end."""


def make_backend(model: Any) -> Backend:
    """The guarded step for a model on the active backend.

    Args:
        model: A compiled model.
    """
    name = keras.backend.backend()
    module = importlib.import_module(f"nan_callbacks.keras.backend_{name}")
    made: Backend = module.GuardedStep(model)
    return made
