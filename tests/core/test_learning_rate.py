"""LearningRateScale: cut at rollbacks, taken back when it was not the cure, recovered gradually."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nan_callbacks.core import Action
from nan_callbacks.core.learning_rate import LearningRateScale
from tests.core.simulated_run import SimulatedRun


def test_repeated_cuts_square_the_factor():
    rate = LearningRateScale(0.5, None)

    assert [rate.cut(repeats) for repeats in range(3)] == [0.5, 0.25, 0.0625]
    assert rate.scale == 1 / 128


def test_undoing_takes_back_all_cuts_since_the_last_progress():
    rate = LearningRateScale(0.5, None)
    rate.cut(0)
    rate.confirm()
    rate.cut(0)
    rate.cut(1)

    rate.undo()

    assert rate.scale == 0.5
    rate.undo()
    assert rate.scale == 0.5


def test_without_recovery_the_cut_stays():
    rate = LearningRateScale(0.5, None)
    rate.cut(0)

    assert not any(rate.clean_step() for _ in range(1000))
    assert rate.scale == 0.5


@pytest.mark.parametrize("steps", [1, 7, 50, 1000])
@pytest.mark.parametrize("factor", [0.5, 0.1, 0.9])
def test_one_cut_is_undone_in_exactly_as_many_steps_as_asked_for(factor: float, steps: int):
    rate = LearningRateScale(factor, steps)
    rate.cut(0)

    recovered = [rate.clean_step() for _ in range(2 * steps)]

    assert recovered == [step == steps - 1 for step in range(2 * steps)]
    assert rate.scale == 1.0


def test_recovery_is_geometric():
    rate = LearningRateScale(0.25, 2)
    rate.cut(0)

    rate.clean_step()

    assert rate.scale == pytest.approx(0.5)


@given(
    deeds=st.lists(st.sampled_from(["cut", "undo", "confirm", "clean_step"]), max_size=60),
    factor=st.floats(0.01, 0.99),
    recovery=st.one_of(st.none(), st.integers(1, 30)),
)
def test_the_scale_never_leaves_the_range_above_zero_up_to_one(deeds: list[str], factor: float, recovery: int | None):
    rate = LearningRateScale(factor, recovery)
    for deed in deeds:
        if deed == "cut":
            rate.cut(0)
        else:
            getattr(rate, deed)()
        assert 0.0 < rate.scale <= 1.0


def test_a_restored_scale_goes_on_like_the_old_one():
    old = LearningRateScale(0.5, 9)
    old.cut(0)
    old.clean_step()
    new = LearningRateScale(0.5, 9)
    new.load_state_dict(json.loads(json.dumps(old.state_dict())))

    for rate in (old, new):
        rate.clean_step()
        rate.cut(1)
    assert new.scale == old.scale
    old.undo()
    new.undo()
    assert new.scale == old.scale == 1.0


def test_a_run_reports_once_that_its_learning_rate_is_back():
    run = SimulatedRun(lr_recovery_steps=20)
    run.healthy(60)
    assert run.actions(3, grad_norm=math.nan)[-1] is Action.ROLLBACK

    run.healthy(60)

    back = [event for event in run.events if event["event"] == "lr_recovered"]
    assert [(event["step"], event["lr_scale"]) for event in back] == [(82, 1.0)]
    assert run.monitor.lr_scale == 1.0


def test_a_skipped_step_recovers_nothing():
    run = SimulatedRun(lr_recovery_steps=20)
    run.healthy(60)
    run.actions(3, grad_norm=math.nan)
    before = run.monitor.lr_scale

    run.attempt(grad_norm=math.nan)

    assert run.monitor.lr_scale == before
