"""Units that are copies of one another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST_COPIES = 3
"""Of one unit, itself among them: two may be alike by design."""

SHARE = 0.2
"""Of the units: those of one of four gates, of a recurrent layer whose units are all copies."""


def are_alike(weights: NDArray[Any]) -> bool:
    """Whether many units have exactly the same weights.

    Args:
        weights: Shape [units, …]. Of a recurrent layer the units of all gates.

    Returns:
        Units of nothing but zeros do not count: what is blocked by zeros is another matter. They may stand beside the
        copies, as the shares of a mixture beside its means.
    """
    units = weights.reshape(len(weights), -1) if weights.size else weights.reshape(0, 1)
    fewest = max(FEWEST_COPIES, SHARE * len(units))
    sums, first, counts = np.unique(units.sum(axis=1, dtype=np.float64), return_index=True, return_counts=True)
    # Copies have equal sums; what else has is told apart by looking at all of it.
    for index in first[(counts >= fewest) & np.isfinite(sums)]:
        if np.any(units[index]) and int((units == units[index]).all(axis=1).sum()) >= fewest:
            return True
    return False
