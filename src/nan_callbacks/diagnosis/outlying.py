"""Rows of a batch that lie far outside of everything that the run has digested."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

OUTLIER_RATIO = 10.0
"""As in :attr:`.BatchPart.outlier_rows`."""

MOST_COLUMNS = 4096
"""Features up to which each is compared with its own past."""

Numbers = NDArray[np.float64]


def outlying_rows(values: NDArray[Any], past: list[Numbers], *, centred: bool = False) -> tuple[tuple[int, ...], float]:
    """Rows far outside of recent ones or, without these, of the median row.

    Whole numbers of an integer type are indices, tokens or pixels: their size says nothing.

    Args:
        values: Samples along the first axis.
        past: Recent batches.
        centred: Measure distances from the median of the past rather than from zero.

    Returns:
        The rows, the worst first, and the ratio of the worst to the yardstick.
    """
    if values.dtype.kind != "f" or not values.ndim or not values.size:
        return (), 1.0
    ratios = _against_features(values, past, centred) if values.ndim == 2 and past else None
    if ratios is None:
        usual = _median(np.concatenate([each.reshape(-1) for each in past])) if centred else 0.0
        largest = _largest(values, usual)
        yardstick = _yardstick(largest, past, usual)
        ratios = over(largest, yardstick) if yardstick > 0 else np.ones(len(values))
    worst = np.argsort(-ratios, kind="stable")
    rows = tuple(int(row) for row in worst if ratios[row] > OUTLIER_RATIO)
    return rows, float(ratios[worst[0]])


def _largest(values: NDArray[Any], usual: Numbers | float = 0.0) -> Numbers:
    """Largest finite distance of each row from what is usual, 0 for a row without one."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        distances = np.minimum(np.abs(rows - usual), np.finfo(np.float64).max)
        finite = distances if np.isfinite(rows).all() else np.where(np.isfinite(rows), distances, 0)
    largest: Numbers = finite.max(axis=1)
    return largest


def _yardstick(largest: Numbers, past: list[Numbers], usual: float) -> float:
    if past:
        return max(float(_largest(np.atleast_1d(values), usual).max()) for values in past)
    return float(np.median(largest))


def _median(values: Numbers) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else 0.0


def _against_features(values: NDArray[Any], past: list[Numbers], centred: bool) -> Numbers | None:
    """Each feature against its own past, so that one on a small scale is not hidden by one on a large scale.

    A feature that was zero or tiny so far is measured by the median feature: rare features are no outliers.
    """
    columns = values.shape[1]
    if columns > MOST_COLUMNS or any(batch.ndim != 2 or batch.shape[1] != columns for batch in past):
        return None
    usual = np.array([_median(column) for column in np.concatenate(past).T]) if centred else np.zeros(columns)
    distances = np.max([_largest(batch.T, usual[:, None]) for batch in past], axis=0)
    used = distances[distances > 0]
    if not used.size:
        return None
    yardstick = np.maximum(distances, np.median(used))
    with np.errstate(over="ignore", invalid="ignore"):
        ours = np.where(np.isfinite(values), np.abs(values.astype(np.float64) - usual), 0.0)
    ratios: Numbers = over(ours, yardstick).max(axis=1)
    return ratios


def over(values: Numbers, yardstick: Numbers | float) -> Numbers:
    """One over the other, at most the largest float64."""
    with np.errstate(over="ignore"):
        ratios: Numbers = np.minimum(values / yardstick, np.finfo(np.float64).max)
    return ratios
