"""The experiments: what must turn a failure off if a suspicion is right, and what must not."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nan_callbacks.core.statistics import median
from nan_callbacks.diagnosis.evidence import Evidence
from nan_callbacks.diagnosis.goal import SHORT_RUN, Goal, Kind, Measured, is_calm, is_finite, tail
from nan_callbacks.diagnosis.lab import Start, Trial, Variation

LOWER_RATE = 0.1
"""On the learning rate: the usual distance between one that diverges and one that trains."""

MUCH_LOWER_RATE = 0.01
"""For rates that are a hundred times too high and more, as a unit mistaken in a configuration makes them."""

SHORTEST_RUN = 6
"""Steps below which the first and last third of a loss are too noisy to be compared."""

LONGER_RUN = 20
"""Steps of the second attempt to bring a failure back from the last good state."""

CLEARLY_BETTER = 0.9
"""A treatment of a stall must end below this share of where the untreated run ends."""

UNREST = 2.0
"""Growth of the loss (or, threefold, of the gradient norm) over its usual level that tells an unstable run."""

Requirement = Callable[[Measured, Sequence[Measured]], bool]
Judge = Callable[[Measured], bool | None]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One treatment and its controls."""

    treatment: Variation
    """Must turn the failure off."""
    controls: tuple[Variation, ...]
    """In each of them the failure must be there: otherwise the treatment may have been luck."""
    also: tuple[Variation, ...] = ()
    """Must turn it off as well, as far as the laboratory can do it: otherwise something else is to blame, too."""
    requires: Requirement | None = None
    """What treatment and controls must show besides."""
    judge: Judge | None = None
    """Whether a trial failed, where the failure of the incident cannot tell: a gradient is measured before clipping.
    None: the failure of the incident."""


def without_rows(goal: Goal, rows: Sequence[int], batch_rows: int, *, seed: int = 0) -> tuple[Experiment, ...]:
    """The batch without the suspected rows; the control leaves out as many others, drawn at random.

    On weights that have been thrown far off every batch spikes, and some of its samples make most of the spike: then
    a batch that has passed before spikes as well.

    Args:
        goal: The failure.
        rows: Suspected rows.
        batch_rows: Rows of the batch.
        seed: Of the draw.

    Returns:
        One experiment; none if no other rows would be left.
    """
    suspects = set(rows)
    others = [row for row in range(batch_rows) if row not in suspects]
    if not suspects or not others or goal.base.start is not Start.PRESENT or goal.kind in (Kind.DIVERGENCE, Kind.STALL):
        return ()
    drawn = tuple(sorted(random.Random(seed).sample(others, min(len(suspects), len(others)))))
    controls = [goal.base]
    if len(drawn) < batch_rows:
        controls.append(replace(goal.base, without_rows=drawn))
    treatment = replace(goal.base, without_rows=tuple(sorted(suspects)))
    also = (replace(goal.base, other_batch=True),) if goal.kind is Kind.SPIKE else ()
    return (Experiment(treatment=treatment, controls=tuple(controls), also=also),)


def another_batch(goal: Goal) -> Experiment:
    """Recent batches in place of the failed one."""
    return Experiment(treatment=replace(goal.base, other_batch=True), controls=(goal.base,))


def instead(goal: Goal, *also_fail: Variation, **changes: object) -> Experiment:
    """The failing trial with some changes; the control is the failing trial itself, and what else must fail.

    Args:
        goal: The failure.
        *also_fail: Further controls.
        **changes: Fields of :class:`.Variation`.
    """
    return Experiment(treatment=replace(goal.base, **changes), controls=(goal.base, *also_fail))  # type: ignore[arg-type]


