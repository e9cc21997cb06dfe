"""Does a batch as a whole lie elsewhere than the batches before it?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FEWEST_ROWS = 4
"""Rows of a batch below which one that lies outside of a range is no rarity."""

ALWAYS = 0.25
"""Share of rows from which a feature leaves its range with every batch: a time, a sample's number."""

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
    return max(_newly_outside(now, before) for now, before in looks)


def _newly_outside(now: Numbers, before: Sequence[Numbers]) -> float:
    """The largest share in a respect in which the batch before was not outside itself, as times and numbers are."""
    shares = _outside(now, np.concatenate(before))
    if len(before) > 1:
        shares = np.where(_outside(before[-1], np.concatenate(before[:-1])) > ALWAYS, 0.0, shares)
    return float(shares.max())


def _outside(now: Numbers, before: Numbers) -> Numbers:
    """For each respect, the share of rows outside of the range before; 0 where nothing is known of it."""
    before = np.where(np.isfinite(before), before, np.nan)
    known = ~np.isnan(before).all(axis=0)
    shares = np.zeros(now.shape[1])
    if known.any():
        low, high = np.nanmin(before[:, known], axis=0), np.nanmax(before[:, known], axis=0)
        shares[known] = ((now[:, known] < low) | (now[:, known] > high)).mean(axis=0)
    return shares


def _features(rows: Numbers) -> Numbers:
    flat = rows.reshape(len(rows), -1)
    return flat[:, :: max(1, -(-flat.shape[1] // MOST_FEATURES))]


def _row_by_row(rows: Numbers) -> Numbers:
    """Mean, spread and largest magnitude of each row, in which rows of any length can be compared."""
    flat = rows.reshape(len(rows), -1)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.stack([flat.mean(1), flat.std(1), np.abs(flat).max(1)], axis=1)
