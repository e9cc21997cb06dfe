"""Suspicions that something was changed from one step to the next: the data, what is asked of them, or the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nan_callbacks.core.sentences import number
from nan_callbacks.core.statistics import median
from nan_callbacks.diagnosis.evidence import BatchPart, Evidence, Role
from nan_callbacks.diagnosis.experiments import Experiment, inflated, instead
from nan_callbacks.diagnosis.goal import Goal, Kind, Measured
from nan_callbacks.diagnosis.hypotheses.hypothesis import Hypothesis, batch_rows, is_early
from nan_callbacks.diagnosis.lab import Start, Variation
from nan_callbacks.diagnosis.weights_at_fault import FAR_LESS

PEAK = 5.0
"""Largest learning rate over the usual one from which it may have thrown the weights: as for one that has risen."""

MOVED = 0.5
"""Share of a batch's rows outside of all that came before from which the batch as a whole has moved: the majority."""


RESCALED = 2.0
"""Factor on the spread of the inputs from which they are on another scale: bringing them back is worth a trial."""


def has_moved(part: BatchPart) -> bool:
    """Whether most rows lie outside of what recent batches held, or held until lately."""
    return max(part.moved_share, part.moved_lately) > MOVED


def changed_data(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """DATA512: most samples of a batch lie outside of everything before them, and any half of them fails."""
    moved = [part for part in evidence.batch if has_moved(part) and part.role is not Role.WEIGHT]
    rows = batch_rows(evidence)
    if goal.kind is Kind.NON_FINITE:  # an edge is met by ordinary numbers too; what overflows is large
        moved = [part for part in moved if len(part.outlier_rows) > MOVED * rows]
    failing = goal.kind in (Kind.SPIKE, Kind.NON_FINITE)
    if not failing or not moved or goal.base.start is not Start.PRESENT:
        return None
    few = evidence.guilty_rows and 2 * len(evidence.guilty_rows) <= rows
    half = replace(goal.base, only_rows=tuple(range(0, rows, 2)))
    whole = Experiment(treatment=replace(goal.base, other_batch=True), controls=(goal.base, half))
    experiments: tuple[Experiment, ...] = (whole,)
    if few:
        # The change of all samples is the cause of what a few of them make if it is gone without the change, or if the
        # others are far above the usual as well.
        others = replace(goal.base, without_rows=evidence.guilty_rows)
        experiments = (*_scaled_back(moved, goal), replace(whole, controls=(goal.base, others), judge=goal.is_up))
    because = tuple(_how(part) for part in moved)
    return Hypothesis(code="DATA512", score=0.755, because=because, experiments=experiments, needs_proof=True)


def _scaled_back(moved: Sequence[BatchPart], goal: Goal) -> tuple[Experiment, ...]:
    """The failed batch with its inputs on the scale that they had before."""
    inputs = [part for part in moved if part.role is not Role.TARGET and part.std and part.former_std]
    factors = [part.former_std / part.std for part in inputs if part.former_std and part.std]
    scales = [factor for factor in factors if not 1.0 / RESCALED <= factor <= RESCALED]
    return tuple(instead(goal, input_scale=scale) for scale in scales[:1])


def changed_loss(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """LOSS405: a batch that had passed spikes as well, with weights that had been good: the loss is another one."""
    if goal.kind is not Kind.SPIKE or goal.base.start is not Start.PRESENT or is_early(evidence) or inflated(evidence):
        return None

    def ordinary(measured: Measured) -> bool | None:
        """Whether it is what the other causes would have it: a spike now, none with a good batch and good weights."""
        failed = goal.is_up(measured)
        good = measured.trial.variation.start is Start.WEIGHTS
        return None if failed is None else failed is not good

    now, before = _with_another_batch(goal)
    because = (
        "a batch that has passed before spikes as well now, with the present weights and with the last good ones: "
        "neither this batch nor the weights are to blame, but what the loss is made of",
    )
    return Hypothesis(
        code="LOSS405",
        score=0.77,
        because=because,
        experiments=(Experiment(treatment=before, controls=(goal.base, now), judge=ordinary),),
        needs_proof=True,
    )


def thrown_weights(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """OPT609, or OPT601 if the rate has peaked: a batch that had passed spikes, but not with the last good weights."""
    rates = evidence.history.learning_rates
    peak, usual = max(rates, default=0.0), median(rates) if rates else 0.0
    peaked = peak > PEAK * usual > 0.0
    if goal.kind is not Kind.SPIKE or goal.base.start is not Start.PRESENT or is_early(evidence):
        return None
    if inflated(evidence) and not peaked:
        return None
    now, before = _with_another_batch(goal)
    because = [
        "a batch that has passed before spikes as well now, and does not with the last good weights: not this batch is "
        "to blame, but what has happened to the weights since"
    ]
    if peaked:
        because.append(f"the learning rate has been {number(peak)}, {number(usual)} is usual")
    return Hypothesis(
        code="OPT601" if peaked else "OPT609",
        # What throws weights without a peak of the rate may still be a rate that is too high: that is tried before.
        score=0.79 if peaked else 0.29,
        because=tuple(because),
        experiments=(Experiment(treatment=before, controls=(goal.base, now), requires=_costs_less, judge=goal.is_up),),
        needs_proof=True,
    )


def _costs_less(treated: Measured, controls: Sequence[Measured]) -> bool:
    """Whether the batch costs far less with the last good weights than with the present ones, the last control.

    A gradient that grows while the loss falls is that of a loss with a pole: the weights are where it leads them.
    """
    before, now = treated.trial.losses, controls[-1].trial.losses
    if not before or not now:
        return False
    return before[-1] < now[-1] * (FAR_LESS if before[-1] > 0.0 else 1.0)


def _with_another_batch(goal: Goal) -> tuple[Variation, Variation]:
    """A batch that has passed, with the present weights and with the last good ones."""
    now = replace(goal.base, other_batch=True)
    return now, replace(now, start=Start.WEIGHTS)


def _how(part: BatchPart) -> str:
    share = number(100 * max(part.moved_share, part.moved_lately))
    name = part.failed.name or part.role.value
    until = "in the recent batches" if part.moved_share > MOVED else "in the batches before it but for the last few"
    outside = f"{share} % of the samples of {name} lie outside of anything {until}"
    if part.mean is None or part.recent_mean is None:
        return outside
    now = f"mean {number(part.mean)} and standard deviation {number(part.std)}"
    return f"{outside}: {now}, before {number(part.recent_mean)} and {number(part.recent_std)}"
