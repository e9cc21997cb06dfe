"""A start that blows up is taken back; a start that is merely wild is not."""

import math

import pytest

from nan_callbacks.core import StepObservation
from nan_callbacks.core.detectors.blow_up import FIRST_STEPS, BlowUpDetector


def found(losses, norms, **about):
    detector = BlowUpDetector()
    steps = [
        StepObservation(step=step, loss=loss, grad_norm=1.0, param_norm=norm, **about)
        for step, (loss, norm) in enumerate(zip(losses, norms, strict=True))
    ]
    return [finding for step in steps for finding in detector.update(step)]


def test_weights_and_loss_that_explode_together():
    # Pixels from 0 to 255 into a plain net: what follows is finite, calm and dead.
    (finding,) = found([1.1e3, 1.7e6, 0.6, 0.4], [5.0, 12.7, 12.6, 12.6])

    assert (finding.code, finding.step) == ("LOSS402", 1)
    assert "grown 2.54-fold" in finding.detail


@pytest.mark.parametrize(
    ("losses", "norms"),
    [
        ([0.001, 55.0, 0.3], [10.0, 10.0, 10.0]),  # single samples: the first error was small by chance
        ([2.3, 1.9, 1.2, 0.8], [1.0, 3.0, 9.0, 20.0]),  # weights that grow because they learn
        ([2.3, 5.0, 9.0], [1.0, 3.0, 9.0]),  # not enough to tell it from a lively start
        ([-0.1, 50.0, 60.0], [1.0, 3.0, 9.0]),  # of a loss around zero a ratio says nothing
        ([0.0, 50.0, 60.0], [1.0, 3.0, 9.0]),
        ([1.0, math.nan, math.inf], [1.0, 9.0, 9.0]),  # somebody else's symptom
    ],
)
def test_other_starts(losses, norms):
    assert found(losses, norms) == []


def test_only_the_start_is_judged():
    steps = FIRST_STEPS + 3
    assert found([1.0] * steps + [1e6], [1.0] * steps + [100.0]) == []


def test_adversaries_are_not_judged():
    assert found([1.0, 1e6], [1.0, 100.0], competing=True) == []


def test_what_never_reached_the_weights_is_not_judged():
    assert found([1.0, 1e6], [1.0, 100.0], applied=False) == []


def test_weights_that_begin_at_zero_may_grow_from_nothing():
    # A linear model that starts at zero: growth says nothing, and single samples make the loss what they will.
    assert found([0.01, 0.4, 3.0, 0.2], [0.0, 0.3, 0.5, 0.6]) == []


def test_what_the_loss_reached_on_weights_as_they_were_is_no_explosion():
    assert found([0.02, 4.0, 12.0], [1.0, 1.1, 2.5]) == []


def test_the_start_ends_even_if_its_steps_are_dropped():
    detector = BlowUpDetector()
    for step in range(FIRST_STEPS + 1):
        applied = step == 0
        detector.update(StepObservation(step=step, loss=1.0, grad_norm=1.0, param_norm=1.0, applied=applied))

    assert detector.update(StepObservation(step=40, loss=1e6, grad_norm=1.0, param_norm=100.0)) == []
