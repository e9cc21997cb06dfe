"""When a run is taken for one that has learnt nothing."""

import math
import random

import pytest

from nan_callbacks.core import StepObservation
from nan_callbacks.core.stall import AFTER, BEYOND, PATIENCE, StallWatch


def looked_at(losses, rates=None, *, start=0, incidents=(), **more):
    """The steps at which a watch says something."""
    watch, found = StallWatch(), []
    for index, loss in enumerate(losses):
        rate = 1e-3 if rates is None else rates[index]
        seen = StepObservation(step=start + index, loss=loss, grad_norm=1.0, learning_rates=(rate,), **more)
        if watch.observe(seen, incident=index in incidents) is not None:
            found.append(index)
    return found


def noisy(level, steps=400, spread=0.1, seed=0):
    draw = random.Random(seed)
    return [level(step) * (1 + spread * draw.gauss(0, 1)) for step in range(steps)]


def test_a_loss_that_stands_still_is_found_once():
    assert looked_at(noisy(lambda step: 2.3)) == [AFTER - 1]


@pytest.mark.parametrize(
    "level",
    [
        lambda step: 2.3 * math.exp(-step / 300),
        lambda step: 2.3 if step < 100 else 1.2,
        lambda step: 2.3 - 0.0015 * step,
        lambda step: -1.0 - 0.001 * step,
        lambda step: 2.3 + 0.005 * step,
    ],
    ids=["falls", "falls late", "falls slowly", "negative", "rises"],
)
def test_a_run_that_gets_on_is_left_alone(level):
    assert looked_at(noisy(level, spread=0.02)) == []


def test_a_rate_that_is_still_rising_is_waited_for():
    rising = [1e-6 * (1 + step) for step in range(2000)]
    assert looked_at(noisy(lambda step: 2.3, 2000), rising) == [PATIENCE]
    warmed = [1e-3 * min(1.0, (step + 1) / 300) for step in range(2000)]
    assert looked_at(noisy(lambda step: 2.3, 2000), warmed)[0] in range(300, 380)


def test_several_optimizers_and_resumed_runs_have_no_loss_to_compare():
    assert looked_at(noisy(lambda step: 2.3), competing=True) == []
    assert looked_at(noisy(lambda step: 2.3), start=500) == []


def test_dropped_steps_and_incidents_are_no_part_of_it():
    losses = noisy(lambda step: 2.3)
    losses[20] = math.nan
    losses[30] = 1e9
    assert looked_at(losses, incidents={20, 30}) == [AFTER - 1]


def test_a_first_step_that_was_dropped_is_still_the_first():
    losses = [math.inf, *noisy(lambda step: 2.3)]
    assert looked_at(losses, incidents={0}) == [AFTER - 1]


def test_two_windows_share_no_loss():
    losses = [math.nan] * (AFTER - 68) + noisy(lambda step: 2.3, 68)
    assert looked_at(losses) == []


def test_a_run_shorter_than_a_look_is_never_judged():
    assert looked_at(noisy(lambda step: 2.3, AFTER - 1)) == []


@pytest.mark.parametrize(("norm", "found"), [(1e20, [BEYOND - 1]), (1e19, [])])
def test_gradients_whose_squares_overflow_are_found_at_once(norm, found):
    watch = StallWatch()
    seen = [StepObservation(step=step, loss=1e34, grad_norm=norm) for step in range(2 * BEYOND)]
    assert [each.step for each in seen if watch.observe(each) is not None] == found
