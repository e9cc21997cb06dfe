"""Robust statistics of small samples: pure formulas, each with its source."""

from __future__ import annotations

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
    center = median_of_sorted(values)
    return MAD_TO_SIGMA * median([abs(value - center) for value in values])


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
