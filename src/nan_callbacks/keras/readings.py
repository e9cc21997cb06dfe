"""The numbers that go into a compiled step and come out of it, as flat float32 vectors."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nan_callbacks.core import Limits

LR_SCALE = 6
"""Column of the learning rate's scale, after loss, gradient norm, statistics jump and three permissions."""
DRAWS = 7
"""Column that says whether the random numbers of the step may count as used even if it is dropped."""
COLUMNS = 8

HEAD = 6
"""Loss, gradient norm, statistics jump, loss scale, learning rate, admitted; then two numbers per variable."""

FLOAT32 = struct.Struct("<f")
ROW = struct.Struct(f"<{COLUMNS}f")
FLOAT32_MAX = float(np.finfo(np.float32).max)


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


@dataclass(slots=True)
class Reading:
    """What one update of one optimizer measured, on the host. One is made at every step: not frozen, which is slow."""

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
    names: tuple[str, ...] = ()
    """Paths of all variables that have a gradient."""
    norms: Sequence[float] = ()
    """Of their gradients."""


def pack_limits(limits: Sequence[Limits], lr_scale: float, *, draws_count_as_used: bool = False) -> np.ndarray:
    """One row per optimizer, the last two numbers the same in all of them.

    The gate compares in float32, the core in float64: rounding a limit down makes both say the same of every float32.

    Returns:
        A read-only array of shape [optimizers, :data:`COLUMNS`].
    """
    rows = [
        ROW.pack(
            _rounded_down(each.max_loss),
            _rounded_down(each.max_grad_norm),
            _rounded_down(each.max_statistics_jump),
            each.admit_non_finite_loss,
            each.admit_non_finite_gradients,
            each.closed,
            lr_scale,
            draws_count_as_used,
        )
        for each in limits
    ]
    return np.frombuffer(b"".join(rows), "<f4").reshape(-1, COLUMNS)  # read-only, as bytes are


def unpack(layouts: Sequence[Layout], vector: np.ndarray) -> list[Reading]:
    """The readings in the vector that a compiled step returned."""
    numbers, readings, start = vector.tolist(), [], 0
    for layout in layouts:
        readings.append(_unpack_one(layout, numbers, start))
        start += layout.size
    return readings


def _unpack_one(layout: Layout, numbers: list[float], start: int) -> Reading:
    loss, grad_norm, jump, loss_scale, learning_rate, admitted = numbers[start : start + HEAD]
    names = layout.names
    bad: tuple[str, ...] = ()
    if not math.isfinite(grad_norm):
        counts = numbers[start + HEAD + len(names) : start + layout.size]
        bad = tuple(name for name, count in zip(names, counts, strict=True) if count)
    return Reading(
        stream=layout.stream,
        optimizer_name=layout.optimizer_name,
        loss=loss if layout.has_loss else None,
        grad_norm=grad_norm if names else None,
        statistics_jump=jump if layout.has_jump else None,
        loss_scale=loss_scale if layout.has_loss_scale else None,
        learning_rate=learning_rate,
        admitted=admitted > 0.5,
        non_finite_names=bad,
        names=names,
        norms=numbers[start + HEAD : start + HEAD + len(names)],
    )


def in_single(number: float) -> float:
    """A number rounded to float32; Inf beyond its range."""
    if abs(number) > FLOAT32_MAX:
        return number if math.isinf(number) else math.copysign(math.inf, number)
    return float(FLOAT32.unpack(FLOAT32.pack(number))[0])


def _rounded_down(limit: float) -> float:
    """The largest float32 that is not larger."""
    if abs(limit) > FLOAT32_MAX:
        return limit if math.isinf(limit) else FLOAT32_MAX if limit > 0 else -math.inf
    rounded = in_single(limit)
    return rounded if rounded <= limit else float(np.nextafter(np.float32(rounded), np.float32(-np.inf)))
