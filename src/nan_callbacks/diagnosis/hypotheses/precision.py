"""Suspicions against number formats, and against the optimizer's own arithmetic."""

from __future__ import annotations

from dataclasses import replace

from nan_callbacks.core.sentences import number
from nan_callbacks.core.stall import BEYOND, LARGEST_ROOT
from nan_callbacks.diagnosis.evidence import Evidence
from nan_callbacks.diagnosis.experiments import LOWER_RATE, Experiment, ends_lower, trained
from nan_callbacks.diagnosis.goal import Goal, Kind, is_calm, stands_still
from nan_callbacks.diagnosis.hypotheses.hypothesis import HALF, Hypothesis
from nan_callbacks.diagnosis.hypotheses.numerics import OVERFLOW, code_of_origin
from nan_callbacks.diagnosis.origin import OriginKind, Phase


def half_precision(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """OPT604: a number that float32 holds easily is too large or too small for a half-precision format."""
    own = _cast_by_hand(evidence) if goal.kind is Kind.NON_FINITE else None
    if own is not None:
        return own
    if evidence.precision not in HALF or goal.kind is Kind.DIVERGENCE:
        return None
    if goal.kind is Kind.STALL:
        return _too_coarse(evidence, goal)
    because = [f"the model computes in {evidence.precision}, which ends at {HALF[evidence.precision]}"]
    origin = evidence.replay.origin if evidence.replay else None
    for operand in origin.operands if origin is not None else ():
        if operand.dtype in HALF and operand.largest_magnitude is not None:
            because.append(f"{operand.name or 'an operand'} reaches {number(operand.largest_magnitude)}")
    treatment = replace(goal.base, dtype="float32")
    experiment = Experiment(treatment=treatment, controls=(goal.base,))
    return Hypothesis(code="OPT604", score=0.55, because=tuple(because), experiments=(experiment,))


def _cast_by_hand(evidence: Evidence) -> Hypothesis | None:
    """An overflow of float16 in a model that does not compute in it: its code casts, and no trial can undo that.

    Not of bfloat16, which ends where float32 does.
    """
    origin = evidence.replay.origin if evidence.replay else None
    if origin is None or evidence.precision in HALF or code_of_origin(origin) != OVERFLOW:
        return None
    casts = [operand for operand in origin.operands if operand.dtype == "float16" and operand.largest_magnitude]
    if not casts or origin.kind is not OriginKind.OPERATION:
        return None
    because = [f"{origin.operation} computes in float16, which ends at {HALF['float16']}"]
    because += [f"{each.name or 'an operand'} reaches {number(each.largest_magnitude)}" for each in casts[:2]]
    return Hypothesis(code="OPT604", score=0.81, because=tuple(because), observed=True, settles=True)


def _too_coarse(evidence: Evidence, goal: Goal) -> Hypothesis:
    """Gradients below the smallest number of a format are 0; updates below its resolution change no weight."""
    because = [f"the model computes in {evidence.precision}"]
    norms = evidence.history.grad_norms[-32:]
    if norms and max(norms) == 0.0:
        because.append("all gradients are 0")
    experiment = trained(goal.base, ends_lower, dtype="float32")
    return Hypothesis(
        code="OPT604",
        score=0.67,
        because=tuple(because),
        experiments=(replace(experiment, requires=lambda treated, _: is_calm(treated), judge=stands_still), experiment),
    )


def squared(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """NAN110: gradients are finite, their squares are not, and an optimizer that divides by them makes no step."""
    norms = evidence.history.grad_norms[-BEYOND:]
    beyond = len(norms) == BEYOND and min(norms) > LARGEST_ROOT
    if goal.kind is not Kind.STALL or evidence.optimizer_epsilon is None or not beyond:
        return None
    because = (
        f"the norm of the gradients is {number(norms[-1])}, and has been {number(min(norms))} at least for {BEYOND} "
        f"steps: their squares leave float32, and {evidence.optimizer or 'the optimizer'} divides by the root of them",
    )
    return Hypothesis(code=OVERFLOW, score=0.72, because=because, observed=True, settles=True)


def made_by_optimizer(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """OPT605: finite gradients went into the optimizer, non-finite parameters came out."""
    origin = evidence.replay.origin if evidence.replay else None
    from_before = origin is not None and origin.kind is OriginKind.PARAMETERS
    by_replay = origin is not None and (origin.phase is Phase.OPTIMIZER or (from_before and origin.is_trained))
    seen = evidence.seen
    by_code = any(finding.code == "NAN103" for finding in evidence.findings) and not seen.non_finite_frozen
    if goal.kind is not Kind.NON_FINITE or not (by_replay or by_code or seen.optimizer_broke_parameters):
        return None  # buffers and frozen parameters are written by the code of a step, never by an optimizer
    because = [f"{evidence.optimizer or 'the optimizer'} made non-finite parameters from finite gradients"]
    if evidence.optimizer_epsilon is not None and evidence.precision in HALF:
        because.append(f"its epsilon is {number(evidence.optimizer_epsilon)}, the precision {evidence.precision}")
    # A smaller step must not help: otherwise the step was too long, and the learning rate is to blame.
    shorter = replace(goal.base, lr_factor=LOWER_RATE)
    wider = "float32" if evidence.precision in HALF else "float64"
    experiment = Experiment(treatment=replace(goal.base, dtype=wider), controls=(goal.base, shorter))
    return Hypothesis(
        code="OPT605", score=0.95, because=tuple(because), experiments=(experiment,), observed=bool(by_replay)
    )
