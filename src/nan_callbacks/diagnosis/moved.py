"""Does a batch as a whole lie elsewhere than the batches before it?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FEWEST_ROWS = 4
"""Rows of a batch below which one that lies outside of a range is no rarity."""

MOST_FEATURES = 4096
"""Features that are looked at, evenly spaced."""

Numbers = NDArray[np.float64]


def moved_share(failed: Numbers, recent: Sequence[Numbers]) -> float:
    """Largest share of rows outside of all that recent batches held in one and the same respect.

    Of rows that are drawn like those before, a share of 2 / (recent rows + 1) lies outside of their range.

    Args:
        failed: The rows of a batch, samples along the first axis.
        recent: Those of recent batches.

    Returns:
        0 to 1.
    """
    past = [values for values in recent if values.ndim == failed.ndim and values.size]
    if not failed.ndim or not failed.size or len(failed) < FEWEST_ROWS or sum(map(len, past)) < 2 * len(failed):
        return 0.0
    looks = [(_row_by_row(failed), [_row_by_row(values) for values in past])]
    if all(values.shape[1:] == failed.shape[1:] for values in past):
        looks.append((_features(failed), [_features(values) for values in past]))
    return max(_outside(now, np.concatenate(before)) for now, before in looks)


def _outside(now: Numbers, before: Numbers) -> float:
    before = np.where(np.isfinite(before), before, np.nan)
    known = ~np.isnan(before).all(axis=0)
    if not known.any():
        return 0.0
    low, high = np.nanmin(before[:, known], axis=0), np.nanmax(before[:, known], axis=0)
    here = now[:, known]
    return float(((here < low) | (here > high)).mean(axis=0).max())


def _features(rows: Numbers) -> Numbers:
    flat = rows.reshape(len(rows), -1)
    return flat[:, :: max(1, -(-flat.shape[1] // MOST_FEATURES))]


def _row_by_row(rows: Numbers) -> Numbers:
    """Mean, spread and largest magnitude of each row, in which rows of any length can be compared."""
    flat = rows.reshape(len(rows), -1)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.stack([flat.mean(1), flat.std(1), np.abs(flat).max(1)], axis=1)
