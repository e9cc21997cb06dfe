"""Suspicions against the learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from statistics import fmean, variance

from nan_callbacks.core.sentences import number
from nan_callbacks.diagnosis.evidence import Evidence
from nan_callbacks.diagnosis.experiments import (
    LONGER_RUN,
    LOWER_RATE,
    MUCH_LOWER_RATE,
    Experiment,
    Judge,
    Requirement,
    ends_lower,
    fresh_run,
    growth,
    inflated,
    run_steps,
    snapshot_run,
    trained,
    unrest,
)
from nan_callbacks.diagnosis.goal import MOVED, STALL, Goal, Kind, Measured, stands_still, tail
from nan_callbacks.diagnosis.hypotheses.activations import dead_units, saturated
from nan_callbacks.diagnosis.hypotheses.gradients import vanishing
from nan_callbacks.diagnosis.hypotheses.hypothesis import Hypothesis, batch_rows, how_early, is_early
from nan_callbacks.diagnosis.hypotheses.numerics import fails_by_itself
from nan_callbacks.diagnosis.reproduction import is_unasked

THROWN = 2.0
"""Growth of all weights since the beginning of a run that has not learnt, from which its steps are suspected."""

SHARE = 0.01
"""Of the weights, what a step may be that is to be none too long: ten times the usual 1e-3 (Karpathy, CS231n notes)."""

LOWEST = 1e-12
"""Factor below which no rate is tried: in float32 it would move nothing that the present one has not destroyed."""

RAISED = 5.0
"""Growth of the rate itself, within the recorded steps, from which it is suspected: a warm-up ends where it is meant
to, a schedule that multiplies where it should divide does not end."""

AT_REST = 16
"""Last steps in which a rate of zero must have been next to zero already."""

DECAYED = 1e-6
"""Of the largest rate that the run has had: what one step once did would take a million."""

FEWEST_BATCHES = 4
"""Recent batches of which the latter half is more than one."""

CLEAR = 3.0
"""Standard errors above which the falls of single batches are no chance."""

UNSEEN = 0.97
"""Of a loss that stands still, what a run that learns stays below at batches that it sees for the first time."""

RATES_TRIED = (100.0, 1e4, 1e7)
"""Factors on a learning rate that is suspected to be too low, after the largest rate that the run has had."""

USUAL_RATE = 1e-2
"""A rate at which most nets move within a dozen steps, by adaptive or plain optimizers; tried besides if no factor
comes within tenfold of it."""


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
    by_itself = not grown and fails_by_itself(evidence, goal)
    suspicious = early and not by_itself and goal.kind is not Kind.STALL
    thrown = goal.kind is Kind.STALL and len(norms) > 1 and norms[-1] > THROWN * norms[0]
    if thrown:  # what has died or saturated meanwhile is what became of it
        because.append(f"the norm of the weights went from {number(norms[0])} to {number(norms[-1])}")
    lowest = min((each for each in evidence.history.learning_rates if each > 0.0), default=0.0)
    raised = rate is not None and 0.0 < RAISED * lowest <= rate
    if raised:
        because.append(f"it has risen from {number(lowest)}")
    score = 0.75 if grown or goal.kind is Kind.DIVERGENCE else (0.7 if suspicious or thrown or raised else 0.3)
    experiments = _lower(evidence, goal, early and not by_itself)
    return Hypothesis(
        code="OPT601",
        score=score,
        because=tuple(because),
        experiments=experiments,
        # Where ordinary numbers fail, a lower rate only takes longer to come to the same place.
        circumstantial=by_itself,
    )


def far_too_high(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """OPT601 by more than a hundredfold: the growth of the weights in the first steps tells by how much.

    So low a rate moves next to nothing, which would turn off any failure: the loss must fall. And a start at another
    scale, or other data, are tried before.
    """
    factor = SHARE / growth(evidence)
    if goal.kind is Kind.STALL or not is_early(evidence) or factor >= MUCH_LOWER_RATE / THROWN:
        return None
    rate = 10.0 ** math.floor(math.log10(max(factor, LOWEST)))
    control = goal.base if goal.kind is Kind.DIVERGENCE else snapshot_run(run_steps(evidence), other_batch=True)
    because = (f"the norm of the weights has grown {number(growth(evidence))}-fold", how_early(evidence))
    experiments = (trained(control, _falls, lr_factor=rate),)
    return Hypothesis(code="OPT601", score=0.52, because=because, experiments=experiments, needs_proof=True)


def _cures(evidence: Evidence) -> Requirement:
    """Whether a run at a lower rate ends below the one at the present rate, and below the best constant prediction.

    What falls from far above that, and stays above it, has not shown that it learns: units that are saturated on any
    weights let a loss fall as well, at a rate that is low enough.
    """
    constant = math.inf if evidence.constant_loss is None else evidence.constant_loss

    def shown(treated: Measured, controls: Sequence[Measured]) -> bool:
        return ends_lower(treated, controls) and tail(treated.trial.losses) < constant

    return shown


def _moves(treated: Measured, controls: Sequence[Measured]) -> bool:
    """Whether the loss gets anywhere: what stands still does not come to the place either where the run fails."""
    return treated.change is None or treated.change <= MOVED


def _falls(treated: Measured, controls: Sequence[Measured]) -> bool:
    return treated.change is not None and treated.change <= STALL


def too_low(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """OPT602: the steps are so short that the loss does not move."""
    if goal.kind is not Kind.STALL:
        return None
    rate = max(evidence.seen.learning_rates, default=None)
    because = ("the loss stands still",) + ((f"the learning rate is {number(rate)}",) if rate is not None else ())
    factors: tuple[float, ...] = RATES_TRIED
    largest = max(evidence.history.learning_rates, default=0.0)
    # A warm-up may begin with zero, and a cycle may touch it; some backends flush tiny rates to it.
    at_rest = rate == 0.0 and max(evidence.history.learning_rates[-AT_REST:], default=0.0) <= DECAYED * largest
    if rate is not None and (at_rest or 0.0 < rate <= DECAYED * largest):
        fell = (f"it has fallen from {number(largest)}",) if largest else ()
        return Hypothesis(code="OPT602", score=0.99, because=because + fell, observed=True, settles=True)
    if rate is not None and 0.0 < 10.0 * rate <= largest:
        because += (f"it has fallen from {number(largest)}",)
        factors = (10.0 * largest / rate, largest / rate, *factors)
    elif rate and 10.0 * rate < USUAL_RATE and all(_is_far(rate * each, USUAL_RATE) for each in factors):
        factors = tuple(sorted((*factors, USUAL_RATE / rate)))
    # From a complete standstill a little is enough; but a large rate moves even a net that is blocked, a little.
    blocked = any(rule(evidence, goal) is not None for rule in (vanishing, saturated, dead_units))
    blocked = blocked or is_unasked(evidence)
    still, stalls = _unless_by_heart(evidence, stands_still), _unless_by_heart(evidence, goal.failed)
    moved = [] if blocked else [replace(trained(goal.base, lr_factor=f), judge=still) for f in factors]
    fallen = [replace(trained(goal.base, ends_lower, lr_factor=factor), judge=stalls) for factor in factors]
    # Both look at the same trials, each of which is made once.
    experiments = tuple(each for pair in zip_longest(moved, fallen) for each in pair if each is not None)
    return Hypothesis(code="OPT602", score=0.65, because=because, experiments=experiments)


def _is_far(rate: float, other: float) -> bool:
    return max(rate / other, other / rate) > 10.0


def _unless_by_heart(evidence: Evidence, judge: Judge) -> Judge:
    """A judge to whom a loss has only fallen if that of batches on their first coming has fallen as well.

    A large rate learns the few batches of a trial by heart, whatever labels they have.

    Args:
        evidence: Of the run, which stands still: its losses are those of the same batches without a treatment.
        judge: Whether a trial failed.
    """
    rows = batch_rows(evidence)
    known = [part.recent.shape[0] for part in evidence.batch if part.recent is not None and part.recent.shape]
    batches = max(known, default=0) // rows if rows else 0
    before = evidence.history.losses[-batches - 1 : -1]

    def judged(measured: Measured) -> bool | None:
        failed, losses = judge(measured), measured.trial.losses
        # Its first steps have not taught it anything yet.
        late = slice(batches // 2, batches)
        if failed is not False or batches < FEWEST_BATCHES or len(losses) <= batches or len(before) < batches:
            return failed
        return fmean(before[late]) > 0 and not _is_learnt(before[late], losses[late], unasked=is_unasked(evidence))

    return judged


def _is_learnt(before: Sequence[float], after: Sequence[float], *, unasked: bool) -> bool:
    """Whether losses of the same batches have fallen: far, or each of them; to be told to who has not asked, both."""
    falls = [one - other for one, other in zip(before, after, strict=True)]
    share = fmean(after) / fmean(before)
    clearly = fmean(falls) > CLEAR * math.sqrt(variance(falls) / len(falls))
    return (clearly and share < STALL) if unasked else (clearly or share < UNSEEN)


def _lower(evidence: Evidence, goal: Goal, early: bool) -> tuple[Experiment, ...]:
    if goal.kind is Kind.STALL:
        lower = trained(fresh_run(), _cures(evidence), lr_factor=LOWER_RATE)
        return (replace(lower, judge=_unless_by_heart(evidence, goal.failed)),) if is_unasked(evidence) else (lower,)
    factors = (LOWER_RATE, MUCH_LOWER_RATE)
    if goal.kind is Kind.DIVERGENCE:
        return tuple(trained(goal.base, ends_lower, lr_factor=factor) for factor in factors)
    if early:
        # Batches that the run has digested break it too, at the full rate only: the failed batch is not to blame.
        other = snapshot_run(run_steps(evidence), other_batch=True)
        # Weights that were seen to grow are a reason of their own; otherwise a run that stands still proves nothing.
        requires = None if inflated(evidence) else _moves
        return tuple(trained(other, requires, lr_factor=factor) for factor in factors)
    # The longer run is for a failure that the shorter one did not bring back; otherwise the shorter ones decide.
    runs = [(snapshot_run(), LOWER_RATE), (snapshot_run(), MUCH_LOWER_RATE), (snapshot_run(LONGER_RUN), LOWER_RATE)]
    return tuple(trained(run, unrest(evidence), lr_factor=factor) for run, factor in runs)
