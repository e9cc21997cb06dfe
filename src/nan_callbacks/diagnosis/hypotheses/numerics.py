"""Suspicions against the operation itself: a formula at the edge of its domain or of the number format."""

from __future__ import annotations

import math
import re

from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.diagnosis import describe_rows
from nan_callbacks.diagnosis.evidence import Evidence
from nan_callbacks.diagnosis.experiments import Experiment, another_batch, growth, instead, without_rows
from nan_callbacks.diagnosis.goal import Goal, Kind
from nan_callbacks.diagnosis.hypotheses.hypothesis import Hypothesis, batch_rows
from nan_callbacks.diagnosis.origin import Origin, OriginKind, Phase

SMALLEST_NORMAL = {"float16": 6.1e-5, "bfloat16": 1.2e-38, "float32": 1.2e-38, "float64": 2.3e-308}
"""Smallest normal numbers of the formats; the reciprocal of a smaller one may overflow."""

LARGEST_ROOT = {"float16": 255.9, "bfloat16": 1.8e19, "float32": 1.8e19, "float64": 1.3e154}
"""Numbers whose squares are the largest of each format."""

NUDGE = 1e-6
"""How far operands are kept from an edge: the order of the epsilons that float32 code adds by hand."""

THROWN = 10.0
"""Growth of all weights from which numbers are large because of them: float64 then only lets them grow further."""

ORDINARY = 1e3
"""Magnitude up to which operands are no sign of weights that have been thrown about."""

OVERFLOW, LOG_OF_ZERO, DIVISION, SINGULARITY, DOMAIN = "NAN110", "NAN111", "NAN112", "NAN113", "NAN114"

_LOGARITHMS = {"log", "log1p", "xlogy", "logit", "lgamma", "digamma"}
_DIVISIONS = {"divide", "reciprocal", "remainder", "rsqrt", "mean"}
_ROOTS = {"sqrt", "cbrt", "norm", "std", "var", "hypot"}
_BOUNDED = {"acos", "asin", "atanh", "erfinv"}
_GROWING = {
    "exp", "expm1", "sinh", "cosh", "softplus", "power", "add", "subtract", "multiply", "prod", "sum", "matmul",
    "convolution", "cast", "tan", "logsumexp", "logcumsumexp", "outer", "lerp", "ldexp", "squareddifference", "i0",
    "special_i0", "special_i1", "bessel_i0", "bessel_i1", "besseli0", "besseli1",
}  # fmt: skip
_MATRICES = {"inverse": DIVISION, "determinant": DIVISION, "cholesky": DOMAIN, "decomposition": SINGULARITY}


_REFUSED = re.compile(
    r"satisf\w+ the constraint|invalid values|math domain error|not positive.definite|is singular|not invertible"
    r"|must be (strictly )?positive|outside (of )?(the |its )?(domain|support)|outside(of)?domain|domainerror"
    r"|(decomposition|cholesky|factorization)[^.]* (failed|could not be completed)",
    re.IGNORECASE,
)
"""What libraries say that check their operands instead of answering NaN."""


