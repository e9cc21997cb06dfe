"""A rolling window of accepted values with its median and MAD."""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Iterable

from nan_callbacks.core.statistics import median_of_sorted, robust_sigma_of_sorted


class RollingWindow:
    """The last ``size`` accepted values, kept in order of arrival and in order of size.

    A non-finite value is refused with an error: a NaN in a window would silence every comparison with it.

    Args:
        size: Number of values kept, at least 1.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"`size` must be >= 1 value, received {size}.")
        self.size = size
        self._arrived: deque[float] = deque()
        self._sorted: list[float] = []
        self._sigma: float | None = None

    def __len__(self) -> int:
        return len(self._sorted)

    def append(self, value: float) -> None:
        """Accept a value; the oldest one leaves when the window is full.

        Raises:
            ValueError: If the value is not finite.
        """
        if not math.isfinite(value):
            raise ValueError(f"a window accepts finite values only, received {value}.")
        if len(self._arrived) == self.size:
            oldest = self._arrived.popleft()
            del self._sorted[bisect.bisect_left(self._sorted, oldest)]
        self._arrived.append(value)
        bisect.insort(self._sorted, value)
        self._sigma = None

    @property
    def values(self) -> list[float]:
        """The accepted values, oldest first."""
        return list(self._arrived)

    @property
    def smallest(self) -> float:
        """Smallest accepted value."""
        return self._sorted[0]

    @property
    def largest(self) -> float:
        """Largest accepted value."""
        return self._sorted[-1]

    @property
    def center(self) -> float:
        """Median of the window."""
        return median_of_sorted(self._sorted)

    @property
    def sigma(self) -> float:
        """Robust standard deviation of the window; computed once per change."""
        if self._sigma is None:
            self._sigma = robust_sigma_of_sorted(self._sorted)
        return self._sigma

    def clear(self) -> None:
        """Forget everything."""
        self._arrived.clear()
        self._sorted.clear()
        self._sigma = None

    def state_dict(self) -> dict[str, list[float]]:
        """Plain state: the values, oldest first."""
        return {"values": self.values}

    def load_state_dict(self, state: dict[str, Iterable[float]]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        self.clear()
        for value in state["values"]:
            self.append(float(value))
