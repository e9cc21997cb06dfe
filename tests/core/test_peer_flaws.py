"""Flaws that were found in other tools and that this core could share. Each test is named after its flaw."""

import json
import math
from typing import Any

import pytest

from nan_callbacks.core import Action, Limits
from nan_callbacks.core.events import to_json_line
from tests.core.simulated_run import SimulatedRun

SKIP, OBSERVE = Action.SKIP_STEP, Action.OBSERVE


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_blinds_a_rolling_z_score(bad: float):
    """A NaN in the window makes every later comparison false: spikes pass for as long as it stays."""
    run = SimulatedRun()
    run.healthy(60)

    run.attempt(loss=bad, grad_norm=bad)

    for _ in range(130):
        run.healthy(1)
        assert run.attempt(loss=1e6).action is SKIP


def test_spikes_are_learned():
    """A flagged value in the window inflates its spread, and the next spike passes."""
    run = SimulatedRun()
    run.healthy(60)
    before = run.monitor.limits()

    for _ in range(20):
        assert run.attempt(loss=1e3, grad_norm=1e3).action is SKIP
        run.healthy(1)

    assert run.monitor.limits() == before


def test_spikes_that_were_applied_are_learned():
    """The same when the user only observes and the spike does reach the weights."""
    run = SimulatedRun(on_spike="observe", min_ratio=10.0)
    run.healthy(60)

    for _ in range(20):
        run.attempt(loss=1e3)
        run.healthy(1)

    assert run.codes == ["LOSS401"] * 20
    assert {finding.limit for decision in run.decisions for finding in decision.findings} == {10.0}


@pytest.mark.parametrize("grad_norm", [math.nan, math.inf])
def test_zero_times_nan_is_not_a_skip(grad_norm: float):
    """Multiplying an update by zero leaves NaN in the weights: the gate must choose, not multiply."""
    admitted = Limits().admits(1.0, grad_norm)

    assert admitted is False  # a choice between two branches, not a factor
    run = SimulatedRun()
    run.attempt(grad_norm=grad_norm, update=math.nan)
    assert run.weights == 0.0


def test_load_state_dict_fails_on_resume():
    """A state that can be saved but not loaded, found by the first user who resumes."""
    run = SimulatedRun()
    run.healthy(160)
    run.actions(3, grad_norm=math.nan)

    run.save_and_resume()

    run.healthy(50)
    assert run.monitor.lr_scale == 0.5


def test_resume_forgets_the_history():
    """A resumed run that warms up again lets the first spike through."""
    run = SimulatedRun()
    run.healthy(160)

    run.save_and_resume()

    assert run.attempt(loss=1e6).action is SKIP


@pytest.mark.parametrize("quantity", ["loss", "grad_norm"])
@pytest.mark.parametrize("bad", [math.inf, -math.inf])
def test_nan_only_checks_miss_inf(quantity: str, bad: float):
    run = SimulatedRun()
    run.healthy(10)

    assert run.attempt(**{quantity: bad}).action is SKIP


def test_invalid_json_holds_the_bare_word_nan():
    """``json.dumps`` writes NaN and Infinity as bare words that strict readers refuse, or null that says nothing."""
    run = SimulatedRun()
    run.healthy(60)
    run.attempt(loss=math.nan, grad_norm=math.inf)

    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is no JSON")

    (event,) = (json.loads(to_json_line(event), parse_constant=refuse) for event in run.events)
    assert (event["loss"], event["grad_norm"]) == ("NaN", "Infinity")


def test_a_window_blocks_for_128_steps_after_one_nan():
    """A NaN in the statistics makes "is it below the limit?" false: every step is skipped until it has left."""
    run = SimulatedRun(window_size=128)
    run.healthy(200)

    run.attempt(loss=math.nan, grad_norm=math.nan)

    run.healthy(200)
    assert run.weights == 400.0


def test_one_nan_blinds_for_ever():
    """An exponential average never forgets a NaN."""
    run = SimulatedRun()
    run.healthy(60)
    run.attempt(grad_norm=math.nan)
    run.healthy(1000)

    assert run.attempt(grad_norm=1000 * 2.0).action is SKIP


def test_masking_after_a_sustained_shift():
    """A window full of an old, higher level hides spikes of the new one; or the new level is refused for ever."""
    run = SimulatedRun()
    run.healthy(160)
    run.actions(6, loss=1e4)
    run.healthy(100, loss=1e4)

    assert run.attempt(loss=1e6).action is SKIP

    run.actions(2500, loss=1.0)
    assert run.attempt(loss=1e3).action is SKIP


def test_warm_up_restarts_every_epoch():
    """Statistics that are kept per epoch are blind for its first steps."""
    run = SimulatedRun(warmup_steps=20)
    for epoch in range(10):
        for batch_index in range(10):
            run.attempt(epoch=epoch, batch_index=batch_index)

    decision = run.attempt(epoch=10, batch_index=0, loss=1e3)

    assert decision.action is SKIP
    assert decision.findings[0].robust_z is not None  # out of warm-up although no epoch was longer than half of it


def test_epochs_and_batch_indices_are_for_people_only():
    """A clock of epochs goes wrong with several loaders, resumes in mid-epoch and iterable data sets."""
    forward, backward = SimulatedRun(), SimulatedRun()
    for step in range(120):
        loss = 1e3 if step == 100 else 1.0
        forward.attempt(loss=loss, epoch=step // 10, batch_index=step % 10)
        backward.attempt(loss=loss, epoch=12 - step // 10, batch_index=99 - step)

    assert forward.limits == backward.limits
    assert [each.action for each in forward.decisions] == [each.action for each in backward.decisions]


def test_a_callback_fails_on_a_step_without_a_loss():
    """A training step that returns nothing, or manual optimisation, has no loss to look up."""
    run = SimulatedRun()
    run.healthy(60, loss=None)

    assert run.attempt(loss=None, grad_norm=1e5).action is SKIP


def test_a_guard_skips_for_ever():
    """Skipping without a budget leaves a run that trains no more and says so nowhere."""
    run = SimulatedRun()
    run.healthy(60)

    actions = run.actions(200, grad_norm=math.nan)

    assert Action.STOP in actions[:20]
    assert run.events[-1]["event"] == "stop"
    assert [event["event"] for event in run.events].count("stop") == 1


def test_observing_means_changing_nothing():
    """A monitor that only watches must not touch the run, whatever it sees."""
    run = SimulatedRun(on_non_finite="observe", on_spike="observe", on_divergence="observe")

    for bad in ({"grad_norm": math.nan}, {"loss": 1e9}, {"grad_norm": 1e9}, {"statistics_jump": 1e9}) * 10:
        for _ in range(10):
            run.attempt(statistics_jump=1.0)
        assert run.attempt(**bad).action is OBSERVE

    assert run.weights == len(run.decisions)
    assert run.monitor.lr_scale == 1.0
