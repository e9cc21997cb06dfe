"""The signal that goes into and comes out of a layer: what differs from sample to sample."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nan_callbacks.torch.call_kinds import operand_of
from nan_callbacks.torch.recorder import Call, tensors_in
from nan_callbacks.torch.recurrent_calls import CELLS, FUSED

ATTENTION = "multi_head_attention_forward"

Operand = tuple[Tensor, int | None]
"""A tensor, and the axis along which samples lie; None: every vector along the last axis is a sample of its own."""


def signal_in(call: Call) -> tuple[float | None, float]:
    """Standard deviation of the strongest signal that a layer receives, and the root mean square of what carries it.

    Args:
        call: Of a function that multiplies by weights.
    """
    found = [(spread(tensor, axis), tensor) for tensor, axis in _operands(call) if tensor.is_floating_point()]
    known = [(std, tensor) for std, tensor in found if std is not None]
    if not known:
        return None, 0.0
    std, tensor = max(known, key=lambda pair: pair[0])
    return std, root_mean_square(tensor)


def signal_out(call: Call, result: Tensor) -> float | None:
    """Standard deviation of the signal that a layer returns."""
    return spread(result, _axis(call, result))


def _operands(call: Call) -> Iterator[Operand]:
    """What weights are applied to: of a recurrent layer its state as well, of attention all that it may attend to."""
    if call.name in FUSED | CELLS:
        is_packed = len(call.args) > 2 and isinstance(call.args[1], Tensor) and not call.args[1].is_floating_point()
        states = tensors_in(call.args[2 if is_packed else 1 : 3 if is_packed else 2])
        yield from ((state, 1 if call.name in FUSED else 0) for state in states)
    given: Any = call.args[:3] if call.name == ATTENTION else operand_of(call)
    yield from ((tensor, _axis(call, tensor)) for tensor in tensors_in(given))


def _axis(call: Call, tensor: Tensor) -> int | None:
    if tensor.dim() < 3 or call.name.startswith("conv"):
        return 0
    if call.name in FUSED:
        return 0 if call.argument(8, "batch_first", False) is True else 1
    return 1 if call.name == ATTENTION else None


@torch.no_grad()
def spread(tensor: Tensor, axis: int | None = 0) -> float | None:
    """Standard deviation over the samples around each unit's mean, scaled so that it cannot overflow.

    Args:
        tensor: What a layer received or returned.
        axis: Along which samples lie; None: all but the last.
    """
    values = tensor.detach().float()
    if not values.numel() or values.dim() < 1:
        return None
    flat = values.reshape(-1, values.shape[-1]) if axis is None else values.movedim(axis, 0)
    flat = flat.reshape(len(flat), -1)
    if len(flat) > 1:
        flat = flat - flat.mean(0)
    return _finite(flat)


@torch.no_grad()
def root_mean_square(tensor: Tensor) -> float:
    """Of all values; infinite if one is not finite."""
    size = _finite(tensor.detach().float())
    return math.inf if size is None else size


def _finite(values: Tensor) -> float | None:
    largest = float(values.abs().max())
    if not math.isfinite(largest) or not largest:
        return None if largest else 0.0
    return float((values / largest).square().mean().sqrt()) * largest
