"""How deep a cut of the learning rate must be: short runs from the state to go back to, at several rates.

The idea is that of the learning-rate range test (Smith 2017, "Cyclical learning rates"), asked of the run's own state
and batches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

from nan_callbacks.core.observation import StepObservation
from nan_callbacks.diagnosis.evidence import History
from nan_callbacks.diagnosis.goal import STALL, is_finite, tail
from nan_callbacks.diagnosis.lab import Lab, Start, Trial, Variation

STEPS = 24
"""Of one trial. On the learning-rate faults of ``benchmarks/faults`` the end of 24 steps has one lowest point over
the rates; after 12 a transformer at 15 times its rate ends within a tenth of what it does at 4 times."""

DEEPER = 0.25
"""From one rate to the next. Rates within fourfold of each other train about as well in these runs."""

MOST = 6
"""Rates tried: a thousandth of the first, as far as four rollbacks of the ladder go."""

CLEARLY = 0.9
"""Share of an end below which a lower rate is better for certain. Once a run has trained, a lower rate ends slightly
higher in all of ``benchmarks/faults``; before, the best rate ends at two thirds of what four times it does, or less."""

GRADUALLY = 2.0
"""Growth of the rate from one step to the next up to which a schedule has led there, and will again."""

ENOUGH = 2
"""Rates at which everything goes well until the failed batch, which breaks: it does so at any."""

SECONDS = 30.0
"""What the trials of one rollback may take. Larger models keep the cut of the ladder."""


def cut_by_trials(lab: Lab, cut: float, history: History, seen: StepObservation) -> float:
    """The cut after which the run trains best from the state that it goes back to.

    Args:
        lab: Of the step, its last good state the one to go back to.
        cut: The cut that is meant, in (0, 1); the result is never milder.
        history: The run so far. A rate that one step has multiplied is not expected again.
        seen: The step.

    Returns:
        The cut: ``cut`` itself unless a deeper one ends clearly lower and brings the loss down.
    """
    usual = _reached((*history.learning_rates, *seen.learning_rates[:1]))
    if STEPS * lab.step_seconds > SECONDS / 2:
        return cut
    began = time.perf_counter()
    best, best_end, brings_down, to_blame = cut, math.inf, False, 0
    for power in range(MOST):
        tried = cut * DEEPER**power
        trial = lab.run(Variation(start=Start.SNAPSHOT, steps=STEPS, lr_factor=tried * usual))
        if not trial.supported:
            return cut
        end = _end(trial)
        if power == 0 or _clearly_lower(end, best_end):
            best, best_end, brings_down = tried, end, _brings_down(trial)
        elif brings_down and end > best_end:
            break
        to_blame += _breaks_at_the_failed_batch(trial)
        if to_blame == ENOUGH or time.perf_counter() - began > SECONDS:
            break
    return best if brings_down else cut


def _reached(rates: Sequence[float]) -> float:
    """The largest share of the last rate that the run came to step by step."""
    return led_to(rates)[-1] / rates[-1] if rates and rates[-1] > 0.0 else 1.0


def led_to(rates: Sequence[float]) -> list[float]:
    """The rates of a run, without those that one step has multiplied.

    Args:
        rates: Oldest first.
    """
    levels: list[float] = []
    for rate in rates:
        gradual = not levels or rate <= GRADUALLY * levels[-1] or levels[-1] == 0.0
        levels.append(rate if gradual else levels[-1])
    return levels


def _end(trial: Trial) -> float:
    return tail(trial.losses) if is_finite(trial) and trial.losses else math.inf


def _clearly_lower(end: float, best: float) -> bool:
    if not math.isfinite(best):
        return math.isfinite(end)
    return end < best - (1.0 - CLEARLY) * abs(best)


def _breaks_at_the_failed_batch(trial: Trial) -> bool:
    """Whether the last step was the first that is not finite: the failed batch comes last."""
    before = replace(trial, losses=trial.losses[:-1], grad_norms=trial.grad_norms[: STEPS - 1], parameters_finite=True)
    return not trial.raised and not is_finite(trial) and len(trial.losses) == STEPS and is_finite(before)


def _brings_down(trial: Trial) -> bool:
    """Whether the loss ends below what it began with, by more than a lull."""
    start, end = trial.losses[0] if trial.losses else math.nan, _end(trial)
    return end < start - (1.0 - STALL) * abs(start)
