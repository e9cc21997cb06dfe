"""Is the failure there again? Without that, nothing can be turned off, and hardware or chance come into question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from nan_callbacks.core.sentences import number
from nan_callbacks.diagnosis.bench import Bench
from nan_callbacks.diagnosis.evidence import Evidence
from nan_callbacks.diagnosis.goal import end_over_start, head, tail
from nan_callbacks.diagnosis.lab import Start, Trial, Variation

RECENTLY = 64
"""Steps of the history that tell whether the loss is falling."""

FALLEN = 0.8
"""Mean of the last third of these losses over that of the first third, below which it is (beyond noise)."""

CLEAR_TREND = 4.0
"""Standard errors between the means of the first and the last third of these losses, above which a slow fall is one."""

LEARNT = 0.3
"""Loss over that of fresh weights up to which a model that stands still counts as trained, whatever its layers show."""

UNTRAINED = 0.9
"""Loss over that of fresh weights from which a model counts as untrained. In between it may be either: then the losses
of the whole run tell, if they are known, by the same measure."""

NO_BETTER = 0.95
"""Loss over that of the best constant prediction from which a model has learnt nothing of its inputs."""

FEWEST = 24
"""Losses of a run that tell whether it has learnt: thirds of 8."""


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What came of trying the failing step again."""

    happened: bool = True
    """Whether the failure was there again, or could not be looked for."""
    differs: bool = False
    """Whether two repeats of the same step from the same state gave different results."""
    because: tuple[str, ...] = ()
    """If it did not happen: sentences for the verdict."""


@dataclass(frozen=True, kw_only=True)
class Standstill:
    """Whether a model that is to be diagnosed without a failed step stands still at all."""

    note: str = ""
    """Why there is nothing to diagnose; empty if it stands still."""
    untrained: bool = False
    """Whether it is no better than fresh weights."""
    slow: bool = False
    """Whether its loss falls, but so slowly that a mistake which was seen may hold it back."""


def reproduce(bench: Bench, evidence: Evidence) -> Reproduction:
    """Run the same step again, and once more if it did not fail.

    Args:
        bench: Set up for the failure.
        evidence: Of the incident.
    """
    base = bench.goal.base
    first = bench.run(base, control=True)
    failed = None if first is None else bench.goal.failed(first)
    if first is None or failed is None or failed or base.start is not Start.PRESENT:
        return Reproduction()
    second = bench.run(base, control=True, again=True)
    if second is None or bench.goal.failed(second) is None:
        return Reproduction(happened=False, because=("the same step, run again, did not fail",))
    if not same_result(first.trial, second.trial) or bench.goal.failed(second):
        because = "the same step from the same state gave different results when it was run twice"
        return Reproduction(happened=False, differs=True, because=(because,))
    because_twice = ["the same step from the same state was run twice and did not fail"]
    if evidence.replay is not None and evidence.replay.reproduced:
        because_twice.append("the traced replay did fail: the way in which the step is executed matters")
    return Reproduction(happened=False, because=tuple(because_twice))


def same_result(first: Trial, second: Trial) -> bool:
    """Whether two trials gave the same numbers, bit for bit; two NaNs are the same."""
    ours = (*first.losses, *first.grad_norms)
    theirs = (*second.losses, *second.grad_norms)
    return len(ours) == len(theirs) and all(
        one == other or (math.isnan(one) and math.isnan(other)) for one, other in zip(ours, theirs, strict=True)
    )


def standstill(bench: Bench, evidence: Evidence) -> Standstill:
    """Tell a model that does not learn from one that does, and from one that has learnt.

    Args:
        bench: Set up for a stall.
        evidence: Of the run.
    """
    losses = evidence.history.losses[-RECENTLY:]
    clearly = len(losses) == RECENTLY and end_over_start(losses) < FALLEN
    constant = evidence.constant_loss
    learnt_nothing = constant is not None and bool(losses) and tail(losses) > NO_BETTER * constant
    slowly = len(losses) == RECENTLY and _falls_slowly(losses)
    # What falls slowly, and somebody asks why it does, may still be on its way to where it could have begun.
    if clearly or (slowly and not (learnt_nothing and not is_unasked(evidence))):
        said = f"from {number(head(losses))} to {number(tail(losses))} over {len(losses)} steps"
        return Standstill(note=f"Nothing to diagnose: the loss is falling, {said}.", slow=not clearly)
    history = evidence.history
    never_fell = history.from_start and len(history.losses) >= FEWEST and end_over_start(history.losses) > UNTRAINED
    run = bench.run(bench.goal.base, control=True)
    # The few batches of a trial come round again and can be learnt by heart: the run itself knows better.
    if run is not None and bench.goal.failed(run) is False and not never_fell:
        return Standstill(note="Nothing to diagnose: the loss falls when the recent batches are trained on.")
    present, fresh = bench.run(Variation(), control=True), bench.run(Variation(start=Start.FRESH), control=True)
    ours = present.trial.losses if present is not None else ()
    theirs = fresh.trial.losses if fresh is not None else ()
    if not ours or not theirs or not theirs[0] > 0:
        return Standstill()
    ratio = ours[0] / theirs[0]
    if constant is not None and tail(losses or ours) > NO_BETTER * constant:
        return Standstill(untrained=True)  # fresh weights may be worse than nothing
    if ratio < LEARNT:
        said = f"the loss is {number(ours[0])}, that of fresh weights {number(theirs[0])}"
        return Standstill(note=f"Nothing to diagnose: the loss stands still because the model has learnt; {said}.")
    # A run that was begun with trained weights has nothing to fall from.
    believed = never_fell and not is_unasked(evidence)
    return Standstill(untrained=believed or not ratio < UNTRAINED)


def is_unasked(evidence: Evidence) -> bool:
    """Whether the guard itself looks into a run that stands still, not somebody who knows that it should not."""
    return any(finding.code == "LOSS406" for finding in evidence.findings)


def _falls_slowly(losses: Sequence[float]) -> bool:
    """Whether the loss falls by more than its noise explains, and by a hundredth at least."""
    third = len(losses) // 3
    first, last = losses[:third], losses[-third:]
    error = math.sqrt((variance(first) + variance(last)) / third)
    fall = fmean(first) - fmean(last)
    return fall > CLEAR_TREND * error and fall > 0.01 * abs(fmean(first))