def trained(control: Variation, requires: Requirement | None = None, **changes: object) -> Experiment:
    """A short training run with some changes, against the same run without them.

    Args:
        control: The run that must fail.
        requires: What the two runs must show besides; the treated one must be calm in any case.
        **changes: Fields of :class:`.Variation`.
    """

    def calm(treated: Measured, controls: Sequence[Measured]) -> bool:
        return is_calm(treated) and (requires is None or requires(treated, controls))

    treatment = replace(control, **changes)  # type: ignore[arg-type]
    return Experiment(treatment=treatment, controls=(control,), requires=calm)


def ends_lower(treated: Measured, controls: Sequence[Measured]) -> bool:
    """Whether the treated run ends clearly below every untreated one (a non-finite one counts as high)."""
    trials = [control.trial for control in controls]
    losses = treated.trial.losses
    if not losses:
        return False
    ends = [tail(trial.losses) for trial in trials if is_finite(trial) and trial.losses]
    return all(tail(losses) <= end - (1.0 - CLEARLY_BETTER) * abs(end) for end in ends)


def unrest(evidence: Evidence) -> Requirement:
    """Whether the run was unstable before it failed: in its own history, or in the untreated trial.

    A failure out of the blue, on a loss at its usual level, is not the learning rate's doing, even though a lower
    rate may keep the weights from reaching the place where it happens.
    """

    def shown(treated: Measured, controls: Sequence[Measured]) -> bool:
        return inflated(evidence) or any(_rose(control.trial, evidence) for control in controls)

    return shown


def inflated(evidence: Evidence) -> bool:
    """Whether loss or weights grew in the run's own history.

    The factor for the weights is the divergence detector's ``growth >= 1.8`` for noisy runs.
    """
    norms, losses = evidence.history.param_norms[-4:], evidence.history.losses
    weights = len(norms) >= 2 and norms[-1] > 1.8 * max(min(norms), 1e-12)
    if len(losses) < 9:
        return weights
    usual, last = median(losses[:-3][-64:]), median(losses[-3:])
    return weights or (usual > 0 and last > UNREST * usual)


def growth(evidence: Evidence) -> float:
    """The norm of the weights over that of the oldest step that is remembered; 1 if it is not known."""
    norms = [each for each in (*evidence.history.param_norms, evidence.seen.param_norm) if each is not None]
    grown = max(norms[1:]) / norms[0] if len(norms) > 1 and norms[0] > 0.0 else 1.0
    return grown if 0.0 < grown < math.inf else 1.0


def run_steps(evidence: Evidence) -> int:
    """Steps of a training trial: of a run that failed early, a few more than it made, so that more trials fit in."""
    made = max(len(evidence.history.losses), len(evidence.history.grad_norms))
    return min(SHORT_RUN, max(SHORTEST_RUN, made + SHORTEST_RUN // 2))


def snapshot_run(steps: int = SHORT_RUN, **changes: object) -> Variation:
    """A short training run from the last good state."""
    return replace(Variation(start=Start.SNAPSHOT, steps=steps), **changes)  # type: ignore[arg-type]


def fresh_run(steps: int = SHORT_RUN, **changes: object) -> Variation:
    """A short training run from fresh weights."""
    return replace(Variation(start=Start.FRESH, steps=steps), **changes)  # type: ignore[arg-type]


def _rose(trial: Trial, evidence: Evidence) -> bool:
    losses = _finite_prefix(trial.losses)
    norms = _finite_prefix(trial.grad_norms)
    history = evidence.history
    # Two steps above the level, not one: the step that fails may be the only one that is unusual.
    return _twice_above(losses, history.usual_loss, UNREST) or _twice_above(norms, history.usual_norm, 3 * UNREST)


def _twice_above(values: Sequence[float], usual: float | None, ratio: float) -> bool:
    if len(values) < 3:
        return False
    level = values[0] if usual is None else min(usual, values[0])
    return level > 0 and sum(value > ratio * level for value in values) >= 2


def _finite_prefix(values: Sequence[float]) -> Sequence[float]:
    finite = [value - value == 0 for value in values]
    return values[: finite.index(False)] if False in finite else values
