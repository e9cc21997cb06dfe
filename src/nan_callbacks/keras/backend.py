"""What the guard needs from a Keras backend; one implementation per backend, imported only when it is active."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol

import keras
import numpy as np

from nan_callbacks.core.config import SnapshotMemory
from nan_callbacks.keras.model_parts import optimizers_of
from nan_callbacks.keras.readings import Reading
from nan_callbacks.keras.snapshot import Snapshot

KEPT_AS = "nan_callbacks_step"
"""Name under which a train function of Keras keeps ours."""


class Backend(Protocol):
    """The guarded step of one model, and access to the state that it changes."""

    model: Any
    optimizers: list[Any]
    """In the order of their streams."""
    made_for: list[Any] | None
    """What :func:`anatomy_of` said of the model when the step was compiled; empty before, None if nothing ever is."""
    slots: dict[int, Snapshot]
    """The snapshots of the present fit."""
    memory: SnapshotMemory
    """Where the user wants them."""

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

    def restore(self, slot: int, epoch: int, *, streams: bool) -> None:
        """Put a slot's state back; metrics and data-order streams only within the epoch it was taken in.

        Without ``streams`` no random stream goes back, that of a seed generator included.
        """

    def streams(self) -> Any:
        """Copies of where the random streams stand that a dropped step gives back."""

    def set_streams(self, streams: Any) -> None:
        """Let them go on from what :meth:`streams` returned."""

    def parameter_norms(self) -> dict[str, float]:
        """L2 norm of each trainable variable by path; non-finite exactly if the variable holds a NaN or an Inf."""


class TryingBackend(Backend, Protocol):
    """One whose compiled step can be tried out without a trace."""

    def on_copies(self) -> AbstractContextManager[None]:
        """Inside, steps change copies of the state, or what is put back at the end."""


def backend_of(model: Any) -> Backend:
    """The guarded step for a model on the active backend.

    The one that an earlier fit has compiled, of whichever guard, as long as Keras uses its own compiled step again: so
    that a loop over ``model.fit(..., callbacks=[NaNGuard()])`` compiles once. It lives and dies with Keras' own.

    Args:
        model: A compiled model whose train function has been made.
    """
    kept: Backend | None = getattr(model.train_function, KEPT_AS, None)
    if kept is not None and kept.model is model and _consists_of(model, kept.made_for or []):
        return kept
    module = importlib.import_module(f"nan_callbacks.keras.backend_{keras.backend.backend()}")
    made: Backend = module.GuardedStep(model)
    if made.made_for is not None:  # otherwise it is made anew for nothing, and its copies of the state need not stay
        with suppress(AttributeError, TypeError):  # somebody else's train function, which takes no attributes
            setattr(model.train_function, KEPT_AS, made)
    return made


def anatomy_of(model: Any) -> list[Any]:
    """What a compiled step was compiled for: optimizers, their variables (a step may build them), trained variables."""
    optimizers = optimizers_of(model)
    return [*optimizers, *(each for one in optimizers for each in one.variables), *model.trainable_variables]


def _consists_of(model: Any, anatomy: list[Any]) -> bool:
    """Whether a model still consists of what :func:`anatomy_of` said then."""
    present = anatomy_of(model)
    return len(present) == len(anatomy) and all(one is other for one, other in zip(present, anatomy, strict=True))
