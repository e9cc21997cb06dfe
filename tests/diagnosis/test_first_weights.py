"""When it is proved that the first weights do better at a lower rate, and all the cases in which it is not."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from nan_callbacks.core import StepObservation
from nan_callbacks.diagnosis import first_weights
from nan_callbacks.diagnosis.evidence import History
from nan_callbacks.diagnosis.first_weights import LONG, STEPS, better_start
from nan_callbacks.diagnosis.lab import Half, Start, Trial, Variation

CHANCE = 2.3

BATCHES = [1.0, 1.02, 0.97, 1.01, 0.99, 1.0, 1.03, 0.98, 1.0]
"""How hard each is."""


@dataclass
class Ruined:
    """A laboratory of which losses are known: a run at chance, whose first weights learn at an eighth of the rate."""

    present: float = CHANCE
    first: float = CHANCE
    after: Callable[[float, int], float] = lambda rate, steps: 0.4 if rate <= 0.2 else CHANCE
    by_batch: Callable[[Variation, int], float] = lambda variation, index: 1.0
    batches: int = len(BATCHES)
    rows: int = 32
    step_seconds: float = 0.0
    supported: bool = True
    ran: list[Variation] = field(default_factory=list)

    def run(self, variation: Variation) -> Trial:
        self.ran.append(variation)
        level = self.present if variation.start is Start.PRESENT else self.first
        if variation.steps:
            level = self.after(variation.lr_factor, variation.steps)
        places = variation.held_out.places(self.batches)[1]
        losses = [level * BATCHES[i % len(BATCHES)] * self.by_batch(variation, i) for i in places]
        return Trial(variation=variation, supported=self.supported, held_out=tuple(losses) if level < math.inf else ())


def answer(lab, *rates):
    rates = rates or (0.1,)
    seen = StepObservation(step=199, loss=CHANCE, learning_rates=(rates[-1],))
    return better_start(lab, History(learning_rates=rates[:-1]), seen)


def test_a_ruined_run_is_proved_with_either_half_of_the_batches():
    lab = Ruined()
    found = answer(lab)
    assert (found.cut, found.steps) == (0.125, STEPS)
    assert found.reached == pytest.approx(0.4, rel=0.02)
    assert (found.present, found.at_this_rate) == (pytest.approx(CHANCE, rel=0.02), pytest.approx(CHANCE, rel=0.02))
    assert {each.held_out for each in lab.ran} == set(Half)


def test_a_deeper_cut_is_tried_if_the_milder_one_fails():
    assert answer(Ruined(after=lambda rate, steps: 0.4 if rate < 0.1 else CHANCE)).cut == 1 / 64


def test_the_full_rate_may_overflow():
    assert answer(Ruined(after=lambda rate, steps: 0.4 if rate <= 0.2 else math.inf)).at_this_rate == math.inf


def test_what_has_begun_to_learn_is_given_longer():
    def slowly(rate, steps):
        return (1.2 if steps == LONG else 2.1) if rate <= 0.2 else CHANCE

    assert answer(Ruined(after=slowly)).steps == LONG


def only_in_the_older_half(variation, index):
    return 8.0 if variation.steps and variation.held_out is Half.OLDER and variation.lr_factor < 1 else 1.0


@pytest.mark.parametrize(
    "lab",
    [
        Ruined(after=lambda rate, steps: CHANCE),
        Ruined(after=lambda rate, steps: 0.4),
        Ruined(present=0.45, first=CHANCE),
        Ruined(first=0.45),
        Ruined(after=lambda rate, steps: 2.1 if rate <= 0.2 else CHANCE),
        Ruined(by_batch=lambda variation, index: 6.0 if variation.steps and index == 7 else 1.0),
        Ruined(by_batch=only_in_the_older_half),
        Ruined(by_batch=lambda variation, index: -1.0),
        Ruined(supported=False),
        Ruined(batches=1),
        Ruined(batches=4, rows=2),
        Ruined(step_seconds=1.0),
    ],
    ids=[
        "nothing is learnt at any rate",
        "it is at the full rate as well",
        "the run has come as far",
        "the first weights know it already",
        "it is little better, however long",
        "one batch speaks against it",
        "the other half speaks against it",
        "losses below zero",
        "it cannot be tried",
        "there is nothing to train on",
        "so few samples are chance",
        "it would take too long",
    ],
)
def test_without_a_clear_proof_there_is_none(lab):
    assert answer(lab) is None


def test_a_few_large_batches_are_enough():
    assert answer(Ruined(batches=3, rows=64)) is not None


def test_trials_end_when_their_time_is_over(monkeypatch):
    monkeypatch.setattr(first_weights, "SECONDS", -1.0)
    assert answer(Ruined()) is None


def test_the_full_rate_is_the_largest_that_the_run_came_to():
    lab = Ruined(after=lambda rate, steps: 0.4 if rate < 1.0 else CHANCE)
    answer(lab, 0.4, 0.3, 0.2, 0.1)
    assert {each.lr_factor for each in lab.ran if each.steps} == {0.5, 4.0}
