"""Spikes in a row and divergence: trials may clear the weights, and then the data are taken as they are."""

import math

import pytest

from nan_callbacks.core import Action
from tests.core.simulated_run import SimulatedRun

SKIP, ROLLBACK, OBSERVE = Action.SKIP_STEP, Action.ROLLBACK, Action.OBSERVE


def cleared(steps: int = 160) -> SimulatedRun:
    run = SimulatedRun()
    run.weights_at_fault = False
    run.healthy(steps)
    return run


def test_a_few_wild_batches_are_skipped_and_cost_nothing_more():
    run = cleared()
    assert run.actions(5, loss=1000.0) == [SKIP] * 5
    run.healthy(100)
    assert run.weights == 260.0
    assert run.monitor.lr_scale == 1.0


def test_a_level_that_stays_is_accepted_without_a_rollback():
    run = cleared()
    assert run.actions(6, loss=1000.0) == [SKIP] * 6
    assert run.decisions[-1].level_accepted
    assert run.events[-1]["message"] == (
        "step 165 · new level accepted as normal · it is as large with the last good weights, so the data have changed"
        " · learning rate 1 of its schedule"
    )
    run.healthy(100, loss=1000.0)
    assert run.weights == 260.0


def test_something_non_finite_among_the_spikes_makes_the_state_suspect_all_the_same():
    run = cleared()
    run.actions(4, loss=1000.0)
    assert run.actions(1, loss=math.nan) == [ROLLBACK]


@pytest.mark.parametrize("answer", [True, None])
def test_weights_that_are_not_cleared_are_taken_back(answer):
    run = cleared()
    run.weights_at_fault = answer
    assert run.actions(3, loss=1000.0) == [SKIP, SKIP, ROLLBACK]
    assert run.monitor.lr_scale == 0.5


def test_a_new_level_is_not_forgotten_by_a_rollback_to_a_state_from_before():
    run = cleared()
    run.actions(6, loss=1000.0)
    run.healthy(30, loss=1000.0)
    assert run.actions(3, loss=math.nan)[-1] is ROLLBACK
    run.healthy(100, loss=1000.0)
    assert run.monitor.lr_scale == 0.5  # the cut holds: nothing was taken for a new level once more


def diverged(answer: bool | None, rise: float, *, learnt_at: int = 0) -> SimulatedRun:
    """The weights double while the loss rises. The last good snapshot is from step 50."""
    run = SimulatedRun()
    run.weights_at_fault = answer
    for step in range(260):
        size = 10.0 if step < 128 else 20.0
        due = run.monitor.wants_param_norm()
        level = 1.0 if step < 128 else rise
        run.attempt(loss=level if step >= learnt_at else 8.0, param_norm=size if due else None)
    return run


@pytest.mark.parametrize("answer", [True, None])
def test_a_loss_that_rose_with_the_weights_is_their_fault_unless_they_are_cleared(answer):
    run = diverged(answer, 6.0)
    assert "LOSS402" in {event.get("code") for event in run.events}
    assert run.monitor.lr_scale < 1.0


def test_a_loss_that_rose_with_the_weights_but_is_as_high_without_is_no_incident():
    run = diverged(False, 6.0)
    assert run.events == []
    assert run.weights == 260.0


def test_weights_from_before_the_level_was_reached_clear_nobody():
    assert "LOSS402" in {event.get("code") for event in diverged(False, 6.0, learnt_at=60).events}


def test_weights_that_grew_for_nothing_are_at_fault_whatever_the_data_are():
    assert "LOSS402" in {event.get("code") for event in diverged(False, 1.0).events}
