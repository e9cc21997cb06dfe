"""Whole-number arithmetic of a step that went around the end of its type, as ``picture - 128`` does in bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nan_callbacks.torch.recorder import Call

NARROW = (torch.uint8, torch.int8, torch.int16)
"""Types of pictures, sound and other measurements; in wider ones, hashes and random streams wrap on purpose."""

ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {"add": torch.add, "sub": torch.sub, "mul": torch.mul}
"""A sum over an axis is made in 64 bits by torch itself."""


MOST_VALUES = 1 << 18
"""Elements of which the arithmetic is made again, evenly spaced."""


def wraps(call: Call) -> bool:
    """Whether the result is not what the same arithmetic gives in 32 bits, which hold every product of 16-bit numbers.

    Args:
        call: A recorded call that has just returned.
    """
    made, combine = call.result, ARITHMETIC.get(call.name)
    if combine is None or made is None or len(call.args) != 2 or call.kwargs or not _is_plain(made):
        return False
    if made.dtype not in NARROW or any(value is made for value in call.args):
        return False  # in place: the operand is gone
    tensors = [value for value in call.args if isinstance(value, Tensor)]
    if any(not _is_plain(each) or (each.dim() and each.shape != made.shape) for each in tensors):
        return False
    step = max(1, made.numel() // MOST_VALUES)
    one, other = (_wide(value, step) for value in call.args)
    if call.is_reversed:
        one, other = other, one
    return bool((torch.as_tensor(combine(one, other)) != made.flatten()[::step].int()).any())


def _is_plain(tensor: Tensor) -> bool:
    """Neither sparse nor nested, nor inside of a transformation such as ``vmap``."""
    return (
        type(tensor) is Tensor
        and tensor.layout is torch.strided
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


def _wide(value: Any, step: int) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.flatten()[::step].int() if value.dim() else value.int()
