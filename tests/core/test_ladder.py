"""The escalation ladder: skip the step, roll back and cut the learning rate, stop."""

import math

import pytest

from nan_callbacks.core import Action, GuardConfig, Monitor, StepObservation
from tests.core.simulated_run import SimulatedRun

SKIP, ROLLBACK, STOP, OBSERVE = Action.SKIP_STEP, Action.ROLLBACK, Action.STOP, Action.OBSERVE


def nan_gradients(run: SimulatedRun, steps: int) -> list[Action]:
    return run.actions(steps, grad_norm=math.nan)


def spikes(run: SimulatedRun, steps: int) -> list[Action]:
    return run.actions(steps, grad_norm=1e6)


def test_a_single_nan_is_skipped_and_forgotten():
    run = SimulatedRun()
    run.healthy(30)

    assert nan_gradients(run, 1) == [SKIP]

    run.healthy(30)
    assert run.weights == 60.0
    assert run.monitor.lr_scale == 1.0


def test_a_skip_changes_no_limit():
    run = SimulatedRun()
    run.healthy(60)
    before = run.monitor.limits()

    nan_gradients(run, 2)

    assert run.monitor.limits() == before


def test_three_in_a_row_roll_back_to_the_trusted_snapshot_with_half_the_learning_rate():
    run = SimulatedRun()
    run.healthy(160)

    assert nan_gradients(run, 3) == [SKIP, SKIP, ROLLBACK]

    decision = run.decisions[-1]
    assert (decision.lr_cut, decision.lr_scale) == (0.5, 0.5)
    assert decision.restore_step == 100
    assert decision.reason == "3 steps in a row were dropped"
    assert run.weights == 100.0


def test_from_non_finite_steps_the_newest_snapshot_is_gone_back_to_once_and_then_the_trusted_one():
    """Nothing of it was in a state from which 40 steps went well; the trusted one would cost 90 steps of work."""
    run = SimulatedRun()
    run.healthy(90)

    nan_gradients(run, 6)

    rollbacks = [decision for decision in run.decisions if decision.action is ROLLBACK]
    assert [decision.restore_step for decision in rollbacks] == [50, 0]
    assert run.weights == 0.0


def test_a_snapshot_of_a_few_steps_ago_or_one_before_spikes_is_not_gone_back_to():
    for healthy, fault in ((60, nan_gradients), (90, spikes)):
        run = SimulatedRun()
        run.healthy(healthy)
        assert fault(run, 3)[-1] is ROLLBACK
        assert run.decisions[-1].restore_step == 0


def test_a_good_step_in_between_starts_the_count_again():
    run = SimulatedRun()
    run.healthy(50)

    for _ in range(10):
        assert nan_gradients(run, 2) == [SKIP, SKIP]
        run.healthy(3)


def test_each_further_rollback_without_progress_cuts_deeper_up_to_the_fourth_power():
    run = SimulatedRun(max_rollbacks=4)
    run.healthy(160)

    nan_gradients(run, 12)

    rollbacks = [decision for decision in run.decisions if decision.action is ROLLBACK]
    assert [decision.lr_cut for decision in rollbacks] == [0.5, 0.25, 0.0625, 0.0625]
    assert [decision.lr_scale for decision in rollbacks] == [1 / 2, 1 / 8, 1 / 128, 1 / 2048]


def test_after_max_rollbacks_the_run_stops_at_its_last_known_good_state():
    run = SimulatedRun()
    run.healthy(160)

    actions = nan_gradients(run, 12)

    assert actions == [SKIP, SKIP, ROLLBACK] * 3 + [SKIP, SKIP, STOP]
    assert run.decisions[-1].restore_step == 100
    assert run.weights == 100.0
    assert run.decisions[-1].reason == "3 steps in a row were dropped, and 3 rollback(s) brought no progress"


def test_after_giving_up_nothing_passes_and_nothing_more_is_decided():
    run = SimulatedRun(max_rollbacks=0)
    run.healthy(10)
    nan_gradients(run, 3)

    assert run.monitor.limits().closed
    assert run.actions(100) == [OBSERVE] * 100
    assert run.weights == 0.0
    assert run.snapshot_steps == [0]


def test_two_hundred_applied_steps_are_progress_and_the_count_of_rollbacks_starts_again():
    run = SimulatedRun()
    run.healthy(60)
    nan_gradients(run, 3)

    run.healthy(200)
    nan_gradients(run, 3)

    assert run.decisions[-1].lr_cut == 0.5
    assert run.decisions[-1].lr_scale == 0.25


