"""What the guard says and logs: lines beside Keras' progress bar, values under ``nan_callbacks/…``."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras

PREFIX = "nan_callbacks/"

PUBLISHED_TOTALS = ("incidents", "skipped_steps", "rollbacks", "lr_scale")
"""Totals that other callbacks see."""


def speaker(params: dict[str, Any] | None, *, verbose: bool) -> Callable[[str], None] | None:
    """A function that prints one message; None if nothing shall be printed.

    Args:
        params: Parameters of the fit; with ``verbose=1`` a progress bar is being drawn, whose line must end first.
        verbose: False for silence.
    """
    if not verbose:
        return None
    lead = "\n" if (params or {}).get("verbose") in (1, "auto") else ""

    def say(message: str) -> None:
        print(f"{lead}NaNGuard: {message}", flush=True)

    return say


def published(summary: dict[str, Any], grad_norm: float | None) -> dict[str, float]:
    """Values for the logs.

    Args:
        summary: Totals of the run.
        grad_norm: Gradient norm of the newest step that has one; None before it.
    """
    values = {PREFIX + name: float(summary[name]) for name in PUBLISHED_TOTALS}
    if grad_norm is not None:
        values[PREFIX + "grad_norm"] = grad_norm
    return values


class EpochTotals:
    """The values of each epoch, for the history of a fit in which something happened."""

    def __init__(self) -> None:
        self._epochs: list[dict[str, float]] = []

    def note(self, values: dict[str, float]) -> None:
        """One more epoch is over."""
        self._epochs.append(values)

    def add_to(self, history: dict[str, list[Any]]) -> None:
        """Make columns of them, as long as the others; none if the history is of other epochs.

        Args:
            history: Of a ``History``.
        """
        names = {name for values in self._epochs for name in values} - history.keys()
        if all(len(column) == len(self._epochs) for column in history.values()):
            history.update({name: [values.get(name, 0.0) for values in self._epochs] for name in sorted(names)})


def say_unguarded(model: Any) -> None:
    """Say that there is nothing to guard, and why."""
    why = "this training step calls no optimizer that can be seen from outside"
    if not model.trainable_variables:
        why = (
            "no weight of this model is trained (OPT608): `trainable` is False for all of it, or it has none; set "
            "`trainable = False` on the body alone and compile again"
        )
    warnings.warn(f"NaNGuard: {why}, so it is not guarded.", stacklevel=2)


def say_loss_is_hidden() -> None:
    """Say that half of what the guard looks at is missing."""
    remedy = "Feed the loss to a `keras.metrics.Mean` named 'loss' of the model"
    if keras.backend.backend() != "jax":
        remedy += " before the optimizer is called, or compute it with `self.compute_loss`"
    warnings.warn(
        "NaNGuard: the loss of this training step cannot be seen, so its steps are judged by their gradients alone. "
        f"{remedy}.",
        stacklevel=2,
    )
