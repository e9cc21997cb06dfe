"""NaN and Inf: what is at fault decides what happens, not the mere presence of a NaN."""

import math

import pytest

from nan_callbacks.core import Action, Limits, StepObservation
from nan_callbacks.core.detectors.non_finite import NonFiniteDetector
from tests.core.simulated_run import SimulatedRun

SKIP, ROLLBACK, OBSERVE = Action.SKIP_STEP, Action.ROLLBACK, Action.OBSERVE
NON_FINITE = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("value", NON_FINITE)
def test_a_non_finite_gradient_is_dropped_from_the_very_first_step(value: float):
    run = SimulatedRun()

    decision = run.attempt(grad_norm=value)

    assert decision.action is SKIP
    assert run.codes == ["NAN101"]
    assert run.weights == 0.0


@pytest.mark.parametrize("value", NON_FINITE)
def test_a_rare_non_finite_loss_with_finite_gradients_is_skipped(value: float):
    run = SimulatedRun()

    for _ in range(10):
        run.healthy(20)
        assert run.attempt(loss=value).action is SKIP

    assert run.codes == ["NAN102"] * 10
    assert run.weights == 200.0


def test_a_loss_that_is_nan_from_the_start_is_applied_and_reported_once():
    run = SimulatedRun()

    actions = run.actions(60, loss=math.nan)

    assert actions == [OBSERVE] * 60
    assert run.weights == 60.0
    assert run.codes == ["NAN102"]
    assert run.events[0]["message"].endswith(
        "no step has shown yet that its loss can be finite: updates are applied → observed, batch 0 of epoch 0"
    )


def test_bad_gradients_are_dropped_even_when_a_nan_loss_is_the_rule():
    run = SimulatedRun()
    run.actions(60, loss=math.nan)

    decision = run.attempt(loss=math.nan, grad_norm=math.nan)

    assert decision.action is SKIP
    assert run.weights == 60.0


def test_a_loss_that_turns_nan_for_good_is_let_through_after_the_ladder_was_tried():
    run = SimulatedRun()
    run.healthy(60)

    actions = run.actions(40, loss=math.nan)

    assert actions[:3] == [SKIP, SKIP, ROLLBACK]
    assert OBSERVE not in actions[3:8]  # the record of losses is not rolled back
    assert actions[8:] == [OBSERVE] * 32
    assert Action.STOP not in actions


def test_a_loss_that_heals_is_guarded_again():
    run = SimulatedRun()
    run.actions(60, loss=math.nan)

    run.healthy(40)

    assert run.attempt(loss=math.nan).action is SKIP
    assert run.codes == ["NAN102", "NAN102"]


def test_non_finite_parameters_roll_back_at_once():
    run = SimulatedRun()
    run.healthy(160)

    decision = run.attempt(
        loss=math.nan,
        grad_norm=math.nan,
        non_finite_parameters=2,
        non_finite_names=("encoder.weight", "encoder.bias"),
        optimizer_name="Adam",
    )

    assert decision.action is ROLLBACK
    assert decision.restore_step == 100
    assert run.codes == ["NAN103"]
    assert decision.findings[0].where == "encoder.weight, encoder.bias"
    assert "an update of Adam made them from finite gradients" in decision.findings[0].detail


def test_parameters_that_came_broken_are_not_blamed_on_the_optimizer():
    run = SimulatedRun()

    run.attempt(non_finite_parameters=1, non_finite_names=("head.weight",), grad_norm=math.nan, optimizer_name="Adam")

    assert "they came so into this fit" in run.events[0]["message"]
    assert "Adam" not in run.events[0]["message"]


def test_frozen_parameters_are_not_blamed_on_the_optimizer():
    run = SimulatedRun()
    run.healthy(160)

    about = {"non_finite_parameters": 2, "non_finite_frozen": 2, "non_finite_names": ("teacher.weight", "teacher.bias")}
    decision = run.attempt(loss=math.nan, grad_norm=math.nan, optimizer_name="Adam", **about)

    assert decision.action is ROLLBACK
    assert "Adam" not in decision.findings[0].detail
    assert "frozen" in decision.findings[0].detail


def test_non_finite_parameters_are_only_reported_when_the_user_only_observes():
    run = SimulatedRun(on_non_finite="observe")
    run.healthy(10)

    decision = run.attempt(loss=math.nan, grad_norm=math.nan, non_finite_parameters=1)

    assert decision.action is OBSERVE
    assert run.codes == ["NAN103"]


