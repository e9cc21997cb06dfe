"""Robust statistics of small samples: pure formulas, each with its source."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

MAD_TO_SIGMA = 1.4826
"""Scale that makes the MAD a consistent estimate of a normal standard deviation: 1 / Φ⁻¹(3/4).

Rousseeuw & Croux, "Alternatives to the Median Absolute Deviation", JASA 88 (1993).
"""


def median_of_sorted(values: Sequence[float]) -> float:
    """Median of an ascending, non-empty sequence."""
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else 0.5 * values[middle - 1] + 0.5 * values[middle]


def median(values: Sequence[float]) -> float:
    """Median of a non-empty sequence, any order."""
    return median_of_sorted(sorted(values))


def robust_sigma_of_sorted(values: Sequence[float]) -> float:
    """Robust standard deviation of an ascending sequence: 1.4826 · median(|x - median(x)|).

    Args:
        values: Ascending, non-empty.

    Returns:
        The scaled median absolute deviation, 0 for fewer than two values.
    """
    if len(values) < 2:
        return 0.0
    count, center = len(values), median_of_sorted(values)
    middle = _deviation_of_sorted(values, center, count // 2 + 1)
    if count % 2:
        return MAD_TO_SIGMA * middle
    return MAD_TO_SIGMA * (0.5 * _deviation_of_sorted(values, center, count // 2) + 0.5 * middle)


def _deviation_of_sorted(values: Sequence[float], center: float, rank: int) -> float:
    """The ``rank``-th smallest distance from ``center``, found without sorting the distances.

    To the left and to the right of the center the distances are sorted already; how many of the smallest ones lie on
    the left is found by bisection. A fifth of the time of sorting them, at 128 values.
    """
    split = bisect.bisect_left(values, center)
    low, high = max(0, rank - (len(values) - split)), min(rank, split)
    while low < high:
        left = (low + high) // 2
        if center - values[split - 1 - left] < values[split + rank - left - 1] - center:
            low = left + 1
        else:
            high = left
    from_left = center - values[split - low] if low > 0 else 0.0
    from_right = values[split + rank - low - 1] - center if rank > low else 0.0
    return max(from_left, from_right)


def robust_z(value: float, center: float, sigma: float) -> float:
    """Distance of a value from a robust center in robust standard deviations.

    The modified z-score of Iglewicz & Hoaglin, "How to Detect and Handle Outliers" (ASQC, 1993), without their
    constant, which is part of ``sigma`` here.

    Args:
        value: The value to judge.
        center: Median of the reference.
        sigma: Robust standard deviation of the reference, in the same unit.

    Returns:
        The signed distance; ±inf if the reference does not vary and the value differs from it.
    """
    if sigma > 0:
        return (value - center) / sigma
    return 0.0 if value == center else math.copysign(math.inf, value - center)
