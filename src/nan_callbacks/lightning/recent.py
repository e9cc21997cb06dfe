"""The batches of recent accepted steps, kept by reference as long as that costs no memory worth mentioning."""

from __future__ import annotations

import copy
from collections import deque
from typing import Any

from nan_callbacks.torch.lab_batch import is_shared, nbytes_of
from nan_callbacks.torch.lab_bench import Fed, Window

MOST_BATCHES = 8
"""Enough for a usual range and for short trials."""

MOST_ON_DEVICE = 2
"""On an accelerator, where memory is dear, and of batches in memory shared with loader workers, which is often small
(64 MiB in a container by default)."""

MAX_BYTES = 256 * 2**20
"""All kept batches together in the host's memory."""

MAX_BYTES_ON_DEVICE = 64 * 2**20
"""All kept batches together on an accelerator, and in shared memory."""

LOOK_EVERY = 50
"""Windows between looks at the size of a batch: looking takes longer than keeping."""


class RecentBatches:
    """Windows of accepted steps, oldest first.

    Args:
        on_device: Whether batches live on an accelerator.
        most: Batches kept at most.
    """

    def __init__(self, *, on_device: bool, most: int = MOST_BATCHES) -> None:
        self._on_device, self._most = on_device, most
        self._kept: deque[Window] = deque(maxlen=most)
        self._count = 0

    @property
    def windows(self) -> tuple[Window, ...]:
        """What is kept, oldest first."""
        return tuple(self._kept)

    def add(self, window: list[Fed]) -> None:
        """Keep the batches of an accepted step."""
        if self._count % LOOK_EVERY == 0:
            room = self._room(window)
            if room != self._kept.maxlen:
                self._kept = deque(self._kept, maxlen=room)
        self._count += 1
        self._kept.append(tuple(window))

    def clear(self) -> None:
        """Let go of all batches."""
        self._kept.clear()

    def _room(self, window: list[Fed]) -> int:
        tight = self._on_device or any(is_shared(fed.batch) for fed in window)
        most = min(self._most, MOST_ON_DEVICE) if tight else self._most
        limit = MAX_BYTES_ON_DEVICE if tight else MAX_BYTES
        size = sum(nbytes_of(fed.batch) for fed in window)
        return min(max(most // max(len(window), 1), 1), limit // size if size else most)


def as_received(batch: Any) -> Any:
    """The batch in a container of its own: training steps like to ``pop`` from theirs."""
    return copy.copy(batch) if type(batch) in (dict, list) else batch
