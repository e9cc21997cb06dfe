"""Integers that went around the end of their type.

The numbers of a fixed-size integer type lie on a circle. Honest data leave their largest empty arc at the type's ends,
beyond their extremes; data that have wrapped around lie on both sides of the ends, and the largest empty arc is inside.
Those that have gone around more than once leave no arc empty: they fill the type, which of wide types hardly any do.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nan_callbacks.checkup.advice import ERROR, WARNING, notice
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

FILLED = 0.98
"""Share of a type's range that values reach over, about its middle, from which they reach its ends."""

EVEN = (0.45, 0.7)
"""Standard deviation over half of the range between which values are spread about evenly: an even spread has 0.577,
sound with a usual gain less than 0.3, nothing but the two ends 1."""

PILED = 0.01
"""Share of values at the very ends from which they were clipped there."""

TABLE_AXES = 2
"""Axes up to which an input is a table, or sequences of one channel: pictures of 16 bits may fill their type."""

FEWEST = 64
"""Values that tell how they are spread."""


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


def fills_its_type(facts: InputFacts) -> Iterator[Notice]:
    """A notice if an input that is computed with lies all over the range of a wide integer type.

    An honest one may as well, if it was scaled to do so: it is a suspicion, for a run in which something is wrong.
    """
    values = facts.values
    if facts.use != "numbers" or values.dtype.kind not in "iu" or values.dtype.itemsize not in (2, 4):
        return
    if values.ndim > TABLE_AXES or values.size < FEWEST:
        return
    info = np.iinfo(values.dtype)
    half, middle = (float(info.max) - float(info.min)) / 2, (float(info.max) + float(info.min)) / 2
    numbers = values.astype(np.float64)
    reaches = min(middle - numbers.min(), numbers.max() - middle) >= FILLED * half
    piled = ((values == info.min) | (values == info.max)).mean() > PILED
    if not reaches or piled or not EVEN[0] < numbers.std() / half < EVEN[1]:
        return
    yield notice(
        "DATA507", "filled", WARNING, facts.name,
        f"Values of {values.dtype} are spread all over the range of that type ({int(values.min())} to "
        f"{int(values.max())}), as numbers are that have gone around its end.",
    )  # fmt: skip


def _is_clipped(values: Array, low: float, high: float) -> bool:
    side = values[(values >= low) & (values <= high)]
    info = np.iinfo(values.dtype)
    return bool(((side == info.min) | (side == info.max)).mean() > CLIPPED)
