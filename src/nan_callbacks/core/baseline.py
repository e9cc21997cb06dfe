"""What a quantity usually looks like, and the value beyond which one step of it is a spike."""

from __future__ import annotations

import math
import sys
from collections import deque
from dataclasses import dataclass
from typing import Any

from nan_callbacks.core.statistics import robust_z
from nan_callbacks.core.window import RollingWindow

MIN_VALUES = 3
"""Accepted values before there is any limit: with tiny batches a first loss can be near zero by chance."""

MAX_PEAK_RATIO = 10.0
"""Multiples of the largest accepted value of the window up to which the robust rule may stretch the limit."""

LARGEST_LOG = math.log(sys.float_info.max)
"""Logarithm beyond which ``math.exp`` raises."""

REFRESH_EVERY = 4
"""Accepted values after which the limit is computed anew once the window is full, unless one of them is a new peak:
the median hardly moves meanwhile, and computing it is the largest part of the core's time."""

MEMORY_BLOCKS = 8
"""Windows whose largest value is remembered: 1024 accepted steps at the default window."""


@dataclass(frozen=True, kw_only=True)
class BaselineSettings:
    """How far from its own history a value must lie to be called a spike. All conditions must hold."""

    window_size: int
    """Accepted values that make up the history."""
    warmup_steps: int
    """Accepted values before the robust rule applies; until then only ``warmup_ratio`` does."""
    z_threshold: float
    """Robust standard deviations above the median (of the logarithm, if all values are positive)."""
    min_ratio: float
    """Multiples of the median: however little the series varies, less than this is no spike."""
    peak_ratio: float
    """Multiples of the largest accepted value in the window: heavy tails are their own yardstick."""
    warmup_ratio: float
    """Multiples of the largest accepted value during warm-up."""
    memory_ratio: float
    """Multiples of the largest accepted value of the last ``MEMORY_BLOCKS`` windows: what the run has survived before,
    the untrained model included, is no spike. A hard batch late in training, or a rare but regular one, stays below."""


class Baseline:
    """History of one quantity and the limit that follows from it.

    Positive series are judged in log space, where training curves are symmetric and falling by orders of magnitude is
    a straight line; series that touch zero or go below it (negative log-likelihoods, policy losses) in linear space.
    Both forms are equivariant: scaling the series scales the limit; in linear space shifting it shifts the limit
    except for the ``min_ratio`` term, which then only makes the limit more lenient.
    """

    def __init__(self, settings: BaselineSettings) -> None:
        self.settings = settings
        self._raw = RollingWindow(settings.window_size)
        self._log = RollingWindow(settings.window_size)
        self._maxima: deque[float] = deque(maxlen=MEMORY_BLOCKS)
        self._in_block = 0
        self._limit: float | None = math.inf

    def __len__(self) -> int:
        return len(self._raw)

    @property
    def is_positive(self) -> bool:
        """Whether every value in the window is positive, so that the series is judged in log space."""
        return len(self._raw) > 0 and len(self._log) == len(self._raw)

    def learn(self, value: float) -> None:
        """Accept a value that was not flagged. Non-finite values are refused by the window."""
        is_peak = len(self._raw) == 0 or value > self._raw.largest
        self._raw.append(value)
        if value > 0:
            self._log.append(math.log(value))
        else:
            self._log.clear()
        if self._in_block == 0:
            self._maxima.append(value)
        self._maxima[-1] = max(self._maxima[-1], value)
        self._in_block = (self._in_block + 1) % self.settings.window_size
        if is_peak or len(self._raw) < self.settings.window_size or self._in_block % REFRESH_EVERY == 0:
            self._limit = None

    def limit(self) -> float:
        """The largest value that is not a spike; infinite while nothing was learned."""
        if self._limit is None:
            self._limit = self._compute_limit()
        return self._limit

    def z(self, value: float) -> float | None:
        """Robust distance of a value from the history (in log space for positive series), None before warm-up."""
        if len(self._raw) < self.settings.warmup_steps or not math.isfinite(value):
            return None
        if self.is_positive and value > 0:
            return robust_z(math.log(value), self._log.center, self._log.sigma)
        return robust_z(value, self._raw.center, self._raw.sigma)

    def reset(self) -> None:
        """Forget the history: a new level was accepted."""
        self._raw.clear()
        self._log.clear()
        self._maxima.clear()
        self._in_block = 0
        self._limit = math.inf

    def state_dict(self) -> dict[str, Any]:
        """Plain state."""
        limit = self.limit() if len(self._raw) == self.settings.window_size else math.inf
        return {
            "raw": self._raw.values,
            "maxima": list(self._maxima),
            "in_block": self._in_block,
            "limit": limit if math.isfinite(limit) else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        self._raw.load_state_dict({"values": state["raw"]})
        self._log.clear()
        for value in self._raw.values:
            if value > 0:
                self._log.append(math.log(value))
            else:
                self._log.clear()
        self._maxima = deque((float(value) for value in state["maxima"]), maxlen=MEMORY_BLOCKS)
        self._in_block = int(state["in_block"])
        self._limit = state["limit"] if len(self._raw) else math.inf

    def _compute_limit(self) -> float:
        s = self.settings
        if len(self._raw) < MIN_VALUES:
            return math.inf
        largest, survived = self._raw.largest, max(self._maxima)
        if self.is_positive:
            if len(self._raw) < s.warmup_steps:
                return s.warmup_ratio * largest
            center, sigma = self._log.center, self._log.sigma
            # A steep trend inside the window inflates sigma, hence the ceiling.
            robust = min(math.exp(min(center + s.z_threshold * sigma, LARGEST_LOG)), MAX_PEAK_RATIO * largest)
            return max(robust, s.min_ratio * math.exp(center), s.peak_ratio * largest, s.memory_ratio * survived)
        center, sigma = self._raw.center, self._raw.sigma
        spread = max(largest - center, sigma)
        if len(self._raw) < s.warmup_steps:
            lenient = s.warmup_ratio * (max(abs(center), abs(largest)) + spread)
        else:
            lenient = max(
                s.z_threshold * sigma,
                s.min_ratio * abs(center),
                s.peak_ratio * spread,
                s.memory_ratio * (survived - center),
            )
        # Zeros alone say nothing about the size of what follows them.
        return center + lenient if lenient > 0 else math.inf
