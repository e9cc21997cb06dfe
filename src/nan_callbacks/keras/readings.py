"""The numbers that go into a compiled step and come out of it, as flat float32 vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nan_callbacks.core import Limits

LR_SCALE = 6
"""Column of the learning rate's scale, after loss, gradient norm, statistics jump and three permissions."""

HEAD = 6
"""Loss, gradient norm, statistics jump, loss scale, learning rate, admitted; then two numbers per variable."""


@dataclass(frozen=True)
class Layout:
    """What a vector of numbers means; known when the step is traced."""

    stream: int
    optimizer_name: str
    names: tuple[str, ...]
    """Paths of the variables that have a gradient."""
    has_loss: bool
    has_jump: bool
    has_loss_scale: bool

    @property
    def size(self) -> int:
        """Length of the vector."""
        return HEAD + 2 * len(self.names)


@dataclass(frozen=True)
class Reading:
    """What one update of one optimizer measured, on the host."""

    stream: int
    optimizer_name: str
    loss: float | None
    grad_norm: float | None
    statistics_jump: float | None
    loss_scale: float | None
    learning_rate: float
    admitted: bool
    non_finite_names: tuple[str, ...]
    """Paths of all variables with a non-finite gradient."""
    norms: dict[str, float] = field(default_factory=dict)
    """Gradient norm by variable, for diagnosis; empty where it was not read."""


def pack_limits(limits: Sequence[Limits], lr_scale: float) -> np.ndarray:
    """One row per optimizer.

    The gate compares in float32, the core in float64: rounding a limit down makes both say the same of every float32.
    """
    rows = [
        [
            _rounded_down(each.max_loss),
            _rounded_down(each.max_grad_norm),
            _rounded_down(each.max_statistics_jump),
            float(each.admit_non_finite_loss),
            float(each.admit_non_finite_gradients),
            float(each.closed),
            lr_scale,
        ]
        for each in limits
    ]
    return np.asarray(rows, np.float32)


def unpack(layouts: Sequence[Layout], vector: np.ndarray) -> list[Reading]:
    """The readings in the vector that a compiled step returned."""
    readings, start = [], 0
    for layout in layouts:
        readings.append(_unpack_one(layout, vector[start : start + layout.size]))
        start += layout.size
    return readings


def _unpack_one(layout: Layout, vector: np.ndarray) -> Reading:
    loss, grad_norm, jump, loss_scale, learning_rate, admitted = (float(value) for value in vector[:HEAD])
    count = len(layout.names)
    bad = () if math.isfinite(grad_norm) else np.flatnonzero(vector[HEAD + count :])
    return Reading(
        stream=layout.stream,
        optimizer_name=layout.optimizer_name,
        loss=loss if layout.has_loss else None,
        grad_norm=grad_norm if count else None,
        statistics_jump=jump if layout.has_jump else None,
        loss_scale=loss_scale if layout.has_loss_scale else None,
        learning_rate=learning_rate,
        admitted=admitted > 0.5,
        non_finite_names=tuple(layout.names[i] for i in bad),
        norms=dict(zip(layout.names, vector[HEAD : HEAD + count].tolist(), strict=True)),
    )


def _rounded_down(limit: float) -> np.float32:
    with np.errstate(over="ignore"):
        rounded = np.float32(limit)
    return rounded if float(rounded) <= limit else np.nextafter(rounded, np.float32(-np.inf))
