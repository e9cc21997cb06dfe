"""Comparison of tensors that takes a NaN for equal to itself, and -0.0 for other than 0.0."""

from __future__ import annotations

import torch
from torch import Tensor

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers of the same width, by bytes."""


def same_bits(tensor: Tensor, kept: Tensor) -> bool:
    """Whether two dense tensors on one device hold the same, bit by bit."""
    if tensor.shape != kept.shape or tensor.dtype != kept.dtype:
        return False
    return torch.equal(_bits(tensor), _bits(kept))


def _bits(tensor: Tensor) -> Tensor:
    tensor = torch.view_as_real(tensor.detach().resolve_conj()) if tensor.is_complex() else tensor.detach()
    return tensor.contiguous().view(BITS[tensor.element_size()]) if tensor.is_floating_point() else tensor
