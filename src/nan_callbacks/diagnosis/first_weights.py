"""Whether a run was ruined in its first steps: a few steps from its first weights, at a lower rate, do better."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from statistics import fmean

from nan_callbacks.core.observation import StepObservation
from nan_callbacks.core.start import BetterStart
from nan_callbacks.diagnosis.evidence import History
from nan_callbacks.diagnosis.lab import Half, Lab, Start, Variation
from nan_callbacks.diagnosis.rate_trials import STEPS, led_to

LONG = 96
"""Of a trial that has begun to learn in :data:`STEPS` without having come far: recurrent nets over long sequences."""

CUTS = (0.125, 1 / 64)
"""Factors tried on the largest rate of the run, the mildest first. How deep the cut is in the end other trials say."""

CLEARLY = 0.8
"""Mean loss over another one below which it is clearly lower. In the runs of ``benchmarks/faults`` at the right rate 24
steps from the first weights end at twice the loss of 200 steps, or more; of a run that was ruined at half of it."""

EACH = 0.9
"""The same of every single batch that was held out, and of the mean beside the same steps at the full rate: at the rate
that a healthy run needs these are the better ones."""

BEGUN = 0.97
"""Mean loss over that of the first weights below which a trial has begun to learn: noise that cannot be learnt leaves
batches that were not trained on where they were, or higher."""

WITHIN_REACH = 1.1
"""Mean loss over that of the present weights from which a longer trial has too far to go."""

FEWEST_BATCHES = 6
FEWEST_ROWS = 64
"""Batches in all, or rows in the smaller half, from which it is no chance that each is lower."""

SECONDS = 20.0
"""What the trials of one question may take."""

IN_VAIN = 0.5
"""Share of them that the first trials may take, which are all that most runs get."""


class OutOfTimeError(Exception):
    """The trials take too long."""


class Trials:
    """The trials of one question.

    Args:
        lab: Of the step, its last good snapshot that of the first weights.
        rate: Share of the present rate that stands for the full one.
    """

    def __init__(self, lab: Lab, rate: float) -> None:
        self._lab, self._rate = lab, rate
        self._until = time.perf_counter() + SECONDS

    def present(self, half: Half) -> tuple[float, ...]:
        """With the present weights."""
        return self._measured(Variation(held_out=half))

    def first(self, half: Half) -> tuple[float, ...]:
        """With the first weights as they are."""
        return self._measured(Variation(start=Start.TRAINED, held_out=half))

    def after(self, half: Half, cut: float, steps: int = STEPS) -> tuple[float, ...]:
        """After some steps from the first weights on the other half; nothing if they overflow."""
        factor = cut * self._rate
        return self._measured(Variation(start=Start.TRAINED, steps=steps, lr_factor=factor, held_out=half))

    def _measured(self, variation: Variation) -> tuple[float, ...]:
        if time.perf_counter() > self._until:
            raise OutOfTimeError
        trial = self._lab.run(variation)
        if not trial.supported or trial.raised or not all(map(math.isfinite, trial.held_out)):
            return ()
        return trial.held_out


def better_start(lab: Lab, history: History, seen: StepObservation) -> BetterStart | None:
    """What a few steps from the first weights achieve at a lower rate, if that is clearly better than all else.

    Better than the present weights, on batches that were not trained on: else noise would be learnt by heart. Better
    than the first weights: else another loss would do. Better than the same steps at the full rate: else the rate is
    not at fault. All that with either half of the batches, and for each single batch.

    Args:
        lab: Of the step, its last good snapshot that of the first weights.
        history: The run so far.
        seen: The step.
    """
    if len(CUTS) * STEPS * lab.step_seconds > IN_VAIN * SECONDS:
        return None
    rates = (*history.learning_rates, *seen.learning_rates[:1])
    # A schedule goes back to its beginning as well, and will lead to its peak again.
    trials = Trials(lab, max(led_to(rates)) / rates[-1] if rates and rates[-1] > 0.0 else 1.0)
    try:
        return _better_start(trials, lab.rows)
    except OutOfTimeError:
        return None


def _better_start(trials: Trials, rows: int) -> BetterStart | None:
    present = {half: trials.present(half) for half in Half}
    counts = [len(losses) for losses in present.values()]
    if not all(counts) or (sum(counts) < FEWEST_BATCHES and rows * min(counts) < FEWEST_ROWS):
        return None
    if min(map(min, present.values())) <= 0.0:  # a ratio means nothing
        return None
    found = _promising(trials, present[Half.NEWER])
    if found is None:
        return None
    cut, steps = found
    reached, full = [], []
    for half in (Half.NEWER, Half.OLDER):
        after = trials.after(half, cut, steps)
        if not (_is_lower(after, present[half]) and _is_lower(after, trials.first(half))):
            return None
        control = trials.after(half, 1.0, steps)
        if control and not _is_lower(after, control, each=1.0, mean=EACH):
            return None
        reached.append(fmean(after))
        full.append(fmean(control) if control else math.inf)
    there = fmean(map(fmean, present.values()))
    return BetterStart(cut=cut, steps=steps, reached=fmean(reached), at_this_rate=fmean(full), present=there)


def _promising(trials: Trials, present: Sequence[float]) -> tuple[float, int] | None:
    """A cut, and the steps after which it is clearly better than the present weights."""
    begun: dict[float, float] = {}
    for cut in CUTS:
        after = trials.after(Half.NEWER, cut)
        if _is_lower(after, present):
            return cut, STEPS
        learns = _is_lower(after, trials.first(Half.NEWER), each=1.0, mean=BEGUN)
        if learns and fmean(after) < WITHIN_REACH * fmean(present):
            begun[cut] = fmean(after)
    for cut in sorted(begun, key=lambda each: begun[each]):
        if _is_lower(trials.after(Half.NEWER, cut, LONG), present):
            return cut, LONG
    return None


def _is_lower(losses: Sequence[float], others: Sequence[float], *, each: float = EACH, mean: float = CLEARLY) -> bool:
    """Whether losses are clearly below others of the same batches: on average, and each."""
    if not losses or len(losses) != len(others) or min(*losses, *others) <= 0.0:
        return False
    all_lower = all(one < each * other for one, other in zip(losses, others, strict=True))
    return all_lower and fmean(losses) < mean * fmean(others)
