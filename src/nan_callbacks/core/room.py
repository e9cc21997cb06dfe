"""Whether the copies of a training state have room beside it in the memory of an accelerator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from nan_callbacks.core.config import SnapshotMemory
from nan_callbacks.core.ledger import SLOTS

Device = TypeVar("Device")

SHARE = 0.05
"""Share of an accelerator's memory that all snapshots together may take there: people choose their batches so that the
rest is nearly full, and a guard that makes a run fail for want of memory is worse than none. With Adam in float32 that
is a model of 50 million parameters on 24 GB, and of 170 million on 80 GB."""

ASSUMED = 8 * 2**30
"""Bytes of an accelerator that does not tell its size."""


def belong_on_host(
    choice: SnapshotMemory, sizes: Mapping[Device, int], memory_of: Callable[[Device], int | None]
) -> bool:
    """Whether snapshots are to be kept in the host's memory.

    Args:
        choice: What the user wants.
        sizes: Bytes of one snapshot on each accelerator.
        memory_of: Memory of an accelerator in bytes; None if it does not tell.
    """
    if choice != "auto":
        return choice == "host"
    return any(SLOTS * size > SHARE * (memory_of(device) or ASSUMED) for device, size in sizes.items())
