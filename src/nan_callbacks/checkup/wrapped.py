"""Integers that went around the end of their type.

The numbers of a fixed-size integer type lie on a circle. Honest data leave their largest empty arc at the type's ends,
beyond their extremes; data that have wrapped around lie on both sides of the ends, and the largest empty arc is inside.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nan_callbacks.checkup.advice import ERROR, notice
from nan_callbacks.checkup.facts import Array, InputFacts
from nan_callbacks.checkup.notice import Notice

EMPTY = 0.2
"""Share of the circle from which an empty arc means something: images and sound fill theirs."""

NEAR = 0.3
"""Share of the circle that may lie empty around the type's ends."""

LARGER = 1.2
"""How much larger the arc inside must be than that at the ends."""


CLIPPED = 0.5
"""Share of a side's values that are its very end, from which the side was clipped there: an overexposed picture."""


def has_wrapped(facts: InputFacts) -> Iterator[Notice]:
    """A notice if an input of narrow integers has wrapped around."""
    values = facts.values
    if values.dtype.kind not in "iu" or values.dtype.itemsize > 4 or not values.size:
        return
    info = np.iinfo(values.dtype)
    circle = float(info.max) - float(info.min) + 1
    seen = np.unique(values).astype(np.float64)
    if len(seen) < 4:
        return
    arcs = np.diff(seen)
    at = int(arcs.argmax())
    inside, ends = float(arcs[at]), circle - float(seen[-1] - seen[0])
    # A single value at an end is a mark, such as 255 for "none".
    sides = min(at + 1, len(seen) - at - 1)
    if _is_clipped(values, float(seen[0]), float(seen[at])) or _is_clipped(
        values, float(seen[at + 1]), float(seen[-1])
    ):
        return
    if sides < 2 or inside < EMPTY * circle or ends > NEAR * circle or inside < LARGER * ends:
        return
    yield notice(
        "DATA507", "wrapped", ERROR, facts.name,
        f"Values of {values.dtype} lie at both ends of its range ({int(seen[0])} to {int(seen[at])}, and "
        f"{int(seen[at + 1])} to {int(seen[-1])}), with nothing in between.",
    )  # fmt: skip


def _is_clipped(values: Array, low: float, high: float) -> bool:
    side = values[(values >= low) & (values <= high)]
    info = np.iinfo(values.dtype)
    return bool(((side == info.min) | (side == info.max)).mean() > CLIPPED)
