"""Tensors that are copied at every step, in one operation for each device and dtype."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nan_callbacks.torch.kept_tensor import KeptTensor, those_in_other_memory

OFTEN_REPLACED = 2
"""Replacements from which a tensor is copied on its own: the joint copy must be made anew after each."""


class CopiedTogether:
    """Copies of some tensors, side by side in one piece of memory. One concatenation costs a third of single copies.

    Args:
        kept: The tensors.
    """

    def __init__(self, kept: Sequence[KeptTensor] = ()) -> None:
        self.kept = list(kept)
        self._join()

    def capture(self) -> None:
        """Copy what is there now."""
        moved = those_in_other_memory(self._joined)
        if moved:
            for each in moved:
                each.times_replaced += 1
            self._join()
            return
        for pieces, whole in self._groups:
            torch.cat(pieces, out=whole)
        for each in self._single:
            each.capture()

    def _join(self) -> None:
        groups: dict[tuple[torch.device, torch.dtype], list[KeptTensor]] = {}
        self._joined: list[KeptTensor] = []
        self._single: list[KeptTensor] = []
        for each in self.kept:
            each.follow()
            alias = each.alias
            joins = alias is not None and each.is_plain and alias.is_contiguous() and each.pointer != 0
            if alias is None or not joins or each.times_replaced >= OFTEN_REPLACED:
                each.capture()
                self._single.append(each)
            else:
                self._joined.append(each)
                groups.setdefault((alias.device, alias.dtype), []).append(each)
        self._groups = [_side_by_side(group) for group in groups.values()]


def _side_by_side(group: list[KeptTensor]) -> tuple[list[Tensor], Tensor]:
    aliases = [each.alias for each in group if each.alias is not None]
    pieces = [alias.view(-1) for alias in aliases]
    whole = torch.cat(pieces)
    for each, alias, copy in zip(group, aliases, whole.split([len(piece) for piece in pieces]), strict=True):
        each.copy = copy.view(alias.shape)
    return pieces, whole
