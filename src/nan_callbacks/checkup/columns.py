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
"""Share of the rows (at least one) left out of means and deviations: a wild row must not count as the scale."""

FEWEST_ROWS = 16
"""Rows from which one can be left out."""


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
    if not values.size:
        return np.empty((0, 1, 1))
    moved = np.moveaxis(values, axis, -1).astype(np.float64)
    return moved.reshape(len(moved), -1, moved.shape[-1])


def channels_of(values: Array, axis: int) -> list[Channel]:
    """The channels without their wildest rows; NaN and Inf are left out."""
    cube = by_channel(values, axis)
    return [_channel(cube[..., index]) for index in range(cube.shape[-1])] if len(cube) else []


def _channel(rows: Numbers) -> Channel:
    kept = _ordinary(rows)
    kept = kept[np.isfinite(kept)]
    if not kept.size:
        return Channel(0.0, 0.0)
    largest = max(float(np.abs(kept).max()), 1e-300)
    scaled = kept / largest  # so that squares stay finite
    return Channel(float(scaled.mean()) * largest, float(scaled.std()) * largest)


def _ordinary(rows: Numbers) -> Numbers:
    """Without the rows that reach farthest from the median."""
    finite = rows[np.isfinite(rows)]
    if len(rows) < FEWEST_ROWS or not finite.size:
        return rows
    far = np.abs(np.where(np.isfinite(rows), rows, np.nan) - np.median(finite))
    farthest = np.nanmax(np.where(np.isnan(far), 0.0, far), axis=1)
    return rows[np.argsort(farthest, kind="stable")[: len(rows) - max(1, int(TRIMMED * len(rows)))]]


def is_whole(values: Array) -> bool:
    """Whether all finite values are whole numbers."""
    if values.dtype.kind in "iub":
        return True
    finite = values[np.isfinite(values)]
    return bool(finite.size) and bool((finite == np.rint(finite)).all())
