"""On which scale weights usually begin: growth up to there is no sign of a learning rate that is too high."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

WEAK = 0.3
"""Weights times the root of the fan-in, below which a start is smaller than any usual one: half of PyTorch's for linear
layers (0.577), which is the smallest."""


def least_usual_norm(shapes: Iterable[Sequence[int]]) -> float:
    """Norm of all parameters below which they began on a smaller scale than is usual.

    The norm of a matrix is the scale of its weights times the root of the number of its units. What are units and what
    inputs is not known, so the smaller number counts; it is that of a table's columns as well.

    Args:
        shapes: Of all parameters; vectors and scalars have no scale of their own.
    """
    units = sum(sorted(shape)[-2] for shape in shapes if len(shape) > 1)
    return WEAK * math.sqrt(units)
