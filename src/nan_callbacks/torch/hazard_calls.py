"""What is measured of each recorded call while its tensors are as they are."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from nan_callbacks.checkup.hazards import BITS, LIMITS
from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.operations import neutral_name
from nan_callbacks.torch.call_kinds import TABLES, as_array, operand_of, weight_of
from nan_callbacks.torch.recorder import Call
from nan_callbacks.torch.signals import signal_in, signal_out
from nan_callbacks.torch.wrapping import wraps

WATCHED = frozenset({"log", "divide", "reciprocal", "sqrt", "rsqrt", "norm", "exp"})
"""Operations that a hazard scan looks at."""

LEAST_HALF = LIMITS["float16"] / 2.0**BITS
"""Magnitude from which a value of float16 is told."""

MOST_VALUES = 1 << 18
"""Values of one operand that are looked at, evenly spaced."""


@torch.no_grad()
def measure(call: Call) -> None:
    """Take down what the rules need of a call: what a layer received and returned, the operand of a hazard."""
    made = call.result
    if made is not None and made.dtype is torch.float16 and made.numel():
        largest = _largest_that_was_computed(made)
        if LEAST_HALF < largest < float("inf"):
            call.facts["half"] = largest
    with suppress(RuntimeError, TypeError, NotImplementedError):  # tensors of kinds that know no arithmetic of ours
        if wraps(call):
            call.facts["wrapped"] = TensorSummary.of(as_array(call.tensors[0]), name="operand")
    if weight_of(call) is not None:
        operand, result = operand_of(call), call.result
        if operand is not None and operand.is_floating_point():
            call.facts["received"] = as_array(operand)
            call.facts["in_std"], call.facts["in_level"] = signal_in(call)
        elif operand is not None and call.name in TABLES:
            call.facts["received"] = as_array(operand).copy()
        if result is not None and result.is_floating_point():
            call.facts["out_std"] = signal_out(call, result)
        return
    if neutral_name(call.name) in WATCHED:
        seen = measured_operand(call)
        if seen is not None and seen.is_floating_point() and seen.numel():
            flat = seen.detach().flatten()
            flat = flat[:: max(1, flat.numel() // MOST_VALUES)]
            call.facts["operand"] = TensorSummary.of(as_array(flat), dtype=str(seen.dtype).removeprefix("torch."))


def _largest_that_was_computed(made: Tensor) -> float:
    """The very largest numbers of a format are written on purpose: a mask, or the bound of a clamp."""
    sizes = made.abs()
    return float(torch.where(sizes == LIMITS["float16"], 0.0, sizes).max())


def measured_operand(call: Call) -> Tensor | None:
    """What must stay inside of a domain: the divisor of a division, what a norm returns, else the operand."""
    operation = neutral_name(call.name)
    if operation == "norm":
        return call.result
    position = 1 if operation == "divide" and not call.is_reversed else 0
    value: Any = call.args[position] if len(call.args) > position else None
    return value if isinstance(value, Tensor) else None
