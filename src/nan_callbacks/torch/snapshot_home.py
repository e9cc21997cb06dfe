"""Where snapshots are kept: beside the state, or in the host's memory if they would crowd an accelerator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from nan_callbacks.core.config import SnapshotMemory
from nan_callbacks.core.room import belong_on_host

HOST = torch.device("cpu")
ON_HOST = ("cpu", "meta", "mps")
"""Kinds of device whose memory is the host's, or none at all."""
PLAIN = (Tensor, nn.Parameter)
"""Classes whose values another device can hold: a shard of a distributed tensor stays where it is."""


class SnapshotHome:
    """Decides where the copies of a training state are kept. What has moved to the host stays there.

    Args:
        choice: ``device`` beside the state, ``host`` in the host's memory, ``auto`` on the device as long as that costs
            little of its memory.
    """

    def __init__(self, choice: SnapshotMemory = "auto") -> None:
        self._choice = choice
        self.on_host = choice == "host"
        """Whether copies belong in the host's memory."""

    def look(self, tensors: Iterable[Tensor]) -> None:
        """Move to the host if copies of these tensors would crowd their device."""
        if self.on_host:
            return
        sizes: Counter[torch.device] = Counter()
        for tensor in tensors:
            if _can_move(tensor):
                sizes[tensor.device] += tensor.numel() * tensor.element_size()
        self.on_host = belong_on_host(self._choice, sizes, memory_of)

    def device_of(self, tensor: Tensor) -> torch.device:
        """Where a copy of a tensor belongs."""
        return HOST if self.on_host and _can_move(tensor) else tensor.device

    def copy_of(self, tensor: Tensor) -> Tensor:
        """A copy of a tensor where it belongs.

        Raises:
            torch.OutOfMemoryError: If there is no memory for it there.
        """
        tensor = tensor.detach()
        if self.device_of(tensor) == tensor.device:
            try:
                return tensor.clone()
            except torch.OutOfMemoryError:
                if self._choice != "auto" or not _can_move(tensor):
                    raise
                self.on_host = True
        return _moved(tensor)

    def settled(self, copies: Sequence[Tensor]) -> list[Tensor]:
        """Copies that were made before, where they belong now."""
        return [each if each.device == self.device_of(each) else self.copy_of(each) for each in copies]


def memory_of(device: torch.device) -> int | None:
    """Memory of an accelerator in bytes; None if it does not tell."""
    try:
        return int(torch.get_device_module(device).get_device_properties(device).total_memory)
    except (AttributeError, RuntimeError, TypeError, ValueError, AssertionError):
        return None


def _can_move(tensor: Tensor) -> bool:
    return tensor.device.type not in ON_HOST and type(tensor) in PLAIN


def _moved(tensor: Tensor) -> Tensor:
    try:  # in memory that is locked, with which an accelerator exchanges data several times as fast
        kept = torch.empty_like(tensor, device=HOST, pin_memory=tensor.is_cuda)
    except RuntimeError:
        kept = torch.empty_like(tensor, device=HOST)
    return kept.copy_(tensor)
