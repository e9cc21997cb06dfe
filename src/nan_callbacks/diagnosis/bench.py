"""The bench: runs trials in an adapter's laboratory within a budget, once each, and writes down what came of them."""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nan_callbacks.core.sentences import number
from nan_callbacks.diagnosis.diagnosis import Tried
from nan_callbacks.diagnosis.experiments import Experiment, Judge
from nan_callbacks.diagnosis.goal import Goal, Kind, Measured, is_finite
from nan_callbacks.diagnosis.lab import Lab, Trial, Variation


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a diagnosis may cost."""

    steps: int = 60
    """Steps in the laboratory; a trial of the failed batch alone counts as one. Twice as many for a run that stands
    still: it is looked into when somebody asks, not between two steps, and all of its trials are training runs."""
    seconds: float = 30.0
    """Wall-clock time in the laboratory: what a user waits for once per incident without wondering whether it hangs."""


class Result(enum.Enum):
    """What an experiment says about its hypothesis."""

    CONFIRMED = enum.auto()
    REFUTED = enum.auto()
    """The failure was there in spite of the treatment."""
    UNMOVED = enum.auto()
    """It was there at the same batch, the last one of a training run, as without the treatment: more or less of the
    treatment, or more steps, would show the same."""
    UNSPECIFIC = enum.auto()
    """The failure was gone without the treatment as well, or the runs lacked what the cause would show."""
    UNTESTED = enum.auto()
    """The laboratory could not do it, or the budget did not allow it."""


class Bench:
    """A laboratory, the failure that is looked for in it, and a budget.

    Args:
        lab: Where trials are run.
        goal: The failure.
        budget: What all trials together may cost.
    """

    def __init__(self, lab: Lab, goal: Goal, budget: Budget) -> None:
        self.goal = goal
        self.steps_spent = 0
        self.tried: list[Tried] = []
        self.ran_out = False
        self._lab = lab
        self._seconds = budget.seconds
        self._steps = budget.steps * (2 if goal.kind is Kind.STALL else 1)
        self._trials: dict[Variation, Measured] = {}
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time since the bench was set up."""
        return time.perf_counter() - self._started

    def run(
        self, variation: Variation, *, control: bool = False, again: bool = False, judge: Judge | None = None
    ) -> Measured | None:
        """One trial, taken from memory if it was made before.

        Args:
            variation: What to do differently.
            control: Whether the failure is expected to stay.
            again: Make it once more, even though it was made before.
            judge: Tells whether it failed, for the record; None: the failure of the incident.

        Returns:
            The trial; None if the budget or the laboratory does not allow it.
        """
        if variation in self._trials and not again:
            return self._trials[variation]
        if variation.nudge is not None and not getattr(self._lab, "can_nudge", False):
            return None
        if not self._affords(variation):
            self.ran_out = True
            return None
        measured = Measured(trial=self._spend(variation), before=self._before(variation))
        self._trials[variation] = measured
        self.tried.append(self.in_words(variation, measured, control=control, judge=judge))
        return measured

    def test(self, experiment: Experiment) -> Result:
        """Run an experiment, the controls first: a failure that does not come back cannot be turned off."""
        judge = experiment.judge or self.goal.failed
        controls = []
        for variation in experiment.controls:
            control = self.run(variation, control=True, judge=judge)
            failed = None if control is None else judge(control)
            if control is None or failed is None:
                return Result.UNTESTED
            if not failed:
                return Result.UNSPECIFIC
            controls.append(control)
        treated = self.run(experiment.treatment, judge=judge)
        failed = None if treated is None else judge(treated)
        if treated is None or failed is None:
            return Result.UNTESTED
        if failed:
            return Result.UNMOVED if _failed_alike(treated, controls) else Result.REFUTED
        if any(self._fails(variation, experiment.judge or self.goal.is_up) for variation in experiment.also):
            return Result.REFUTED
        shown = experiment.requires is None or experiment.requires(treated, controls)
        return Result.CONFIRMED if shown else Result.UNSPECIFIC

    def _fails(self, variation: Variation, judge: Judge) -> bool:
        measured = self.run(variation, judge=judge)
        return measured is not None and bool(judge(measured))

    def failed_again(self) -> bool:
        """Whether the failing step, as it was or as a part of a short run, has failed in here."""
        base = self._trials.get(self.goal.base)
        return base is None or self.goal.failed(base) is not False

    def told(self, experiments: tuple[Experiment, ...]) -> tuple[Tried, ...]:
        """The trials of some experiments, in words, in the order treatment, what must do the same, controls."""
        wanted: dict[Variation, tuple[bool, Judge | None]] = {}
        for experiment in experiments:
            for variation in (experiment.treatment, *experiment.also, *experiment.controls):
                wanted[variation] = (variation in experiment.controls, experiment.judge)
        return tuple(
            self.in_words(variation, self._trials[variation], control=is_control, judge=judge)
            for variation, (is_control, judge) in wanted.items()
            if variation in self._trials
        )

    def in_words(
        self, variation: Variation, measured: Measured, *, control: bool = False, judge: Judge | None = None
    ) -> Tried:
        """A trial as the record tells it."""
        failed = (judge or self.goal.failed)(measured)
        outcome, losses = self.goal.outcome(measured), measured.trial.losses
        if variation.then_other and is_finite(measured.trial) and losses:
            outcome = f"the loss of that batch is {number(losses[-1])}"
        still = "still " if failed and outcome.startswith("non-finite") and not variation.steps else ""
        return Tried(what=variation.describe(), outcome=still + outcome, failed=failed, control=control)

    def _spend(self, variation: Variation) -> Trial:
        trial = self._lab.run(variation)
        self.steps_spent += max(1, variation.steps) + variation.then_other if trial.supported else 0
        return trial

    def _before(self, variation: Variation) -> float | None:
        """Loss of the trial's last batch before anything was trained on. Which recent batch stands in is unknown."""
        start = replace(variation, steps=0, lr_factor=1.0, clip_norm=None)
        if variation.steps < 3 or variation.other_batch or variation.then_other or not self._affords(start):
            return None
        if start not in self._trials:
            self._trials[start] = Measured(trial=self._spend(start))
        trial = self._trials[start].trial
        return trial.losses[-1] if trial.supported and trial.losses and is_finite(trial) else None

    def _affords(self, variation: Variation) -> bool:
        steps = max(1, variation.steps)
        wait = self.seconds + steps * max(0.0, self._lab.step_seconds)
        return self.steps_spent + steps <= self._steps and wait <= self._seconds


def _failed_alike(treated: Measured, controls: Sequence[Measured]) -> bool:
    """Whether training runs, treated or not, failed before their first update, or at the last batch and only there."""
    places = {_place_of_failure(each.trial) for each in (treated, *controls)}
    return len(places) == 1 and places <= {0, treated.trial.variation.steps - 1}


def _place_of_failure(trial: Trial) -> int | None:
    if trial.variation.steps <= 2:
        return None
    if trial.raised:
        return len(trial.grad_norms)
    return next((place for place, norm in enumerate(trial.grad_norms) if not math.isfinite(norm)), None)