def test_one_step_less_is_no_progress():
    run = SimulatedRun()
    run.healthy(60)
    nan_gradients(run, 3)

    run.healthy(199)
    nan_gradients(run, 3)

    assert run.decisions[-1].lr_cut == 0.25


def test_a_rollback_takes_the_history_back_as_well():
    run = SimulatedRun()
    run.healthy(100)
    before = run.monitor.limits()
    run.healthy(55)
    run.healthy(10, loss=5.0)
    assert run.monitor.limits() != before

    nan_gradients(run, 3)

    assert run.decisions[-1].restore_step == 100
    assert run.monitor.limits() == before


def test_without_any_snapshot_the_run_stops_instead_of_a_rollback():
    monitor = Monitor(GuardConfig())
    decisions = [
        monitor.observe(StepObservation(step=step, loss=1.0, grad_norm=math.nan, applied=False)) for step in range(3)
    ]

    assert [decision.action for decision in decisions] == [SKIP, SKIP, STOP]
    assert decisions[-1].reason == "3 steps in a row were dropped, and there is no snapshot"
    assert decisions[-1].restore_slot is None


def test_mixed_drops_that_are_not_spikes_alone_are_never_taken_for_a_new_level():
    run = SimulatedRun()
    run.healthy(160)
    run.actions(3, loss=1000.0)

    run.actions(2, loss=1000.0)
    decision = run.attempt(grad_norm=math.nan)

    assert decision.action is ROLLBACK
    assert not decision.level_accepted


def test_spikes_after_a_good_step_are_no_new_level():
    run = SimulatedRun()
    run.healthy(160)
    run.actions(3, loss=1000.0)
    run.healthy(1)

    run.actions(3, loss=1000.0)

    assert run.decisions[-1].action is ROLLBACK
    assert not any(decision.level_accepted for decision in run.decisions)


def test_three_in_a_row_are_chance_when_every_third_step_is_dropped_anyway():
    run = SimulatedRun(max_skip_fraction=0.9)
    for _ in range(40):
        run.healthy(2)
        nan_gradients(run, 1)
    run.healthy(1)

    assert nan_gradients(run, 5) == [SKIP] * 5
    assert ROLLBACK in nan_gradients(run, 5)  # ten in a row are not: (1/3)^9 is less than once in 10 000 steps


def test_twenty_in_a_row_are_never_put_down_to_chance():
    run = SimulatedRun(max_skip_fraction=0.95)
    for _ in range(30):
        run.healthy(1)
        nan_gradients(run, 2)
    run.healthy(1)

    assert nan_gradients(run, 20) == [SKIP] * 19 + [ROLLBACK]


def test_what_kind_of_drops_came_before_is_known_after_a_resume():
    run = SimulatedRun()
    run.healthy(160)
    run.actions(3, loss=1000.0)
    nan_gradients(run, 1)

    run.save_and_resume()

    assert run.actions(2, loss=1000.0) == [SKIP, ROLLBACK]


def test_the_gravest_finding_decides_and_is_named_first():
    run = SimulatedRun(on_spike="stop")
    run.healthy(60)

    decision = run.attempt(loss=1000.0, grad_norm=math.nan)

    assert [finding.code for finding in decision.findings] == ["LOSS401", "NAN101"]
    assert decision.reason == "loss spike: configured to stop"


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_max_consecutive_skips_is_the_number_of_drops_before_a_rollback(patience: int):
    run = SimulatedRun(max_consecutive_skips=patience)
    run.healthy(30)

    assert nan_gradients(run, patience) == [SKIP] * (patience - 1) + [ROLLBACK]


def test_lr_factor_is_the_factor_of_the_first_cut():
    run = SimulatedRun(lr_factor=0.1)
    run.healthy(30)

    nan_gradients(run, 6)

    assert [event["factor"] for event in run.events if event["event"] == "reduce_lr"] == pytest.approx([0.1, 0.01])


def test_two_drops_in_three_steps_exhaust_the_budget():
    run = SimulatedRun()

    actions = [run.attempt(grad_norm=2.0 if step % 3 == 0 else math.nan).action for step in range(20)]

    assert actions[:19] == [OBSERVE, SKIP, SKIP] * 6 + [OBSERVE]
    assert actions[19] is STOP
    assert run.decisions[-1].reason == "65% of the last 20 steps had to be dropped"


