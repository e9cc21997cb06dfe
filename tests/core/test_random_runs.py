"""What holds in every run, whatever goes wrong in it; and that splitting a run by save and resume changes nothing."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nan_callbacks.core import Action, GuardConfig, Limits, Monitor
from tests.core.random_runs import FAULTS, SEEDS, SEGMENTS, SMALL, run_through, steps_of
from tests.core.simulated_run import SimulatedRun

REACTIONS = st.fixed_dictionaries(
    {},
    optional={
        "on_non_finite": st.sampled_from(["observe", "skip_step", "stop"]),
        "on_spike": st.sampled_from(["observe", "skip_step", "stop"]),
        "on_divergence": st.sampled_from(["observe", "rollback", "stop"]),
        "max_skip_fraction": st.sampled_from([0.5, 1.0]),
    },
)


def plain(state: Any) -> str:
    """A state as strict JSON text: raises on NaN, and on anything but plain containers and numbers."""
    return json.dumps(state, allow_nan=False)


@given(segments=SEGMENTS, seed=SEEDS, where=st.floats(0.0, 1.0), trials=st.booleans())
def test_a_run_that_is_saved_and_resumed_decides_as_the_unbroken_one(segments, seed, where, trials):
    steps = steps_of(segments, seed)
    middle = round(where * len(steps))

    unbroken = run_through(SimulatedRun(trials=trials, **SMALL), steps)
    split = run_through(SimulatedRun(trials=trials, **SMALL), steps[:middle])
    split.save_and_resume()
    run_through(split, steps[middle:])

    assert split.limits == unbroken.limits
    assert split.snapshot_steps == unbroken.snapshot_steps
    assert list(map(repr, split.decisions)) == list(map(repr, unbroken.decisions))  # NaN equals NaN in text only
    assert list(map(repr, split.timeless_events)) == list(map(repr, unbroken.timeless_events))
    assert split.weights == unbroken.weights
    assert plain(split.monitor.state_dict()) == plain(unbroken.monitor.state_dict())


@given(segments=SEGMENTS, seed=SEEDS)
def test_equal_runs_decide_equally(segments, seed):
    steps = steps_of(segments, seed)

    one, other = (run_through(SimulatedRun(**SMALL), steps) for _ in range(2))

    assert one.limits == other.limits
    assert list(map(repr, one.decisions)) == list(map(repr, other.decisions))


@given(segments=SEGMENTS, seed=SEEDS, reactions=REACTIONS)
def test_no_step_is_dropped_without_a_finding_that_says_why(segments, seed, reactions):
    run = SimulatedRun(**{**SMALL, **reactions})
    for measured in steps_of(segments, seed):
        gave_up = run.monitor.policy.gave_up
        before = run.weights
        decision = run.attempt(**measured)
        scaler = measured.get("scaler_overflow") and measured["loss_scale"] > 1.0
        dropped = run.weights == before and decision.restore_slot is None
        if dropped and not scaler and not gave_up:
            assert decision.action in (Action.SKIP_STEP, Action.STOP)
            assert decision.findings


@given(segments=SEGMENTS, seed=SEEDS)
def test_nothing_is_learned_from_a_dropped_step(segments, seed):
    def numbers(limits: Limits) -> tuple[float, float, float]:
        return limits.max_loss, limits.max_grad_norm, limits.max_statistics_jump

    run = SimulatedRun(**{**SMALL, "warmup_steps": 16})  # so many flagged values in a row are a new level
    for measured in steps_of(segments, seed):
        before = run.weights
        decision = run.attempt(**measured)
        dropped = run.weights == before and decision.restore_slot is None
        if dropped and not decision.level_accepted and not run.monitor.policy.gave_up:
            assert numbers(run.monitor.limits(measured["stream"])) == numbers(run.limits[-1])


@given(segments=SEGMENTS, seed=SEEDS, reactions=REACTIONS)
def test_every_decision_can_be_acted_on(segments, seed, reactions):
    run = SimulatedRun(**{**SMALL, **reactions})
    for measured in steps_of(segments, seed):
        decision = run.attempt(**measured)
        assert 0.0 < decision.lr_scale <= 1.0
        assert decision.lr_scale == run.monitor.lr_scale
        assert (decision.action is Action.ROLLBACK) <= (decision.restore_slot is not None)
        assert (decision.action is Action.ROLLBACK) == (decision.lr_cut is not None)
        if decision.restore_step is not None:
            assert decision.restore_step <= run.monitor.step - 1
        assert run.monitor.policy.gave_up == (Action.STOP in {each.action for each in run.decisions})


@given(segments=SEGMENTS, seed=SEEDS, reactions=REACTIONS)
def test_no_nan_ever_enters_a_limit_or_a_state(segments, seed, reactions):
    run = SimulatedRun(**{**SMALL, **reactions})
    for measured in steps_of(segments, seed):
        run.attempt(**measured)
        limits = run.monitor.limits(measured["stream"])
        assert not any(map(math.isnan, (limits.max_loss, limits.max_grad_norm, limits.max_statistics_jump)))
        assert plain(run.monitor.state_dict())


@given(
    losses=st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=80),
    norms=st.lists(st.floats(min_value=0.0, allow_nan=False), min_size=80, max_size=80),
)
def test_no_number_however_large_or_small_raises(losses, norms):
    run = SimulatedRun(**SMALL)
    for loss, norm in zip(losses, norms, strict=False):
        run.attempt(loss=loss, grad_norm=norm, statistics_jump=norm, param_norm=norm)

    assert len(run.decisions) == len(losses)
    assert plain(run.monitor.state_dict())


def test_memory_is_bounded_in_a_long_run():
    """Repeating everything that can go wrong leaves a state of the same size."""

    def leaves(state: Any) -> int:
        if isinstance(state, dict):
            return sum(leaves(item) for item in state.values())
        return sum(map(leaves, state)) if isinstance(state, list) else 1

    cycle = steps_of(
        [("ordinary", 30, 0)] + [(fault, 1, 0) for fault in FAULTS if fault != "broken parameters"], seed=3
    )
    run = run_through(SimulatedRun(**{**SMALL, "max_rollbacks": 10**6}), cycle * 20)
    settled = leaves(run.monitor.state_dict())

    for _ in range(8):
        run_through(run, cycle * 5)
        assert leaves(run.monitor.state_dict()) <= settled * 1.1
    assert not run.monitor.policy.gave_up


# -- resuming ----------------------------------------------------------------------------------------------------


def test_a_state_of_another_version_is_refused_with_a_remedy():
    state = Monitor(GuardConfig()).state_dict() | {"version": 99}

    with pytest.raises(
        ValueError, match=r"^expected a monitor state of version 1, received 99; resume with the version"
    ):
        Monitor(GuardConfig()).load_state_dict(state)


def test_without_the_snapshots_of_the_state_a_new_one_is_due_at_once():
    run = SimulatedRun()
    run.healthy(130)
    resumed = Monitor(run.monitor.config)

    resumed.load_state_dict(run.monitor.state_dict(), snapshots_kept=False)

    assert resumed.step == 130
    assert resumed.snapshot_is_due()
    assert resumed.limits() == run.monitor.limits()


def test_with_the_snapshots_of_the_state_a_rollback_reaches_behind_the_resume():
    run = SimulatedRun()
    run.healthy(160)

    run.save_and_resume()
    run.actions(3, grad_norm=math.nan)

    assert run.decisions[-1].restore_step == 100
    assert run.weights == 100.0


# -- several optimizers ------------------------------------------------------------------------------------------


def test_every_optimizer_has_a_history_of_its_own():
    run = SimulatedRun()
    for _ in range(60):
        run.attempt(stream=0, loss=1.0, grad_norm=1.0)
        run.attempt(stream=1, loss=1000.0, grad_norm=1000.0)

    assert run.codes == []
    run.attempt(stream=0, loss=1000.0, grad_norm=1000.0)
    assert run.codes == ["GRAD201", "LOSS401"]


def test_a_rollback_forgets_an_optimizer_that_came_later():
    run = SimulatedRun()
    run.healthy(20)
    for _ in range(20):
        run.attempt(stream=1)

    run.actions(3, grad_norm=math.nan)

    assert run.decisions[-1].restore_step == 0
    assert run.monitor.limits(1).max_loss == math.inf
