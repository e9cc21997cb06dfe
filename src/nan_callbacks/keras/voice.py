"""What the guard says and logs: lines beside Keras' progress bar, values under ``nan_callbacks/…``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nan_callbacks.core import StepObservation

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


def published(summary: dict[str, Any], last: StepObservation | None) -> dict[str, float]:
    """Values for the logs."""
    values = {PREFIX + name: float(summary[name]) for name in PUBLISHED_TOTALS}
    if last is not None and last.grad_norm is not None:
        values[PREFIX + "grad_norm"] = last.grad_norm
    return values