# -- a batch that is itself non-finite: the data's fault, never the state's -----------------------------------------


def test_non_finite_batches_are_skipped_without_a_rollback_until_the_budget_is_spent():
    run = SimulatedRun()
    run.healthy(100)

    actions = run.actions(51, loss=math.nan, grad_norm=math.nan, batch_finite=False)

    assert actions == [SKIP] * 50 + [STOP]
    assert run.decisions[-1].reason == "51% of the last 100 steps had to be dropped"
    assert {decision.lr_scale for decision in run.decisions} == {1.0}


def test_half_of_all_batches_may_be_non_finite_for_ever():
    run = SimulatedRun()

    for _ in range(150):
        assert run.attempt().action is OBSERVE
        decision = run.attempt(loss=math.nan, grad_norm=math.nan, batch_finite=False)
        assert decision.action is SKIP
        assert decision.reason == "the batch is non-finite"

    assert run.weights == 150.0


def test_overflows_that_the_scaler_handles_cost_no_budget():
    run = SimulatedRun()
    run.actions(60, grad_norm=math.inf, scaler_overflow=True, loss_scale=65536.0)

    assert run.attempt(grad_norm=math.nan, batch_finite=False).action is SKIP


def test_a_budget_of_one_never_stops_for_bad_batches():
    run = SimulatedRun(max_skip_fraction=1.0)

    assert set(run.actions(300, grad_norm=math.inf, batch_finite=False)) == {SKIP}


def test_a_non_finite_batch_does_not_count_towards_the_rollback_of_others():
    run = SimulatedRun()
    run.healthy(50)

    nan_gradients(run, 2)
    run.actions(5, grad_norm=math.nan, batch_finite=False)

    assert ROLLBACK not in {decision.action for decision in run.decisions}
    assert nan_gradients(run, 1) == [ROLLBACK]


# -- the user's own reactions ------------------------------------------------------------------------------------


def test_observing_non_finite_values_applies_every_step():
    run = SimulatedRun(on_non_finite="observe")
    run.healthy(30)

    assert run.actions(50, loss=math.nan, grad_norm=math.nan) == [OBSERVE] * 50
    assert run.weights == 80.0
    assert run.codes == ["NAN101"] * 50


def test_stopping_at_the_first_non_finite_value():
    run = SimulatedRun(on_non_finite="stop")
    run.healthy(160)

    decision = run.attempt(grad_norm=math.inf)

    assert decision.action is STOP
    assert decision.reason == "non-finite gradients: configured to stop"
    assert decision.restore_step is None  # the step was dropped, so nothing is wrong with the present state


def test_stopping_with_non_finite_parameters_restores_the_last_good_ones():
    run = SimulatedRun(on_non_finite="stop")
    run.healthy(160)

    decision = run.attempt(grad_norm=math.nan, non_finite_parameters=2)

    assert (decision.action, decision.restore_step) == (STOP, 100)


def test_stopping_at_the_first_spike():
    run = SimulatedRun(on_spike="stop")
    run.healthy(160)

    decision = run.attempt(grad_norm=1e5)

    assert decision.action is STOP
    assert decision.reason == "exploding gradient: configured to stop"


def test_observing_spikes_publishes_no_limits():
    run = SimulatedRun(on_spike="observe")
    run.healthy(160)

    decision = run.attempt(grad_norm=1e5, loss=1e5)

    assert decision.action is OBSERVE
    assert run.codes == ["GRAD201", "LOSS401"]
    assert run.weights == 161.0


def test_an_optimizer_that_fails_for_good_is_noticed_while_another_goes_on():
    run = SimulatedRun()
    run.healthy(60, stream=0, competing=True)
    actions = []
    for _ in range(3):
        actions.append(run.attempt(stream=1, competing=True, loss=math.nan, grad_norm=math.nan).action)
        run.attempt(stream=0, competing=True)

    assert actions == [Action.SKIP_STEP, Action.SKIP_STEP, Action.ROLLBACK]


def test_one_bad_batch_of_two_optimizers_is_no_run_of_bad_steps():
    run = SimulatedRun()
    run.healthy(60)
    actions = [run.attempt(stream=stream, loss=math.nan, grad_norm=math.nan).action for stream in (0, 1, 0, 1)]

    assert actions == [Action.SKIP_STEP] * 4
