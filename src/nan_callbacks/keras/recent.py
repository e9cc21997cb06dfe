"""The batches of recent accepted steps, kept by reference as long as that costs no memory worth mentioning."""

from __future__ import annotations

from collections import deque
from typing import Any

import keras

from nan_callbacks.keras.replay_batch import named_parts

MOST_BATCHES = 8
"""Enough for a usual range and for short trials."""

MOST_ON_DEVICE = 2
"""On an accelerator, where memory is dear."""

MAX_BYTES = 256 * 2**20
"""All kept batches together in the host's memory."""

MAX_BYTES_ON_DEVICE = 64 * 2**20
"""All kept batches together on an accelerator."""

LOOK_EVERY = 50
"""Batches between looks at the size of one: looking takes longer than keeping."""


class RecentBatches:
    """Batches of accepted steps, oldest first."""

    def __init__(self) -> None:
        self._kept: deque[Any] = deque(maxlen=MOST_BATCHES)
        self._count = 0

    @property
    def batches(self) -> tuple[Any, ...]:
        """What is kept, oldest first."""
        return tuple(self._kept)

    def add(self, batch: Any) -> None:
        """Keep the batch of an accepted step."""
        if self._count % LOOK_EVERY == 0:
            room = room_for(batch)
            if room != self._kept.maxlen:
                self._kept = deque(self._kept, maxlen=room)
        self._count += 1
        self._kept.append(batch)


def room_for(batch: Any) -> int:
    """How many batches of this kind are kept."""
    parts = [part for _, part in named_parts(batch)]
    most, limit = (MOST_ON_DEVICE, MAX_BYTES_ON_DEVICE) if any(map(_on_device, parts)) else (MOST_BATCHES, MAX_BYTES)
    size = sum(map(_nbytes, parts))
    return min(most, limit // size if size else most)


def as_fed(batch: Any) -> Any:
    """What a train step is handed, from what a train function is handed: on torch a list of one such batch."""
    if keras.backend.backend() == "torch" and isinstance(batch, list | tuple) and len(batch) == 1:
        return batch[0]
    return batch


def own_containers(batch: Any) -> Any:
    """The batch in containers of its own: train steps like to ``pop`` from theirs."""
    if isinstance(batch, tuple) and not any(isinstance(member, dict | list) for member in batch):
        return batch
    return keras.tree.map_structure(lambda part: part, batch)


def _nbytes(part: Any) -> int:
    size = getattr(part, "nbytes", None)
    if isinstance(size, int):
        return size
    shape, dtype = getattr(part, "shape", None), getattr(part, "dtype", None)
    if shape is None or None in tuple(shape):
        return 0
    count = 1
    for length in shape:
        count *= int(length)
    return count * int(getattr(dtype, "size", 8) or 8)


def _on_device(part: Any) -> bool:
    device = getattr(part, "device", "")
    kind = getattr(device, "type", None) or getattr(device, "platform", None) or str(device)
    return any(word in str(kind).lower() for word in ("gpu", "cuda", "tpu", "mps", "xpu"))
