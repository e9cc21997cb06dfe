"""Rows far outside of all others, and values that stand for a missing one.

What counts is a gap, not a distance: heavy tails reach far, but without holes. A row is an outlier if its distance from
the median is ten times that of the farthest of the ordinary rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nan_callbacks.checkup.advice import WARNING, notice, rows_in_words
from nan_callbacks.checkup.columns import Numbers, by_channel
from nan_callbacks.checkup.facts import Array, InputFacts
from nan_callbacks.checkup.notice import Notice

GAP = 10.0
"""``min_ratio`` of the guard: what it calls a spike in a run is an outlier in the data."""

FEW = 0.01
"""Share of the rows up to which rows may be outliers; more of them are a population."""

FEWEST_ROWS = 16
MOST_SENTINELS = 0.5
"""Share of the values up to which one and the same far value may stand for missing ones."""


def outlying(facts: InputFacts) -> Iterator[Notice]:
    """Notices about rows of an input of numbers."""
    values = facts.values
    if values.dtype.kind != "f" or len(values) < FEWEST_ROWS:
        return
    cube = by_channel(values, facts.channel_axis)
    cube = np.where(np.isfinite(cube), cube, np.nan)
    far = _distances(cube)
    yardstick = _usual_distance(far)
    for channel in range(far.shape[1]):
        told = _sentinel(cube[..., channel]) or _outliers(
            far[:, channel], cube[..., channel], yardstick, facts.row_numbers
        )
        if told:
            place = f"{facts.name}, channel {channel}" if far.shape[1] > 1 else facts.name
            yield notice("DATA503", told[0], WARNING, place, told[1])
            return


def _distances(cube: Numbers) -> Numbers:
    """Largest distance of each row from the channel's median, shape [rows, channels]."""
    with np.errstate(all="ignore"):
        flat = cube.reshape(-1, cube.shape[-1])
        known = ~np.isnan(flat).all(0)
        centre = np.zeros(flat.shape[1])
        centre[known] = np.nanmedian(flat[:, known], axis=0)
        far = np.abs(cube - centre)
        largest: Numbers = np.where(np.isnan(far), 0.0, far).max(axis=1)
        return largest


def _usual_distance(far: Numbers) -> float:
    """Median over the channels of the distance that all but a hundredth of the rows keep."""
    kept = np.sort(far, axis=0)[: max(1, int(len(far) * (1 - FEW)))]
    return float(np.median(kept[-1]))


def _outliers(far: Numbers, values: Numbers, usual: float, numbers: Array | None) -> tuple[str, str] | None:
    order = np.argsort(-far, kind="stable")
    most = max(1, int(FEW * len(far)))
    for count in range(1, most + 1):
        ordinary = float(far[order[count]])
        # A channel that is constant but for these rows is measured by the others: rare features are no outliers.
        yardstick = ordinary if ordinary > 0 else usual
        if yardstick > 0 and far[order[count - 1]] > GAP * yardstick:
            rows = np.sort(order[:count])
            worst = values[order[0]]
            value = worst[np.nanargmax(np.abs(worst))]
            told = rows_in_words(rows, numbers)
            return "outlier", (
                f"{told[0].upper()}{told[1:]}: a value of {value:.4g}, "
                f"{far[order[0]] / yardstick:.3g} times as far from the median as any other row."
            )
    return None


def _sentinel(values: Numbers) -> tuple[str, str] | None:
    """One value, written again and again, far from all others: it stands for a missing one."""
    flat = values[np.isfinite(values)]
    if flat.size < FEWEST_ROWS:
        return None
    for value in (float(flat.max()), float(flat.min())):
        same = flat == value
        rest = flat[~same]
        if value == 0 or same.sum() < 2 or same.mean() > MOST_SENTINELS or rest.size < FEWEST_ROWS:
            continue
        centre = float(np.median(rest))
        spread = float(np.abs(rest - centre).max())
        if spread > 0 and abs(value - centre) > GAP * spread:
            return "sentinel", (
                f"The value {value:g} occurs {int(same.sum())} times, {abs(value - centre) / spread:.3g} times as far "
                "from the median as any other: it seems to stand for a missing one."
            )
    return None
