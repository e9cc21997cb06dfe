"""Suspicions against what a loss is not defined for: nothing to average, targets too long, outputs out of range."""

from __future__ import annotations

import math
import re

from nan_callbacks.core.sentences import number
from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.diagnosis import describe_rows
from nan_callbacks.diagnosis.evidence import BatchPart, Evidence, Role
from nan_callbacks.diagnosis.experiments import Experiment, another_batch, without_rows
from nan_callbacks.diagnosis.goal import Goal, Kind
from nan_callbacks.diagnosis.hypotheses.hypothesis import Hypothesis, batch_rows
from nan_callbacks.diagnosis.hypotheses.numerics import DIVISION, averages_nothing, skips_every_target
from nan_callbacks.diagnosis.origin import Origin, OriginKind, Phase

ROUNDING = 1e-3
"""By how much probabilities may miss their range when they were added up: eps of float16."""

_REFUSED = re.compile(r"all elements of input should be between 0 and 1", re.IGNORECASE)
"""What torch's binary cross entropy says of outputs; of targets it speaks as such."""

MASKING = frozenset({"masked_fill", "where", "select"})
"""Operations by which a mask is applied."""


def nothing_to_average(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """NAN112: every target of the batch is one that the loss leaves out, and its mean is 0 divided by 0."""
    origin = evidence.replay.origin if evidence.replay else None
    if goal.kind is not Kind.NON_FINITE or origin is None or not averages_nothing(origin):
        return None
    if skips_every_target(origin):
        because = [_left_out(origin), f"{origin.operation} is a mean over nothing then: 0 / 0 is NaN"]
    else:
        alike = [part for part in evidence.batch if _is_a_mark_throughout(part)]
        if not alike:
            return None
        because = [_marked(part) for part in alike]
        because.append(f"{origin.operation} had nothing to average: 0 / 0 is NaN")
    return Hypothesis(
        code=DIVISION,
        score=0.972,
        because=tuple(because),
        experiments=_without(evidence.guilty_rows, evidence, goal),
        observed=True,
        settles=True,
    )


def nothing_allowed(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """NAN112: a mask that rules everything out in a row, so that a maximum or a choice among what is left is -Inf."""
    origin = evidence.replay.origin if evidence.replay else None
    if goal.kind is not Kind.NON_FINITE or origin is None or not _masks(origin):
        return None
    if evidence.classifies:  # a label may point at what is masked, in a row that is not masked altogether
        return None
    whose = f" (those of {describe_rows(evidence.guilty_rows)})" if evidence.guilty_rows else ""
    because = (
        f"{origin.operation} wrote -Inf over finite values, as a mask, and it reached the loss: a maximum or a choice "
        f"among values that are all masked{whose} is -Inf",
    )
    return Hypothesis(
        code=DIVISION,
        score=0.971,
        because=because,
        experiments=_without(evidence.guilty_rows, evidence, goal),
        observed=True,
        settles=True,
    )


def _masks(origin: Origin) -> bool:
    """Whether the first non-finite values are -Inf that was written over finite ones on purpose."""
    result = origin.result
    if origin.operation not in MASKING or origin.kind is not OriginKind.OPERATION or result is None:
        return False
    only_negative = bool(result.negative_inf) and not result.nan and not result.positive_inf
    return only_negative and not any(each.nan or each.positive_inf for each in origin.operands)


def longer_than_input(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """DATA505: a target that no alignment brings into its input, as ``ctc_loss`` tells with an infinite loss."""
    origin = evidence.replay.origin if evidence.replay else None
    if goal.kind is not Kind.NON_FINITE or origin is None or not has_no_alignment(origin):
        return None
    rows = (origin.rows or ()) or evidence.guilty_rows
    whose = f"the target of {describe_rows(rows)} is" if rows else "a target is"
    because = (f"{whose} longer than its input, and no alignment of the two exists: the loss is infinite",)
    return Hypothesis(
        code="DATA505",
        score=0.972,
        because=because,
        experiments=_without(rows, evidence, goal),
        observed=True,
        settles=True,
    )


def no_probabilities(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """LOSS404: a loss that takes probabilities has refused outputs that were finite and not between 0 and 1."""
    origin = evidence.replay.origin if evidence.replay else None
    if origin is None or origin.kind is not OriginKind.EXCEPTION or not _REFUSED.search(origin.detail):
        return None
    given = origin.operands[0] if origin.operands else None
    if given is None or not given.is_finite or not _is_beyond(given) or _is_of_the_batch(given, evidence):
        return None
    because = (
        f"{origin.module_type or 'the loss'} takes probabilities, and was given outputs from {number(given.minimum)} "
        f"to {number(given.maximum)}: what the model ends in does not keep them between 0 and 1",
    )
    # A lower rate would only take longer to come to the same place.
    experiments = without_rows(goal, evidence.guilty_rows, batch_rows(evidence))
    return Hypothesis(
        code="LOSS404", score=0.955, because=because, experiments=experiments, observed=True, settles=True
    )


def _is_beyond(given: TensorSummary) -> bool:
    low, high = given.minimum, given.maximum
    return low is not None and high is not None and (low < -ROUNDING or high > 1.0 + ROUNDING)


def _is_of_the_batch(given: TensorSummary, evidence: Evidence) -> bool:
    """Whether a part of the batch has the same extremes: the loss may have got its arguments in the wrong order."""
    ends = given.minimum, given.maximum
    return any((part.failed.minimum, part.failed.maximum) == ends for part in evidence.batch)


def has_no_alignment(origin: Origin) -> bool:
    """Whether a CTC loss of finite scores came out infinite: every path has a finite score, so there is no path."""
    result = origin.result
    if origin.operation != "ctc_loss" or origin.kind is not OriginKind.OPERATION or origin.phase is not Phase.FORWARD:
        return False
    return result is not None and bool(result.positive_inf) and all(each.is_finite for each in origin.operands)


def _without(rows: tuple[int, ...], evidence: Evidence, goal: Goal) -> tuple[Experiment, ...]:
    return (*without_rows(goal, rows, batch_rows(evidence)), another_batch(goal))


def _left_out(origin: Origin) -> str:
    indices = [each for each in origin.operands if each.dtype.startswith(("int", "uint"))]
    if indices and indices[0].minimum == indices[0].maximum and not _weights(origin):
        return (
            f"all {_count(indices[0])} targets of the batch are {_value(indices[0])}, the index that the loss ignores"
        )
    return "no target of the batch counts: each is the index that the loss ignores, or a class of weight 0"


def _weights(origin: Origin) -> list[TensorSummary]:
    return [each for each in origin.operands if each.name == "weight"]


def _is_a_mark_throughout(part: BatchPart) -> bool:
    """Whether a target is one and the same value in all of the batch, at or beyond the end of its usual range."""
    failed, recent = part.failed, part.recent
    if part.role is not Role.TARGET or failed.minimum is None or failed.minimum != failed.maximum:
        return False
    if recent is None or recent.minimum is None or recent.maximum is None or recent.minimum == recent.maximum:
        return False
    return failed.minimum <= recent.minimum or failed.minimum >= recent.maximum


def _marked(part: BatchPart) -> str:
    name = part.failed.name or part.role.value
    return f"all {_count(part.failed)} values of {name} are {_value(part.failed)}, as those that are left out"


def _count(summary: TensorSummary) -> int:
    return math.prod(summary.shape)


def _value(summary: TensorSummary) -> str:
    return number(summary.minimum)
