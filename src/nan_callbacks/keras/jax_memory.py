"""How much memory a state takes on the accelerators of JAX, and how much they have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any


def bytes_on_accelerators(arrays: Iterable[Any]) -> Counter[Any]:
    """Size of some arrays by device; nothing of those on the host, or of parts that other processes hold."""
    sizes: Counter[Any] = Counter()
    for array in arrays:
        shards = array.addressable_shards
        if array.is_fully_addressable and all(shard.device.platform != "cpu" for shard in shards):
            sizes.update({shard.device: shard.data.nbytes for shard in shards})
    return sizes


def memory_of(device: Any) -> int | None:
    """Memory of an accelerator in bytes; None if it does not tell."""
    return (device.memory_stats() or {}).get("bytes_limit")
