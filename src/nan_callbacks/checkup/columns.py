"""Statistics of one input, channel by channel, on which single wild rows have no influence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nan_callbacks.checkup.facts import Array

Numbers = NDArray[np.float64]

MOST_VALUES = 1 << 21
"""Values of one tensor that statistics look at; of larger ones, rows at an even stride."""

TRIMMED = 0.01
"""Share cut off at each end before means and deviations: a wild row in a hundred must not count as the scale."""


@dataclass(frozen=True)
class Channel:
    """The ordinary values of one channel."""

    mean: float
    std: float

    @property
    def rms(self) -> float:
        """Root mean square."""
        return math.hypot(self.mean, self.std)


def by_channel(values: Array, axis: int) -> Numbers:
    """Rows, positions, channels: shape [rows, positions, channels].

    Args:
        values: Rows along the first axis.
        axis: Axis of the channels; without any (one number per row) there is one channel.
    """
    if values.size > MOST_VALUES and len(values) > 1:
        values = values[:: -(-values.size // MOST_VALUES)]
    if values.ndim < 2:
        return np.asarray(values, np.float64).reshape(len(values) if values.ndim else 1, 1, 1)
    moved = np.moveaxis(values, axis, -1).astype(np.float64)
    return moved.reshape(len(moved), -1, moved.shape[-1])


def channels_of(values: Array, axis: int) -> list[Channel]:
    """The channels without the ends of their distributions; NaN and Inf are left out."""
    cube = by_channel(values, axis)
    return [_channel(cube[..., index].ravel()) for index in range(cube.shape[-1])]


def _channel(column: Numbers) -> Channel:
    column = column[np.isfinite(column)]
    if not column.size:
        return Channel(0.0, 0.0)
    low, high = np.quantile(column, [TRIMMED, 1 - TRIMMED], method="nearest")
    kept = column[(column >= low) & (column <= high)]
    largest = max(float(np.abs(kept).max()), 1e-300)
    scaled = kept / largest  # so that squares stay finite
    return Channel(float(scaled.mean()) * largest, float(scaled.std()) * largest)


def is_whole(values: Array) -> bool:
    """Whether all finite values are whole numbers."""
    if values.dtype.kind in "iub":
        return True
    finite = values[np.isfinite(values)]
    return bool(finite.size) and bool((finite == np.rint(finite)).all())
