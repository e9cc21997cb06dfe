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


def wraps(call: Call) -> bool:
    """Whether the result is not what the same arithmetic gives in 64 bits.

    Args:
        call: A recorded call that has just returned.
    """
    made, combine = call.result, ARITHMETIC.get(call.name)
    if combine is None or made is None or made.dtype not in NARROW or len(call.args) != 2 or call.kwargs:
        return False
    if any(value is made for value in call.args):
        return False  # in place: the operand is gone
    one, other = (_wide(value) for value in call.args)
    if call.is_reversed:
        one, other = other, one
    return not torch.equal(torch.as_tensor(combine(one, other)), made.long())


def _wide(value: Any) -> Any:
    return value.long() if isinstance(value, Tensor) else torch.as_tensor(value)
