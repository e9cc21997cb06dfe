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
    """Whether many units have exactly the weights of the first one.

    Args:
        weights: Shape [units, …]. Of a recurrent layer the units of all gates.

    Returns:
        False if these weights are nothing but zeros: what is blocked by zeros is another matter.
    """
    units = weights.reshape(len(weights), -1) if weights.size else weights.reshape(0, 1)
    if not len(units) or not np.any(units[0]) or not np.isfinite(units[0]).all():
        return False
    copies = int((units == units[0]).all(axis=1).sum())
    return copies >= max(FEWEST_COPIES, SHARE * len(units))
