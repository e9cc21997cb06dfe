"""A level that rises for good: suspected at first, accepted in the end, at any size, from any cause."""

import math

import pytest

from nan_callbacks.core import Action
from tests.core.series import log_normal
from tests.core.simulated_run import SimulatedRun

SKIP, ROLLBACK, OBSERVE = Action.SKIP_STEP, Action.ROLLBACK, Action.OBSERVE


def test_a_loss_that_jumps_for_good_is_skipped_rolled_back_and_accepted():
    run = SimulatedRun()
    run.healthy(160)

    actions = run.actions(6, loss=1000.0)

    assert actions == [SKIP, SKIP, ROLLBACK, SKIP, SKIP, SKIP]
    assert [decision.lr_scale for decision in run.decisions[-6:]] == [1.0, 1.0, 0.5, 0.5, 0.5, 1.0]
    assert [decision.level_accepted for decision in run.decisions[-6:]] == [False] * 5 + [True]
    assert run.weights == 100.0  # the trusted snapshot was taken before step 100
    run.healthy(300, loss=1000.0)
    assert run.weights == 400.0


def test_the_accepting_event_says_why_and_that_the_learning_rate_is_back():
    run = SimulatedRun()
    run.healthy(160)

    run.actions(6, loss=1000.0)

    kinds = [event["event"] for event in run.events]
    assert kinds == ["incident"] * 3 + ["rollback", "reduce_lr"] + ["incident"] * 3 + ["level_accepted"]
    assert run.events[-1]["message"] == (
        "step 165 · new level accepted as normal · it persists from a known-good state, so the data have changed"
        " · learning rate 1 of its schedule"
    )


@pytest.mark.parametrize("quantity", ["loss", "grad_norm"])
def test_a_level_just_below_the_limit_is_accepted_once_it_is_seen_from_a_known_good_state(quantity: str):
    """Three steps are above the limit by chance; those after the rollback are not, but far above the usual."""
    run = SimulatedRun()
    run.healthy(160, **{quantity: 1.0})
    assert run.actions(3, **{quantity: 12.0}) == [SKIP, SKIP, ROLLBACK]

    assert run.actions(8, **{quantity: 8.0}) == [OBSERVE] * 8
    assert run.decisions[-1].level_accepted
    assert run.monitor.lr_scale == 1.0
    assert run.events[-1]["event"] == "level_accepted"
    run.healthy(100, **{quantity: 8.0})


@pytest.mark.parametrize("quantity", ["loss", "grad_norm"])
def test_steps_at_the_usual_level_confirm_the_cut(quantity: str):
    run = SimulatedRun()
    run.healthy(160, **{quantity: 1.0})
    run.actions(3, **{quantity: 12.0})

    run.healthy(100, **{quantity: 1.0})
    assert run.monitor.lr_scale == 0.5


def test_large_steps_of_another_optimizer_say_nothing():
    run = SimulatedRun()

    def turns(count: int, first: float) -> None:
        for _ in range(count):
            run.attempt(stream=0, grad_norm=first, competing=True)
            run.attempt(stream=1, grad_norm=500.0, competing=True)

    turns(160, 1.0)
    for _ in range(3):
        run.attempt(stream=0, grad_norm=100.0, competing=True)
    assert run.decisions[-1].action is ROLLBACK
    turns(30, 1.0)
    assert not any(decision.level_accepted for decision in run.decisions)
    assert run.monitor.lr_scale == 0.5


def test_only_the_cut_for_the_spikes_is_taken_back():
    run = SimulatedRun()
    run.healthy(160)
    run.actions(3, grad_norm=math.nan)  # cured by a cut
    run.healthy(60)
    assert run.monitor.lr_scale == 0.5
    run.actions(3, loss=12.0)
    assert run.monitor.lr_scale < 0.5

    run.actions(8, loss=8.0)
    assert run.decisions[-1].level_accepted
    assert run.monitor.lr_scale == 0.5


