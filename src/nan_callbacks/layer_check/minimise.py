"""The smallest input with which something still happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from nan_callbacks.layer_check.cases import rows_of
from nan_callbacks.layer_check.spec import Arrays, Signature

MOST_TRIES = 80
"""Calls of the layer that one failure may cost."""


def minimised(
    arrays: Arrays, signature: Signature, happens: Callable[[Arrays], bool], tries: int = MOST_TRIES
) -> tuple[Arrays, Arrays]:
    """First leave out rows, then put zeros and ones for numbers, in ever smaller blocks.

    Args:
        arrays: With which it happens.
        signature: What the layer takes.
        happens: Whether it still happens.
        tries: How often that may be asked.

    Returns:
        With fewer rows only; and with simpler numbers as well.
    """
    budget = _Budget(happens, tries)
    fewer = _fewest_rows(arrays, signature.rows, budget)
    simple = dict(fewer)
    for spec in signature.specs:
        if spec.kind in ("numbers", "positive", "mask"):
            values = (1.0,) if spec.kind == "positive" else (0.0, 1.0)
            simple = _simplest(simple, spec.name, values, budget)
    return fewer, simple


class _Budget:
    def __init__(self, happens: Callable[[Arrays], bool], tries: int) -> None:
        self._happens, self.left = happens, tries

    def __call__(self, arrays: Arrays) -> bool:
        if self.left <= 0:
            return False
        self.left -= 1
        return self._happens(arrays)


def _fewest_rows(arrays: Arrays, size: int, happens: _Budget) -> Arrays:
    for count in (1, 2):
        for first in range(size - count + 1):
            if count < size and happens(fewer := rows_of(arrays, size, list(range(first, first + count)))):
                return fewer
    return arrays


def _simplest(arrays: Arrays, name: str, values: tuple[float, ...], happens: _Budget) -> Arrays:
    array = arrays[name]
    done = np.isin(array, values).reshape(-1)
    for start, stop in _blocks(array.size):
        if happens.left <= 0:
            break
        for value in values:
            if done[start:stop].all():
                break
            changed = array.copy()
            changed.reshape(-1)[start:stop] = value
            if happens(candidate := {**arrays, name: changed}):
                arrays, array = candidate, changed
                done[start:stop] = True
    return arrays


def _blocks(size: int) -> Iterator[tuple[int, int]]:
    """The whole, its halves, their halves, down to single elements."""
    length = size
    while length >= 1:
        for start in range(0, size, length):
            yield start, min(start + length, size)
        if length == 1:
            return
        length = (length + 1) // 2
