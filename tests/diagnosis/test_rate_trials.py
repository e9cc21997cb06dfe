"""How deep a cut must be: descents into a bowl, whose best rate is known."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from nan_callbacks.core import StepObservation
from nan_callbacks.diagnosis.evidence import History
from nan_callbacks.diagnosis.lab import Start, Trial, Variation
from nan_callbacks.diagnosis.rate_trials import STEPS, cut_by_trials


@dataclass
class Bowl:
    """Descent on x² / 2 + floor, which diverges at rates above 2 and is fastest at 1; a laboratory as far as needed."""

    rate: float
    floor: float = 0.01
    start: float = 1.0
    step_seconds: float = 0.0
    supported: bool = True
    broken: bool = False
    breaks_at_the_end: bool | Callable[[float], bool] = False
    ran: list[Variation] = field(default_factory=list)

    def run(self, variation: Variation) -> Trial:
        self.ran.append(variation)
        place, losses = self.start, []
        for _ in range(variation.steps):
            losses.append(place * place / 2 + self.floor)
            place *= 1.0 - self.rate * variation.lr_factor
        if self.broken:
            losses[3:] = [math.nan]
        ends = self.breaks_at_the_end
        if ends(self.rate * variation.lr_factor) if callable(ends) else ends:
            losses[-1] = math.inf
        return Trial(variation=variation, supported=self.supported, losses=tuple(losses))


def cut_for(bowl: Bowl, *rates: float, cut: float = 0.5) -> float:
    seen = StepObservation(step=len(rates), learning_rates=(rates[-1],) if rates else ())
    return cut_by_trials(bowl, cut, History(learning_rates=rates[:-1]), seen)


@pytest.mark.parametrize(("rate", "expected"), [(8, 0.125), (30, 0.03125), (1000, 2**-11)])
def test_a_rate_far_too_high_is_cut_to_one_that_trains(rate, expected):
    assert cut_for(Bowl(rate)) == expected


@pytest.mark.parametrize("rate", [0.01, 0.5, 2.0, 3.0])
def test_the_cut_that_is_meant_is_kept_if_a_deeper_one_ends_no_lower(rate):
    bowl = Bowl(rate)
    assert cut_for(bowl) == 0.5
    assert len(bowl.ran) == 2
    assert {(each.start, each.steps) for each in bowl.ran} == {(Start.SNAPSHOT, STEPS)}


@pytest.mark.parametrize(
    "bowl",
    [Bowl(0.5, broken=True), Bowl(0.5, supported=False), Bowl(0.5, start=0.0), Bowl(0.5, step_seconds=100.0)],
    ids=["it breaks at every rate", "it cannot be tried", "nothing is left to learn", "it would take too long"],
)
def test_a_cut_that_cannot_be_judged_is_kept(bowl):
    assert cut_for(bowl) == 0.5


def test_a_batch_that_breaks_at_any_rate_is_not_tried_at_all_of_them():
    bowl = Bowl(0.5, breaks_at_the_end=True)
    assert cut_for(bowl) == 0.5
    assert len(bowl.ran) == 2


def test_a_rate_at_which_the_failed_batch_alone_breaks_may_still_be_too_high():
    bowl = Bowl(30, breaks_at_the_end=lambda rate: rate > 4.0)
    assert cut_for(bowl) == 0.03125


def test_losses_below_zero_are_told_apart_as_well():
    assert cut_for(Bowl(30, floor=-5.0)) == 0.03125


def test_a_rate_that_jumped_is_not_expected_again_but_one_that_was_led_there_is():
    after_a_jump, after_a_warm_up = Bowl(100.0), Bowl(100.0)
    cut_for(after_a_jump, 1.0, 1.0, 1.0, 100.0)
    cut_for(after_a_warm_up, 0.0, 25.0, 50.0, 75.0, 100.0)
    assert after_a_jump.ran[0].lr_factor == pytest.approx(0.005)
    assert after_a_warm_up.ran[0].lr_factor == pytest.approx(0.5)
