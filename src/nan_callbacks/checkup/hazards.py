"""Operations of the traced step that are one unlucky batch away from NaN or Inf."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from nan_callbacks.checkup.advice import ERROR, INFO, WARNING, notice
from nan_callbacks.checkup.facts import Hazard
from nan_callbacks.checkup.notice import Notice
from nan_callbacks.core.tensor_summary import TensorSummary

NEAR_ZERO = 1e-4
"""Smallest magnitude of a divisor, or operand of a logarithm or root, from which on nothing seems to keep it away from
zero. An operand that was clamped, or to which an epsilon was added, has a floor below it."""

BITS = 4.0
"""Binary orders of magnitude to the largest number of float16 that are left at least."""

LIMITS = {"float16": 65504.0, "bfloat16": 3.4e38, "float32": 3.4028235e38, "float64": 1.797e308}

EXPONENT_MARGIN = 0.7
"""Share of the largest exponent that a dtype can take, from which on `exp` is near its end."""

FIXES = {
    "log_of_probability": "Use the fused function: `torch.log_softmax`, `torch.nn.functional.logsigmoid`; "
    "`keras.ops.log_softmax`, `keras.ops.log_sigmoid`.",
    "log": "Keep the operand away from zero: `log(x.clamp_min(1e-6))` in torch, "
    "`keras.ops.log(keras.ops.maximum(x, 1e-6))` in Keras; `log1p` for counts.",
    "divide": "Keep the divisor away from zero: `x / norm.clamp_min(1e-6)` in torch, "
    "`x / keras.ops.maximum(norm, 1e-6)` in Keras.",
    "sqrt": "The derivative of a root is infinite at zero: `torch.sqrt(x + 1e-6)`, `keras.ops.sqrt(x + 1e-6)`.",
    "exp": "Bound the operand (`torch.clamp(x, max=...)`, `keras.ops.minimum`), or stay with logarithms (`logsumexp`).",
}
CODES = {
    "log": "NAN111", "divide": "NAN112", "reciprocal": "NAN112", "rsqrt": "NAN113", "sqrt": "NAN113", "norm": "NAN113",
    "power": "NAN113", "exp": "NAN110",
}  # fmt: skip
"""Of the failure that an operation is near to."""


def examine_hazards(hazards: tuple[Hazard, ...]) -> Iterator[Notice]:
    """One notice per operation and place: information, a warning where it is bound to come, an error if it has come."""
    told: set[tuple[str, str, str, int]] = set()
    for hazard in hazards:
        place = (hazard.kind, hazard.operation, hazard.module, hazard.source.line if hazard.source is not None else 0)
        if place in told:
            continue
        told.add(place)
        yield _notice(hazard)


def _notice(hazard: Hazard) -> Notice:
    operand = hazard.operand
    seen = f"Its operand: {operand.describe()}." if operand is not None else ""
    where = hazard.module or "outside of all modules"
    if hazard.kind == "half_precision":
        return notice(
            "OPT604", hazard.kind, INFO, where,
            f"Values of {hazard.operation} come within {hazard.headroom_bits or 0:.1f} bits of the largest number.",
            seen,
            source=hazard.source,
        )  # fmt: skip
    if hazard.kind == "wrapped":
        dtype = operand.dtype if operand is not None else "its type"
        return notice(
            "DATA507", "wrapped_arithmetic", ERROR, where,
            f"{hazard.operation} in {dtype} went around the end of that type: too large numbers begin again at its "
            "lower end, and what falls below it at the upper one.", seen,
            remedy="Convert first: `x.float()` before any arithmetic; `keras.ops.cast(x, 'float32')`.",
            source=hazard.source,
        )  # fmt: skip
    fixes = {"reciprocal": "divide", "rsqrt": "sqrt", "norm": "sqrt", "power": "sqrt"}
    fix = FIXES.get(hazard.kind) or FIXES[fixes.get(hazard.operation, hazard.operation)]
    if hazard.kind == "unguarded_gradient":
        return notice(
            CODES[hazard.operation], hazard.kind, WARNING, where,
            f"`where` chooses another value where {hazard.operation} has none, but its derivative there is still "
            "multiplied by zero, and zero times infinity is NaN.", seen,
            remedy="Guard the operand as well: `log(where(x > 0, x, 1))` inside of the outer `where`.",
            source=hazard.source,
        )  # fmt: skip
    made_by = f" of {hazard.before}" if hazard.before else ""
    room = f" {hazard.headroom_bits:.0f} bits are left." if hazard.headroom_bits is not None else ""
    return notice(
        CODES[hazard.operation], hazard.kind, WARNING if hazard.kind == "log_of_probability" else INFO, where,
        f"{hazard.operation}{made_by}: one unlucky batch away from a NaN or an Inf.{room}", seen,
        remedy=fix, source=hazard.source,
    )  # fmt: skip


def judge_operand(
    operation: str, operand: TensorSummary, before: str = "", *, counts: bool = False
) -> tuple[str, float | None] | None:
    """Whether an operation is near the edge of its domain.

    Args:
        operation: Neutral name.
        operand: What it took: of a division the divisor.
        before: Neutral name of the operation that made the operand.
        counts: Whether the operand holds whole numbers of an integer type, or sums of ones.

    Returns:
        Kind of the hazard, and the bits that are left if that can be told; None if it is far from its edge.
    """
    low, high = operand.minimum, operand.maximum
    if low is None or high is None:
        return None
    if operation == "log" and before in ("softmax", "sigmoid"):
        return "log_of_probability", None
    if operation in ("log", "sqrt", "rsqrt", "norm"):
        # A norm is asked for the magnitude of what it returns: its derivative is x / |x|.
        return ("near_zero", None) if 0 <= low < NEAR_ZERO and not _has_floor(operand, before) else None
    if operation in ("divide", "reciprocal"):
        smallest = 0.0 if operand.zeros else operand.smallest_magnitude
        if smallest is None or _has_floor(operand, before) or (counts and smallest >= 1.0) or low == high == 1.0:
            return None
        return ("near_zero", None) if before in UNBOUNDED or smallest < NEAR_ZERO else None
    if operation == "exp":
        most = math.log(LIMITS.get(operand.dtype, LIMITS["float32"]))
        return ("near_overflow", (most - high) / math.log(2)) if high > EXPONENT_MARGIN * most else None
    return None


def is_outside(operation: str, operand: TensorSummary) -> bool:
    """Whether some elements already lie where the operation or its derivative is no number."""
    low = operand.minimum
    if low is None:
        return False
    if operation in ("log", "sqrt", "rsqrt"):
        return low <= 0
    return operation in ("divide", "reciprocal") and operand.zeros > 0


UNBOUNDED = frozenset({"norm", "sum", "std", "var", "matmul", "subtract", "convolution"})
"""Operations whose results reach zero for some batch: a divisor made by one of them has nothing that keeps it away."""

POSITIVE = frozenset({"exp", "softmax", "softplus", "sigmoid"})
"""Operations whose sums stay away from zero."""

FLOORS = frozenset(
    {"clamp", "clamp_min", "clip", "maximum", "max", "add", "softplus", "exp", "where", "select", "select_n"}
)
"""Operations with which people keep an operand away from zero: ``x.clamp_min(eps)``, ``x + eps``."""


def _has_floor(operand: TensorSummary, before: str) -> bool:
    return before in FLOORS and not operand.zeros


def headroom_bits(largest: float, dtype: str) -> float:
    """Binary orders of magnitude between a value and the largest number of its dtype."""
    return float(np.log2(LIMITS[dtype] / max(largest, 1e-300)))
