"""What is wrong with inputs: non-finite, unscaled, constant, out of the table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nan_callbacks.checkup.advice import ERROR, INFO, WARNING, notice, rows_in_words, share
from nan_callbacks.checkup.columns import by_channel, channels_of, is_whole
from nan_callbacks.checkup.facts import Array, InputFacts
from nan_callbacks.checkup.lookups import out_of_table
from nan_callbacks.checkup.notice import Notice
from nan_callbacks.checkup.outliers import outlying
from nan_callbacks.checkup.wrapped import has_wrapped

LARGE = 10.0
"""Root mean square of a channel from which it is unscaled. First layers are initialised for inputs of variance 1 (LeCun
et al. 1998, section 4.3), and whatever lies within an order of magnitude still trains; ages, prices and pixels do not
lie there."""

SMALL = 1e-3
"""Root mean square of the largest channel below which all inputs are next to nothing."""

SPREAD = 1e3
"""Largest over smallest standard deviation of the columns of a table from which they differ in scale."""

ALIKE = 100.0
"""Largest over median channel up to which a normalisation behind the first layer makes up for the scale."""

BYTE = 255.0

IMAGE_AXES = 3
"""Axes from which an input may be pictures: rows, height, width, and perhaps channels. Ages and counts in the columns
of a table lie between 0 and 255 as well."""

FEWEST_ROWS = 32
"""Rows from which a constant column says something about the data rather than about one batch."""

MANY_COLUMNS = 32
"""Columns from which single constant zeros are usual: pixels at the rim, words that did not occur."""


def examine_inputs(inputs: tuple[InputFacts, ...], rows_read: int, *, sound: bool = False) -> Iterator[Notice]:
    """Every notice about inputs.

    Args:
        inputs: The inputs.
        rows_read: Rows that their values come from.
        sound: Whether the gradients of the first batch are finite: if it has NaN, the model is made for them.
    """
    known = [each for each in inputs if each.values.size and each.values.ndim and each.values.dtype.kind in "fiub"]
    multiplied = [facts for facts in known if facts.use in ("numbers", "indices")]
    if len(multiplied) == 1:  # beside others it may be a grid, or positions
        yield from _same_rows(multiplied[0], rows_read)
    for facts in known:
        if not (sound and facts.batch_has_gaps):
            yield from _non_finite(facts)
        beyond = list(out_of_table(facts))
        yield from beyond
        if facts.use == "indices":
            # Beside others that tell samples apart, one index for all is usual: the segments of single sentences.
            yield from () if beyond or len(multiplied) > 1 else _all_alike(facts, rows_read)
        elif facts.use == "numbers":
            yield from _unscaled(facts)
            yield from outlying(facts)
            yield from _constant(facts, rows_read)
            yield from has_wrapped(facts)


def _non_finite(facts: InputFacts) -> Iterator[Notice]:
    values = facts.values
    if values.dtype.kind != "f" or facts.use == "mask":
        return
    bad = ~np.isfinite(values)
    if not bad.any() or _is_mask(values):
        return
    rows = np.flatnonzero(bad.reshape(len(values), -1).any(1))
    said = [f"{int(bad.sum())} of {values.size} values are NaN or Inf, in {rows_in_words(rows, facts.row_numbers)}."]
    if values.ndim == 2:
        columns = np.flatnonzero(bad.any(0))
        said.append(f"Column{'s' if len(columns) > 1 else ''}: {', '.join(map(str, columns[:8]))}.")
    yield notice("DATA501", "inputs", ERROR, facts.name, *said)


def _is_mask(values: Array) -> bool:
    """Whether -Inf is written on purpose: there is nothing but it and zero."""
    return not np.isnan(values).any() and bool(np.isin(values, (0.0, -np.inf)).all())


def _unscaled(facts: InputFacts) -> Iterator[Notice]:
    seen = facts.values if facts.received is None else facts.received
    if not seen.size or seen.dtype.kind not in "fiu":
        return
    channels = channels_of(seen, facts.channel_axis)
    sizes = np.array([channel.rms for channel in channels])
    largest, layer = float(sizes.max()), facts.first_layer or "the first layer"
    if largest > LARGE:
        worst = channels[int(sizes.argmax())]
        told = f"{layer} receives a mean of {worst.mean:.3g} and a standard deviation of {worst.std:.3g}"
        if len(channels) > 1:
            told += f" in channel {int(sizes.argmax())}; the median channel has a root mean square of "
            told += f"{np.median(sizes):.3g}"
        is_image = facts.values.ndim >= IMAGE_AXES or facts.values.dtype == np.uint8
        kind, extra = ("scale", "")
        if is_image and _is_bytes(seen):
            kind, extra = "image_range", "They look like 8-bit values."
        alike = largest < ALIKE * max(float(np.median(sizes)), 1e-300)
        severity = INFO if facts.normalised_after and alike else WARNING  # a scale of all that is divided out again
        yield notice("DATA502", kind, severity, facts.name, *filter(None, (f"{told}.", extra)))
        return
    if 0 < largest < SMALL:
        yield notice(
            "DATA502", "scale", WARNING, facts.name, f"{layer} receives values of a root mean square of {largest:.3g}."
        )
        return
    spread = np.array([channel.std for channel in channels])
    usual = spread[spread > 0]
    if (
        seen.ndim == 2
        and len(seen) >= FEWEST_ROWS
        and seen.dtype.kind == "f"
        and len(usual) > 1
        and usual.max() > SPREAD * usual.min()
        and not _changes_by_degrees(usual)
    ):
        yield notice(
            "DATA502", "feature_scales", WARNING, facts.name,
            f"The standard deviations of its columns reach from {usual.min():.3g} to {usual.max():.3g}.",
        )  # fmt: skip


def _changes_by_degrees(spread: Array) -> bool:
    """Whether many columns differ little from their neighbours: pixels towards a rim, frequencies, times.

    Quantities with units of their own lie side by side in any order.
    """
    steps = np.abs(np.diff(np.log(spread)))
    return len(spread) >= MANY_COLUMNS and float(steps.max()) < 0.5 * np.log(SPREAD)


def _is_bytes(values: Array) -> bool:
    finite = values[np.isfinite(values)]
    return bool(finite.size) and finite.min() >= 0 and 64 < finite.max() <= BYTE and is_whole(values)


def _all_alike(facts: InputFacts, rows_read: int) -> Iterator[Notice]:
    values = facts.values
    if min(rows_read, len(values)) >= FEWEST_ROWS and values.ndim >= 2 and np.all(values == values.flat[0]):
        yield notice(
            "DATA506", "all_constant", ERROR, facts.name,
            f"All values of all {len(values)} rows that were read are {float(values.flat[0]):g}.",
        )  # fmt: skip


def _same_rows(facts: InputFacts, rows_read: int) -> Iterator[Notice]:
    """One sample for all: what was cut out, joined or looked up is always the same."""
    values = facts.values
    if values.ndim < 2 or min(rows_read, len(values)) < FEWEST_ROWS or np.all(values == values.flat[0]):
        return
    if np.all(values == values[:1]):
        yield notice(
            "DATA506", "all_constant", WARNING, facts.name,
            f"All {len(values)} rows that were read are the same.",
        )  # fmt: skip


def _constant(facts: InputFacts, rows_read: int) -> Iterator[Notice]:
    values = facts.values
    if min(rows_read, len(values)) < FEWEST_ROWS or values.ndim < 2:
        return
    alike = list(_all_alike(facts, rows_read))
    if alike or np.all(values == values[:1]):
        yield from alike
        return
    cube = by_channel(values, facts.channel_axis)
    first = cube[:1, :1, :]
    same = np.all(cube == first, axis=(0, 1))
    if not same.any():
        return
    others = cube[..., ~same]
    sparse = float((others == 0).mean()) > 0.2 if others.size else False
    zero = first[0, 0] == 0
    told = np.flatnonzero(same & ~zero) if sparse else np.flatnonzero(same)
    if not len(told):
        return
    # Pixels at the rim: one and the same value in many columns, zero or (standardised as a whole) the smallest of all.
    rim = bool((first[0, 0, told] == first[0, 0, told[0]]).all()) and first[0, 0, told[0]] in (0, np.nanmin(cube))
    usual = rim and cube.shape[-1] >= MANY_COLUMNS
    shown = ", ".join(f"{index} (always {first[0, 0, index]:g})" for index in told[:5])
    yield notice(
        "DATA506", "feature", INFO if usual else WARNING, facts.name,
        f"{len(told)} of {cube.shape[-1]} columns never change in {len(values)} rows: {shown}"
        f"{' …' if len(told) > 5 else ''}; {share((~same).mean())} do.",
    )  # fmt: skip
