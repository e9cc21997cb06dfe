"""Samples that are no larger than others, and unlike all of them: inverted pictures, columns in another order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

UNLIKE = 2.0
"""Mean squared deviation of a sample over the largest of all recent ones, from which it is unlike them: of samples that
are drawn as before, the largest of 32 exceeds that of 256 by a fifth at most."""

MOST_FEATURES = 4096
"""Features that are looked at, evenly spaced."""

Numbers = NDArray[np.float64]


def unlike_rows(failed: Numbers, recent: Sequence[Numbers]) -> tuple[int, ...]:
    """Rows of a batch that deviate from the mean of recent ones further than any of these, over all features.

    A feature that varies less than most is measured by how most vary: rare features are no deviation.

    Args:
        failed: The rows of a batch, samples along the first axis.
        recent: Those of recent batches.
    """
    past = [values for values in recent if values.ndim == failed.ndim and values.shape[1:] == failed.shape[1:]]
    if failed.ndim < 2 or not failed.size or sum(map(len, past)) < 2 * len(failed):
        return ()
    now, before = _features(failed), np.concatenate([_features(values) for values in past])
    if not (np.isfinite(now).all() and np.isfinite(before).all()):
        return ()
    with np.errstate(over="ignore", invalid="ignore"):
        spread = before.std(0)
        if not np.isfinite(spread).all() or not spread.any():
            return ()
        spread = np.maximum(spread, np.median(spread[spread > 0]))
        here, there = (np.square((rows - before.mean(0)) / spread).mean(1) for rows in (now, before))
    return tuple(int(row) for row in np.flatnonzero(here > UNLIKE * there.max()))


def _features(rows: Numbers) -> Numbers:
    flat = rows.reshape(len(rows), -1)
    return flat[:, :: max(1, -(-flat.shape[1] // MOST_FEATURES))]