def test_the_large_losses_of_an_early_state_are_its_own():
    """The only snapshot is one of the first steps, when the loss was as large as what is a spike now."""
    run = SimulatedRun(snapshot_every_n_steps=500, window_size=32)
    run.follow([100.0] * 30 + [max(1.0, 100.0 * 0.97**step) for step in range(350)])
    run.actions(3, loss=30.0)
    assert run.decisions[-1].action is ROLLBACK

    run.actions(8, loss=90.0)
    assert run.monitor.lr_scale == 0.5


@pytest.mark.parametrize("quantity", ["loss", "grad_norm", "statistics_jump"])
def test_every_quantity_has_a_way_to_a_new_level(quantity: str):
    run = SimulatedRun()
    run.healthy(160, **{quantity: 1.0})

    run.actions(6, **{quantity: 500.0})

    assert run.decisions[-1].level_accepted
    run.healthy(100, **{quantity: 500.0})


@pytest.mark.parametrize("factor", [5.0, 10.0, 20.0, 100.0, 1e6])
def test_a_noisy_new_level_never_ends_the_run(factor: float):
    run = SimulatedRun()
    run.follow(log_normal(300, sigma=0.3))

    run.follow(factor * loss for loss in log_normal(300, sigma=0.3, seed=1))

    assert Action.STOP not in {decision.action for decision in run.decisions}
    assert {decision.action for decision in run.decisions[-200:]} == {OBSERVE}


def test_two_new_levels_one_after_the_other_are_both_accepted():
    run = SimulatedRun()

    for level in (1.0, 1e3, 1e6):
        run.actions(160, loss=level)

    assert sum(decision.level_accepted for decision in run.decisions) == 2
    assert run.monitor.lr_scale == 1.0
    run.healthy(50, loss=1e6)


def test_a_rollback_behind_an_accepted_level_accepts_it_again():
    run = SimulatedRun()
    run.healthy(160)
    run.actions(6, loss=1000.0)
    run.healthy(10, loss=1000.0)  # too few for a snapshot of the new level

    run.actions(3, loss=1000.0, grad_norm=math.nan)
    run.actions(6, loss=1000.0)

    assert run.monitor.limits().max_loss >= 1000.0
    run.healthy(100, loss=1000.0)


def test_accepting_a_level_takes_back_only_the_cuts_since_the_last_progress():
    run = SimulatedRun()
    run.healthy(160)
    run.actions(3, grad_norm=math.nan)
    run.healthy(250)
    assert run.monitor.lr_scale == 0.5

    run.actions(6, loss=1000.0)

    assert run.decisions[-1].level_accepted
    assert run.monitor.lr_scale == 0.5


def test_in_observe_mode_a_new_level_is_reported_during_one_warm_up_and_no_longer():
    run = SimulatedRun(on_spike="observe", warmup_steps=20)
    run.healthy(100)

    actions = run.actions(100, loss=1000.0)

    assert set(actions) == {OBSERVE}
    assert run.codes == ["LOSS401"] * 20
    assert run.weights == 200.0


def test_a_state_that_was_thrown_out_of_its_basin_is_rolled_back_not_accepted():
    """f(w) = w² / 2 under gradient descent; a fault of the hardware multiplies the weights."""
    run = SimulatedRun()
    run.weights = 8.0

    def descend(steps: int) -> None:
        for _ in range(steps):
            slope = run.weights
            run.attempt(loss=1.0 + slope**2 / 2, grad_norm=abs(slope), update=-0.01 * run.monitor.lr_scale * slope)

    descend(160)
    before = run.weights
    run.weights *= 1e4
    descend(3)

    assert run.decisions[-1].action is ROLLBACK
    assert run.decisions[-1].restore_step == 100
    assert before < run.weights < 8.0
    descend(300)
    assert run.codes == ["GRAD201", "LOSS401"] * 3
    assert run.monitor.lr_scale == 0.5