def numerics(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """NAN110 to NAN114: what the traced operation and its operands say."""
    origin = evidence.replay.origin if evidence.replay else None
    if goal.kind is not Kind.NON_FINITE or origin is None:
        return None
    refused = origin.kind is OriginKind.EXCEPTION and _REFUSED.search(origin.detail)
    if origin.kind is not OriginKind.OPERATION and not refused:
        return None
    code = DOMAIN if refused else code_of_origin(origin)
    if code is None:
        return None
    rows = rows_to_blame(evidence)
    because = [f"the step raised: {_first_line(origin.detail)}" if refused else _mechanism(origin, code)]
    if rows:
        because.append(f"it happens in {describe_rows(rows)}")
    return Hypothesis(
        code=code, score=0.5, because=tuple(because), experiments=_experiments(evidence, goal, code), observed=True
    )


def code_of_origin(origin: Origin) -> str | None:
    """The numerical cause that an operation and the ranges of its operands point to; None if they point to none."""
    if origin.phase is Phase.OPTIMIZER or origin.custom_gradient:
        return None
    operands = [operand for operand in origin.operands if operand.name != "gradient"]
    if origin.phase is Phase.BACKWARD:
        return _backward(origin, operands)
    if _is_of_nothing(origin) or skips_every_target(origin) or _was_infinite(origin):
        return DIVISION
    return _forward(origin.operation, operands, origin.result)


def fails_by_itself(evidence: Evidence, goal: Goal) -> bool:
    """Whether an operation failed at ordinary numbers, or the optimizer at finite gradients.

    A lower rate then only takes longer to come to the same place.
    """
    if goal.kind is not Kind.NON_FINITE:
        return False
    origin = evidence.replay.origin if evidence.replay else None
    if origin is None:
        return False
    if origin.phase is Phase.OPTIMIZER or origin.kind in (OriginKind.PARAMETERS, OriginKind.EXCEPTION):
        return True
    sizes = [operand.largest_magnitude or 0.0 for operand in origin.operands]
    return code_of_origin(origin) not in (None, OVERFLOW) and max(sizes, default=0.0) < ORDINARY


def rows_to_blame(evidence: Evidence) -> tuple[int, ...]:
    """Rows in which the operation failed: those that bisection found, or else those of the operation's result."""
    origin = evidence.replay.origin if evidence.replay else None
    return evidence.guilty_rows or ((origin.rows if origin is not None else None) or ())


def _forward(operation: str, operands: list[TensorSummary], result: TensorSummary | None) -> str | None:
    if operation in _LOGARITHMS:
        return _logarithm(operation, operands)
    if operation in _DIVISIONS:
        return _division(operation, operands)
    if operation in _ROOTS:
        if operation in ("std", "var") and result is not None and result.nan and not _has_huge(operands):
            return DIVISION  # n - 1 = 0: the spread of a single value
        return DOMAIN if operation == "sqrt" and _lowest(operands) < 0 else OVERFLOW
    if operation in _BOUNDED or operation == "acosh":
        return DOMAIN
    if operation in _MATRICES:
        return DOMAIN if operation == "decomposition" else _MATRICES[operation]
    if operation in ("softmax", "log_softmax"):
        return DIVISION if any(operand.negative_inf for operand in operands) else OVERFLOW
    if operation == "power":
        return _power(operands, result)
    return OVERFLOW if operation in _GROWING else None


def _backward(origin: Origin, operands: list[TensorSummary]) -> str | None:
    operation = origin.operation
    at_zero = any(operand.zeros for operand in operands)
    if operation in _ROOTS or operation in _BOUNDED or operation in ("atan2", "acosh"):
        return SINGULARITY
    if operation in _DIVISIONS:
        masked = not origin.absorbed_by and any(operand.zeros for operand in _divisors(operation, operands))
        return SINGULARITY if masked else DIVISION
    if operation in _LOGARITHMS:
        # The forward value at zero was no origin: most often it was not used, the trap of `where`. Its derivative is
        # infinite all the same, and 0 * Inf is NaN. A value that was used was no less wrong for leaving no trace.
        if origin.absorbed_by:
            return LOG_OF_ZERO
        return SINGULARITY if at_zero or _lowest(operands) < 0 else LOG_OF_ZERO
    if operation == "power":
        # Below zero the value is NaN, and was not used either.
        return SINGULARITY if at_zero or _lowest(operands[:1]) < 0 else OVERFLOW
    if operation in _MATRICES:
        return SINGULARITY if operation == "decomposition" else _MATRICES[operation]
    return OVERFLOW if operation in _GROWING or operation in ("softmax", "log_softmax") else None


def _is_of_nothing(origin: Origin) -> bool:
    """Whether a mean, or a loss that ends in one, was taken over no elements: 0 divided by 0."""
    result = origin.result
    return result is not None and bool(result.nan) and any(0 in operand.shape for operand in origin.operands)


def skips_every_target(origin: Origin) -> bool:
    """Whether a mean of picked log-probabilities, all finite, is NaN: its weights sum to 0.

    Classes have a weight, and the index that is to be ignored has none. A class that does not exist raises an error.
    """
    forward = origin.kind is OriginKind.OPERATION and origin.phase is Phase.FORWARD
    if origin.operation != "nll_loss" or not forward or origin.result is None or not origin.result.nan:
        return False
    return bool(origin.operands) and all(operand.is_finite for operand in origin.operands)


def averages_nothing(origin: Origin) -> bool:
    """Whether the failure began with a mean over nothing: of no elements, of no target that counts, or 0 / 0."""
    if origin.kind is not OriginKind.OPERATION or origin.phase is not Phase.FORWARD:
        return False
    if _is_of_nothing(origin) or skips_every_target(origin):
        return True
    # Of sums: a quotient of whole tensors that are zero normalises something.
    zeros = [not each.shape and each.is_finite and each.largest_magnitude == 0.0 for each in origin.operands]
    return origin.operation == "divide" and len(zeros) == 2 and all(zeros)


def _was_infinite(origin: Origin) -> bool:
    """Whether a constant of the program held +Inf before the step: most often a quotient with a zero below it.

    What a batch normalisation shows of its running statistics is what it has just made of them.
    """
    forward = origin.phase is Phase.FORWARD and origin.operation != "batch_norm"
    return forward and any(operand.positive_inf for operand in origin.operands)


def _logarithm(operation: str, operands: list[TensorSummary]) -> str:
    inside = operands[-1:] if operation == "xlogy" else operands[:1]
    edge = -1.0 if operation == "log1p" else 0.0
    if operation == "logit":
        return DOMAIN if _lowest(inside) < 0 or _highest(inside) > 1 else LOG_OF_ZERO
    return DOMAIN if _lowest(inside) < edge else LOG_OF_ZERO


def _division(operation: str, operands: list[TensorSummary]) -> str:
    divisor = _divisors(operation, operands)
    if operation == "rsqrt" and _lowest(divisor) < 0:
        return DOMAIN
    if operation == "mean":
        return DIVISION if any(0 in operand.shape for operand in operands) else OVERFLOW
    if operation == "divide" and len(operands) == 1:
        # The divisor was a plain number: nothing else takes an ordinary number out of its format.
        return DIVISION if (operands[0].largest_magnitude or 0.0) < ORDINARY else OVERFLOW
    small = any(
        operand.zeros or (operand.smallest_magnitude or math.inf) < SMALLEST_NORMAL.get(operand.dtype, 1.2e-38)
        for operand in divisor
    )
    tiny = any((operand.smallest_magnitude or math.inf) < 1e-12 for operand in divisor)
    return DIVISION if small or tiny or not divisor else OVERFLOW


def _divisors(operation: str, operands: list[TensorSummary]) -> list[TensorSummary]:
    return operands[-1:] if operation in ("divide", "remainder") else operands[:1]


def _power(operands: list[TensorSummary], result: TensorSummary | None) -> str:
    if result is not None and result.nan:
        return DOMAIN  # a negative base and a broken exponent
    base, exponent = operands[:1], operands[1:2]
    largest = max((operand.largest_magnitude or 0.0 for operand in base), default=0.0)
    if not exponent and base and largest > LARGEST_ROOT.get(base[0].dtype, math.inf):
        return OVERFLOW  # a square
    negative = not exponent or _lowest(exponent) < 0
    return DIVISION if negative and any(operand.zeros for operand in base) else OVERFLOW


def _experiments(evidence: Evidence, goal: Goal, code: str) -> tuple[Experiment, ...]:
    """The samples at the edge are left out; the operand is kept off the edge; a wider format is used."""
    rows = without_rows(goal, rows_to_blame(evidence), batch_rows(evidence))
    origin = evidence.replay.origin if evidence.replay else None
    if origin is not None and _is_of_nothing(origin):
        return (another_batch(goal),)  # no operand to be moved, no sample to be left out
    if origin is not None and _was_infinite(origin):
        return ()  # what made it lies before the step
    if code == OVERFLOW and growth(evidence) >= THROWN:
        return rows  # whatever is computed from such weights leaves its range sooner or later
    nudged = () if code == OVERFLOW else (instead(goal, nudge=NUDGE),)
    wider = (instead(goal, dtype="float64"),) if evidence.precision != "float64" else ()
    return (*nudged, *rows, *wider)


def _mechanism(origin: Origin, code: str) -> str:
    place = "the derivative of " if origin.phase is Phase.BACKWARD else ""
    operands = [operand for operand in origin.operands if operand.name != "gradient"]
    if _is_of_nothing(origin):
        return f"{origin.operation} was taken over nothing: an operand has no elements, and 0 / 0 is NaN"
    if _was_infinite(origin):
        held = next(operand for operand in operands if operand.positive_inf)
        return f"{held.name or 'an operand'} of {origin.operation} held +Inf before the step: {held.describe()}"
    ranges = " and ".join(operand.describe() for operand in operands[:3])
    if origin.absorbed_by:
        ranges += f", and {origin.absorbed_by} made a finite number of what came out"
    kinds = {
        OVERFLOW: f"{place}{origin.operation} left the range of its number format",
        LOG_OF_ZERO: f"{place}{origin.operation} met a zero",
        DIVISION: f"{place}{origin.operation} divided by zero or next to it",
        SINGULARITY: f"the derivative of {origin.operation} is infinite where its operand is",
        DOMAIN: f"{place}{origin.operation} is not defined for its operand",
    }
    return kinds[code] + (f": {ranges}" if ranges else "")


def _first_line(text: str) -> str:
    return text.partition("\n")[0].rstrip(".:")


def _lowest(operands: list[TensorSummary]) -> float:
    return min((operand.minimum for operand in operands if operand.minimum is not None), default=math.inf)


def _highest(operands: list[TensorSummary]) -> float:
    return max((operand.maximum for operand in operands if operand.maximum is not None), default=-math.inf)


def _has_huge(operands: list[TensorSummary]) -> bool:
    return any((operand.largest_magnitude or 0.0) > 1e18 for operand in operands)
