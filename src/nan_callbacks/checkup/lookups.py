"""What tables are asked for: the values that each of them receives, over as many rows as can be told."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nan_callbacks.checkup.advice import ERROR, notice, rows_in_words
from nan_callbacks.checkup.columns import is_whole
from nan_callbacks.checkup.facts import Array, InputFacts
from nan_callbacks.checkup.notice import Notice

MOST_COMPARED = 1 << 22
"""Numbers that are compared at most to find a part of an input again: some milliseconds."""


def out_of_table(facts: InputFacts) -> Iterator[Notice]:
    """A notice about every table that is asked for rows it does not have.

    Args:
        facts: The input.
    """
    told: set[tuple[str, int]] = set()
    for lookup in facts.lookups:
        values, rows = lookup.values, lookup.rows
        if not values.size or not values.ndim or values.dtype.kind not in "fiub" or not is_whole(values):
            continue
        finite = np.isfinite(values)
        beyond = ((values < 0) | (values >= rows)) & finite
        if (lookup.table, rows) in told or not beyond.any():
            continue
        told.add((lookup.table, rows))
        known = values[finite]
        where = rows_in_words(np.flatnonzero(beyond.reshape(len(values), -1).any(1)), facts.row_numbers)
        if len(values) != len(facts.values):
            where = "the first batch"  # its rows cannot be told from those of the data
        yield notice(
            "DATA511", "index", ERROR, facts.name,
            f"{int(beyond.sum())} indices lie outside of 0 to {rows - 1} (they reach from {int(known.min())} to "
            f"{int(known.max())}), in {where}; {lookup.table or 'the table'} has {rows} rows.",
        )  # fmt: skip


def over_all_rows(received: Array, batch: Array, rows: Array) -> Array | None:
    """What a table would receive of all rows that were read, if it received a part of a batch as it was.

    Args:
        received: By the table.
        batch: One input of the batch.
        rows: The same input in all rows that were read.

    Returns:
        All rows, or their part that lies where the received part lies in the batch; None if that cannot be told.
    """
    flat = received.reshape(-1)
    if flat.size == batch.size:
        same = np.array_equal(np.sort(flat), np.sort(batch.reshape(-1)))
        return rows if same else None
    for axis in sorted({1, batch.ndim - 1} & set(range(1, batch.ndim)), reverse=True):
        span = _span(flat, np.moveaxis(batch, axis, 0), axis)
        if span is not None:
            return np.take(rows, range(*span), axis)
    return None


def _span(flat: Array, columns: Array, axis: int) -> tuple[int, int] | None:
    """The only neighbouring columns that hold these numbers."""
    each = columns[0].size if len(columns) else 0
    if not each or flat.size % each or columns.size * len(columns) > MOST_COMPARED:
        return None
    width = flat.size // each
    found = [
        at
        for at in range(len(columns) - width + 1)
        if np.array_equal(np.moveaxis(columns[at : at + width], 0, axis).reshape(-1), flat)
    ]
    return (found[0], found[0] + width) if len(found) == 1 else None
