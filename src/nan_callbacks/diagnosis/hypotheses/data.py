"""Suspicions against the data: NaN or Inf in the batch, a few samples far off, a whole data set on the wrong scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nan_callbacks.core.sentences import number
from nan_callbacks.diagnosis.diagnosis import describe_rows
from nan_callbacks.diagnosis.evidence import BatchPart, Evidence, Role
from nan_callbacks.diagnosis.experiments import (
    Experiment,
    another_batch,
    ends_lower,
    fresh_run,
    instead,
    run_steps,
    trained,
    without_rows,
)
from nan_callbacks.diagnosis.goal import SHORT_RUN, Goal, Kind
from nan_callbacks.diagnosis.hypotheses.hypothesis import HALF, Hypothesis, are_samples, batch_rows, is_early
from nan_callbacks.diagnosis.hypotheses.numerics import (
    DIVISION,
    LOG_OF_ZERO,
    SINGULARITY,
    code_of_origin,
    rows_to_blame,
)
from nan_callbacks.diagnosis.origin import OriginKind
from nan_callbacks.diagnosis.outlying import OUTLIER_RATIO

FAR_FROM_UNIT = 10.0
"""Mean or standard deviation of the inputs from which they count as unscaled: the curvature of the loss, and so the
highest stable learning rate, goes with its square (LeCun et al., "Efficient BackProp", 1998, section 4.3)."""

FAR_BELOW_UNIT = 0.01
"""Mean and standard deviation of the inputs up to which the first layer's gradient is next to nothing: bytes that were
divided by 255 twice have 0.002."""

OFFSET = 0.02
"""Standard deviation over mean up to which what differs among the inputs is lost in what they share."""

HOPELESS = 1e4
"""Size of targets from which outputs that begin near zero do not come near them: a step of Adam moves a weight by the
learning rate, a thousandth as a rule."""

FAR_APART = 100.0
"""Ratio of the features' standard deviations that is worth a sentence."""

EDGES = (LOG_OF_ZERO, DIVISION, SINGULARITY)


