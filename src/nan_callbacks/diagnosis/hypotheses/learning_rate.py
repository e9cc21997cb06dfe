"""Suspicions against the learning rate."""

from __future__ import annotations

from nan_callbacks.core.sentences import number
from nan_callbacks.diagnosis.evidence import Evidence
from nan_callbacks.diagnosis.experiments import (
    LONGER_RUN,
    LOWER_RATE,
    MUCH_LOWER_RATE,
    Experiment,
    ends_lower,
    fresh_run,
    inflated,
    run_steps,
    snapshot_run,
    trained,
    unrest,
)
from nan_callbacks.diagnosis.goal import Goal, Kind
from nan_callbacks.diagnosis.hypotheses.hypothesis import Hypothesis, how_early, is_early

RATES_TRIED = (10.0, 100.0)
"""Factors on a learning rate that is suspected to be too low."""


def too_high(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """OPT601: the steps are so long that the weights leave the region in which the gradient means anything."""
    because = []
    rate = max(evidence.seen.learning_rates, default=None)
    if rate is not None:
        because.append(f"the learning rate is {number(rate)}")
    grown, early = inflated(evidence), is_early(evidence)
    norms = evidence.history.param_norms
    if grown and len(norms) >= 2:
        because.append(f"the norm of the weights went from {number(min(norms[-4:]))} to {number(norms[-1])}")
    if early:
        because.append(how_early(evidence))
    score = 0.75 if grown or goal.kind is Kind.DIVERGENCE else (0.7 if early else 0.3)
    return Hypothesis(code="OPT601", score=score, because=tuple(because), experiments=_lower(evidence, goal, early))


def too_low(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """OPT602: the steps are so short that the loss does not move."""
    if goal.kind is not Kind.STALL:
        return None
    rate = max(evidence.seen.learning_rates, default=None)
    because = ("the loss stands still",) + ((f"the learning rate is {number(rate)}",) if rate is not None else ())
    experiments = tuple(trained(goal.base, ends_lower, lr_factor=factor) for factor in RATES_TRIED)
    return Hypothesis(code="OPT602", score=0.65, because=because, experiments=experiments)


def _lower(evidence: Evidence, goal: Goal, early: bool) -> tuple[Experiment, ...]:
    if goal.kind is Kind.STALL:
        return (trained(fresh_run(), ends_lower, lr_factor=LOWER_RATE),)
    if goal.kind is Kind.DIVERGENCE:
        return (trained(goal.base, ends_lower, lr_factor=LOWER_RATE),)
    if early:
        # Batches that the run has digested break it too, at the full rate only: the failed batch is not to blame.
        other = snapshot_run(run_steps(evidence), other_batch=True)
        return tuple(trained(other, lr_factor=factor) for factor in (LOWER_RATE, MUCH_LOWER_RATE))
    # The longer run is for a failure that the shorter one did not bring back; otherwise the shorter ones decide.
    runs = [(snapshot_run(), LOWER_RATE), (snapshot_run(), MUCH_LOWER_RATE), (snapshot_run(LONGER_RUN), LOWER_RATE)]
    return tuple(trained(run, unrest(evidence), lr_factor=factor) for run, factor in runs)