def test_only_the_first_names_are_spelled_out():
    detector = NonFiniteDetector()

    (finding,) = detector.update(
        StepObservation(step=0, grad_norm=math.inf, non_finite_gradients=5, non_finite_names=("a", "b", "c"))
    )

    assert finding.where == "a, b, c and 2 more"


def test_a_step_without_loss_and_gradients_is_nothing_to_judge():
    run = SimulatedRun()

    run.healthy(5, loss=None, grad_norm=None)


# -- the dynamic loss scaler of float16 ---------------------------------------------------------------------------


def test_an_overflow_of_scaled_gradients_is_the_scalers_business():
    run = SimulatedRun()

    actions = run.actions(30, grad_norm=math.inf, scaler_overflow=True, loss_scale=65536.0)

    assert actions == [OBSERVE] * 30
    assert run.codes == []
    assert run.weights == 0.0  # the scaler skips the step itself


def test_a_non_finite_loss_is_not_the_scalers_business():
    run = SimulatedRun()

    decision = run.attempt(loss=math.inf, grad_norm=math.inf, scaler_overflow=True, loss_scale=65536.0)

    assert decision.action is SKIP
    assert run.codes == ["NAN101"]


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_what_overflows_without_scaling_is_not_the_scalers_business(scale: float):
    run = SimulatedRun()

    decision = run.attempt(grad_norm=math.inf, scaler_overflow=True, loss_scale=scale)

    assert decision.action is SKIP
    assert "NAN101" in run.codes


def test_a_loss_scale_below_one_is_reported_once():
    run = SimulatedRun()
    run.healthy(10, loss_scale=1.0)

    actions = run.actions(20, loss_scale=0.5) + run.actions(20, loss_scale=0.25)

    assert set(actions) == {OBSERVE}
    assert run.codes == ["OPT603"]


def test_a_loss_scale_that_collapses_again_is_reported_again():
    run = SimulatedRun()

    for _ in range(2):
        run.actions(5, loss_scale=0.5)
        run.actions(5, loss_scale=2.0)

    assert run.codes == ["OPT603", "OPT603"]


# -- the gate -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [1.0, math.nan, math.inf, None])
@pytest.mark.parametrize("grad_norm", NON_FINITE)
def test_no_limits_but_an_observers_admit_non_finite_gradients(loss: float | None, grad_norm: float):
    generous = Limits(admit_non_finite_loss=True)

    assert not generous.admits(loss, grad_norm)
    assert Limits(admit_non_finite_gradients=True).admits(loss, grad_norm)


@pytest.mark.parametrize("loss", NON_FINITE)
def test_a_non_finite_loss_needs_a_permission_and_gradients_within_their_limit(loss: float):
    limits = Limits(max_grad_norm=10.0, admit_non_finite_loss=True)

    assert not Limits(max_grad_norm=10.0).admits(loss, 1.0)
    assert limits.admits(loss, 1.0)
    assert not limits.admits(loss, 11.0)


def test_rollbacks_that_did_not_cure_a_non_finite_loss_leave_the_learning_rate_as_it_was():
    run = SimulatedRun()
    run.healthy(100)
    decisions = [run.attempt(loss=math.nan) for _ in range(40)]

    assert min(decision.lr_scale for decision in decisions) < 1.0
    assert decisions[-1].action is Action.OBSERVE
    assert decisions[-1].lr_scale == 1.0


def test_single_non_finite_losses_leave_a_cut_of_the_learning_rate_when_they_are_only_observed():
    run = SimulatedRun(on_non_finite="observe")
    run.healthy(120)
    assert run.actions(3, grad_norm=1e6)[-1] is ROLLBACK
    assert run.monitor.lr_scale == 0.5

    for _ in range(3):
        run.healthy(5)
        assert run.attempt(loss=math.nan).action is OBSERVE

    assert run.codes[-3:] == ["NAN102"] * 3
    assert run.monitor.lr_scale == 0.5


def test_a_standing_non_finite_loss_takes_the_cut_back():
    run = SimulatedRun()
    run.healthy(120)
    run.actions(6, loss=math.nan)
    assert run.monitor.lr_scale < 1.0

    run.actions(40, loss=math.nan)

    assert run.monitor.lr_scale == 1.0
