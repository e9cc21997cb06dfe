"""Whether the random numbers of a dropped batch are drawn again: those of the first in a row, and never again."""

import pytest

from nan_callbacks.core import Action, StepObservation
from nan_callbacks.core.draws import Draws, Streams
from tests.core.simulated_run import SimulatedRun

NAN = float("nan")
GOOD = StepObservation(step=0, loss=1.0, grad_norm=1.0)
FAILED = StepObservation(step=0, loss=1.0, grad_norm=NAN, applied=False)
BAD_DATA = StepObservation(step=0, loss=NAN, grad_norm=NAN, applied=False, batch_finite=False)
OVERFLOW = StepObservation(step=0, loss=1.0, grad_norm=NAN, applied=False, scaler_overflow=True, loss_scale=64.0)


def after(*batches: list[StepObservation]) -> Streams:
    """Where the streams go on from after the last of some batches, which is dropped."""
    draws = Draws()
    for batch in batches[:-1]:
        draws.note(batch)
    return draws.after(batches[-1])


@pytest.mark.parametrize(
    "dropped", [[FAILED], [BAD_DATA], [FAILED, FAILED]], ids=["numbers", "data", "both optimizers"]
)
@pytest.mark.parametrize("before", [[], [[GOOD]], [[FAILED], [GOOD]], [[FAILED], [FAILED], [GOOD]]], ids=str)
def test_a_single_dropped_batch_was_never_drawn(before, dropped):
    assert after(*before, dropped) is Streams.BEFORE_FETCH


@pytest.mark.parametrize("before", [[[FAILED]], [[BAD_DATA]], [[FAILED], [FAILED]], [[FAILED], []]], ids=str)
def test_the_numbers_of_a_further_one_in_a_row_count_as_used(before):
    assert after(*before, [FAILED]) is Streams.AFTER_STEP


def test_what_a_step_draws_cannot_be_what_makes_its_batch_non_finite():
    assert after([FAILED], [BAD_DATA]) is Streams.ARRIVAL


@pytest.mark.parametrize("between", [[FAILED, GOOD], [OVERFLOW]], ids=["one of two optimizers", "loss scaler"])
def test_a_batch_that_kept_its_numbers_ends_the_row(between):
    assert after([FAILED], between, [FAILED]) is Streams.BEFORE_FETCH


def test_a_rollback_for_dropped_steps_does_not_lead_back_to_the_numbers_that_failed():
    run = SimulatedRun()
    run.healthy(5)
    decisions = [run.attempt(grad_norm=NAN) for _ in range(3)]

    assert decisions[-1].action is Action.ROLLBACK
    assert not decisions[-1].restore_streams


def test_a_rollback_for_broken_weights_does():
    run = SimulatedRun()
    run.healthy(5)
    decision = run.attempt(grad_norm=NAN, loss=NAN, non_finite_parameters=1)

    assert decision.action is Action.ROLLBACK
    assert decision.restore_streams


def test_numbers_that_lead_to_a_rollback_at_once_are_not_given_back():
    run = SimulatedRun(max_consecutive_skips=1)

    assert run.monitor.draws.after([FAILED]) is Streams.AFTER_STEP


def test_the_row_survives_a_checkpoint():
    run = SimulatedRun()
    run.monitor.draws.note([FAILED])
    run.save_and_resume()

    assert run.monitor.draws.count_as_used
