"""Numpy arrays that a step may write into, as they are now: trials must leave them as they found them."""

from __future__ import annotations

from typing import Any

import numpy as np

MOST_BYTES = 1 << 24
"""Of an array that is copied: counters, histories and replay buffers are smaller, larger ones are data."""


class KeptArrays:
    """Copies of arrays, put back where these have changed."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def keep(self, value: Any) -> None:
        """Remember a value if it is an array of numbers that may be written into; once is enough."""
        if not isinstance(value, np.ndarray) or id(value) in self._kept:
            return
        if value.dtype != object and value.flags.writeable and value.nbytes <= MOST_BYTES:
            self._kept[id(value)] = (value, value.copy())

    def restore(self) -> None:
        """Put everything back."""
        for array, before in self._kept.values():
            if array.tobytes() != before.tobytes():
                array[...] = before