def non_finite_data(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """DATA501: the batch itself holds NaN or Inf."""
    parts = [part for part in evidence.batch if part.non_finite_rows or part.failed.nan or part.failed.positive_inf]
    origin = evidence.replay.origin if evidence.replay else None
    by_replay = origin is not None and origin.kind is OriginKind.BATCH
    if goal.kind is not Kind.NON_FINITE or not (parts or by_replay or evidence.seen.batch_finite is False):
        return None
    rows = tuple(sorted({row for part in parts for row in part.non_finite_rows}))
    because = [f"{part.failed.name or part.role.value} holds {_special(part)}" for part in parts]
    if rows:
        because.append(f"it is {describe_rows(rows)}")
    if not because:
        because.append("the batch was non-finite before the model saw it")
    return Hypothesis(
        code="DATA501",
        score=1.0,
        because=tuple(because),
        experiments=(*_leaving_out(rows, parts, evidence, goal), another_batch(goal)),
        observed=True,
    )


def outlier_samples(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """DATA503: finite samples whose inputs lie far outside of everything that the run has seen."""
    parts = [part for part in evidence.batch if part.role in (Role.INPUT, Role.UNKNOWN, Role.WEIGHT)]
    parts += evidence.prepared
    found = accusation_of_rows("DATA503", 0.9, parts, evidence, goal)
    if found is None:
        return None
    spiking = goal.kind is Kind.SPIKE
    rows = {row for part in parts for row in part.outlier_rows or (part.far_rows if spiking else ())}
    return replace(found, score=0.75) if 2 * len(rows) > batch_rows(evidence) else found  # a batch of another kind


def accusation_of_rows(
    code: str, score: float, parts: Sequence[BatchPart], evidence: Evidence, goal: Goal
) -> Hypothesis | None:
    """A few rows that are outliers in one of the parts, tried by leaving them out."""
    # What overflows is large. A spike may come from what is only far from the rest.
    if goal.kind is Kind.SPIKE:
        parts = [part if part.outlier_rows else replace(part, **_as_far(part)) for part in parts]
    suspicious = [part for part in parts if part.outlier_rows and part.outlier_ratio >= OUTLIER_RATIO]
    outliers = {row for part in suspicious for row in part.outlier_rows}
    guilty = set(evidence.guilty_rows) & outliers
    # Bisection may find one of several guilty rows at a time; outliers that it did not name are left out as well.
    rows = tuple(sorted(outliers))
    if not rows or goal.kind in (Kind.DIVERGENCE, Kind.STALL):
        return None
    because = [_how_far(part) for part in suspicious]
    if guilty:
        because.append(f"without {describe_rows(tuple(sorted(guilty)))} the step succeeds")
    experiments = _leaving_out(rows, suspicious, evidence, goal) or (another_batch(goal),)
    return Hypothesis(code=code, score=score, because=tuple(because), experiments=experiments)


def _leaving_out(
    rows: tuple[int, ...], parts: Sequence[BatchPart], evidence: Evidence, goal: Goal
) -> tuple[Experiment, ...]:
    return without_rows(goal, rows, batch_rows(evidence)) if are_samples(parts, evidence) else ()


def unscaled_data(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """DATA502: the inputs of the whole data set are far from mean 0 and standard deviation 1."""
    scales = [(scale_of(part), part) for part in evidence.batch if part.role in (Role.INPUT, Role.UNKNOWN)]
    far = [(scale, part) for scale, part in scales if scale >= FAR_FROM_UNIT]
    if not far and goal.kind is Kind.STALL:  # far too small, or all of them nearly the same: then nothing is learnt
        far = [(scale, part) for scale, part in scales if scale > 0.0 and (scale <= FAR_BELOW_UNIT or _is_offset(part))]
    if not far:
        return None
    _, part = max(far, key=lambda pair: pair[0])
    because = [f"{part.failed.name or part.role.value} has {_moments(part)}"]
    if part.feature_std_ratio >= FAR_APART:
        because.append(f"its features differ in scale by a factor of {number(part.feature_std_ratio)}")
    # Numbers on another scale miss an edge that a few rows hit exactly: that proves nothing about the others.
    score = 0.45 if _is_an_edge(evidence, goal) else 0.8
    together = _scaled_with_targets(evidence, goal)
    if together:
        because.append(f"the targets as well: {_moments(_far_targets(evidence)[1] or part)}")
    experiments = (*_scaled(evidence, goal, standardise=True), *together)
    return Hypothesis(code="DATA502", score=score, because=tuple(because), experiments=experiments)


def _scaled_with_targets(evidence: Evidence, goal: Goal) -> tuple[Experiment, ...]:
    """Inputs and targets on unit scale, where neither alone may be enough; the targets alone must not be."""
    scale, part = _far_targets(evidence)
    if part is None or scale < FAR_FROM_UNIT or goal.kind is Kind.STALL:
        return ()
    alone = fresh_run(run_steps(evidence), target_scale=1.0 / scale)
    both = trained(fresh_run(run_steps(evidence)), standardise=True, target_scale=1.0 / scale)
    return (replace(both, controls=(*both.controls, alone)),)


def _is_an_edge(evidence: Evidence, goal: Goal) -> bool:
    """Whether an operation failed in a few rows, at zero or next to it."""
    origin = evidence.replay.origin if evidence.replay else None
    if goal.kind is not Kind.NON_FINITE or origin is None or origin.kind is not OriginKind.OPERATION:
        return False
    rows = rows_to_blame(evidence)
    return code_of_origin(origin) in EDGES and 0 < 2 * len(rows) <= batch_rows(evidence)


def _is_offset(part: BatchPart) -> bool:
    """Whether all numbers of a part are one and the same but for a fiftieth of it."""
    mean, std = part.recent_mean, part.recent_std
    return mean is not None and std is not None and 0.0 < std < OFFSET * abs(mean)


def unscaled_targets(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """DATA509: the numbers to be predicted are far from unit scale: the errors, and the gradients, are as large."""
    scale, part = _far_targets(evidence)
    if part is None or scale < FAR_FROM_UNIT:
        return None
    because = (f"{part.failed.name or part.role.value} has {_moments(part)}",)
    experiments = _scaled(evidence, goal, target_scale=1.0 / scale)
    # A run that has digested such targets for a while, and fails at a few samples, fails for another reason.
    score = 0.45 if goal.kind is Kind.NON_FINITE and not is_early(evidence) else 0.79
    # Within the steps of a trial even scaled targets may stay out of reach of a small rate.
    hopeless = goal.kind is Kind.STALL and scale >= HOPELESS
    return Hypothesis(code="DATA509", score=score, because=because, experiments=experiments, observed=hopeless)


def _far_targets(evidence: Evidence) -> tuple[float, BatchPart | None]:
    """The targets that are farthest from unit scale."""
    targets = [(scale_of(part), part) for part in evidence.batch if part.role is Role.TARGET]
    far = [(scale, part) for scale, part in targets if not part.is_integral or scale >= HOPELESS]  # no class indices
    return max(far, key=lambda pair: pair[0], default=(0.0, None))


def _scaled(evidence: Evidence, goal: Goal, **changes: object) -> tuple[Experiment, ...]:
    """Data on unit scale, from fresh weights; in half precision the same data must fail in float32 too."""
    requires = ends_lower if goal.kind is Kind.STALL else None
    steps = SHORT_RUN if goal.kind is Kind.STALL else run_steps(evidence)
    experiments = [trained(fresh_run(steps), requires, **changes)]
    if is_early(evidence) and goal.kind in (Kind.NON_FINITE, Kind.SPIKE) and goal.base.steps == 0:
        # The weights are still those of the start, or nearly so: they have not adapted to the scale of the data.
        experiments.append(instead(goal, fresh_run(steps=0), **changes))
    if evidence.precision in HALF and goal.kind is Kind.NON_FINITE:
        in_full = replace(goal.base, dtype="float32")
        experiments = [replace(each, controls=(*each.controls, in_full)) for each in experiments]
    return tuple(experiments)


def _moments(part: BatchPart) -> str:
    mean = part.recent_mean if part.recent_mean is not None else part.mean
    std = part.recent_std if part.recent_std is not None else part.std
    return f"mean {number(mean)} and standard deviation {number(std)}"


def scale_of(part: BatchPart) -> float:
    """How far the numbers of a part are from unit scale, outliers aside; 0 for token ids and the like.

    Without recent batches the mean and spread of the failed one must do, unless a few outliers make them.
    """
    if part.failed.dtype.startswith(("int", "uint", "bool")):
        return 0.0
    known = part.recent_mean is not None and part.recent_std is not None
    mean, std = (part.recent_mean, part.recent_std) if known else (part.mean, part.std)
    if mean is None or std is None or (not known and part.outlier_rows):
        return 0.0
    return max(abs(mean), std)


def _how_far(part: BatchPart) -> str:
    name = part.failed.name or part.role.value
    beside = "anything in the recent batches" if part.recent is not None else "the median row of the batch"
    far = part.outlier_rows == part.far_rows
    how = "lies {} times as far from the usual as" if far else "is {} times as large as"
    return f"{name} of {describe_rows(part.outlier_rows)} {how.format(number(part.outlier_ratio))} {beside}"


def _as_far(part: BatchPart) -> dict[str, Any]:
    return {"outlier_rows": part.far_rows, "outlier_ratio": part.far_ratio}


def _special(part: BatchPart) -> str:
    counts = ((part.failed.nan, "NaN"), (part.failed.positive_inf, "+Inf"), (part.failed.negative_inf, "-Inf"))
    return " and ".join(f"{count} {word}" for count, word in counts if count) or "non-finite values"
