"""LOSS407: a loss that is back where it began, and whose fault that is."""

import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from nan_callbacks.core import Action, Finding, StepObservation
from nan_callbacks.core.relapse import RelapseWatch
from tests.core.simulated_run import SimulatedRun

LOST_AT = 120


def level(step: int) -> float:
    """Learnt within a hundred steps, and lost again."""
    return 1.4 if step >= LOST_AT else max(1.4 * 0.95**step, 0.01)


def questions(level: Callable[[int], float], steps: int = 400, *, spread: float = 0.1, **more: object) -> list[Finding]:
    draw, watch, found = random.Random(0), RelapseWatch(), []
    for step in range(steps):
        loss = level(step) * (1 + spread * draw.gauss(0, 1))
        question = watch.observe(StepObservation(step=step, loss=loss, grad_norm=1.0, **more))
        found += [] if question is None else [question]
    return found


def test_what_was_learnt_and_is_lost_is_asked_about_once():
    (asked,) = questions(level)
    assert (asked.code, asked.action) == ("LOSS407", Action.ROLLBACK)
    assert LOST_AT + 32 < asked.step < LOST_AT + 100


@pytest.mark.parametrize(
    "other",
    [
        lambda step: 1.4 if step < 40 else 1.3,
        lambda step: 1e-3 if step < LOST_AT else 4e-3,
        lambda step: max(1.4 * 0.95**step, 0.01) if step < LOST_AT else 0.3,
        lambda step: 0.3 + 1.1 * (step % 200) / 200,
        lambda step: level(step) if step < LOST_AT + 30 else 0.01,
        lambda step: level(step) - 2.0,
    ],
    ids=["never learnt", "learnt from the start", "a lull", "a saw", "mends itself", "below zero"],
)
def test_other_courses_of_a_loss_raise_no_question(other):
    assert questions(other) == []


def test_adversaries_raise_no_question():
    assert questions(level, competing=True) == []


def run_to_the_question(**settings: object) -> SimulatedRun:
    run = SimulatedRun(**settings)
    for step in range(LOST_AT + 100):
        run.attempt(loss=level(step))
        if run.monitor.question is not None:
            return run
    raise AssertionError("there was no question")


def test_if_it_is_proved_the_run_goes_back_to_a_snapshot_from_before():
    run = run_to_the_question()
    decision = run.monitor.settle(run.monitor.question, lambda: True)
    assert (decision.action, decision.lr_cut) == (Action.ROLLBACK, 0.5)
    assert 0 < decision.restore_step < LOST_AT
    assert run.monitor.question is None


def test_if_it_is_not_the_level_is_the_new_normal_and_snapshots_are_taken_again():
    run = run_to_the_question()
    asked = run.monitor.step
    assert run.monitor.settle(run.monitor.question, lambda: False) is None
    for _ in range(300):
        run.attempt(loss=1.4)
        assert run.monitor.question is None
    assert run.monitor.ledger.target().step > asked


def test_the_trusted_snapshot_is_asked_as_well_if_the_newest_knows_no_more():
    run = run_to_the_question()
    monitor, asked = run.monitor, []

    def is_proved() -> bool:
        asked.append(monitor.last_good().step)
        return len(asked) == 2

    monitor.ledger.newest = lambda: monitor.ledger._candidate
    monitor.ledger._candidate = replace(monitor.ledger.target(), slot=1, step=LOST_AT - 1)
    decision = monitor.settle(monitor.question, is_proved)
    assert asked == [LOST_AT - 1, decision.restore_step]


def test_what_comes_back_at_once_is_meant_and_the_cut_is_undone():
    """Weights that are pruned in every step; the trials do not prune."""
    run = run_to_the_question()
    run.monitor.settle(run.monitor.question, lambda: True)
    decisions = []
    for _ in range(500):
        run.attempt(loss=1.4)
        if run.monitor.question is not None:
            decisions.append(run.monitor.settle(run.monitor.question, lambda: True))
    (decision,) = decisions
    assert (decision.action, decision.level_accepted, decision.lr_scale) == (Action.OBSERVE, True, 1.0)


def test_what_comes_back_later_is_another_relapse():
    run = run_to_the_question()
    run.monitor.settle(run.monitor.question, lambda: True)
    for _ in range(150):
        run.attempt(loss=0.01)
    while run.monitor.question is None:
        run.attempt(loss=1.4)
    assert run.monitor.settle(run.monitor.question, lambda: True).action is Action.ROLLBACK


def test_a_rate_that_is_restarted_has_longer():
    def rates(step: int) -> tuple[float]:
        return (1e-3 if step < LOST_AT else 1e-1,)

    watch, asked = RelapseWatch(), []
    for step in range(500):
        seen = StepObservation(step=step, loss=level(step), grad_norm=1.0, learning_rates=rates(step))
        asked += [step] if watch.observe(seen) else []
    assert asked[0] > LOST_AT + 192


def test_who_observes_only_is_told_and_not_rolled_back():
    run = run_to_the_question(on_divergence="observe")
    decision = run.monitor.settle(run.monitor.question, lambda: True)
    assert decision.action is Action.OBSERVE
    assert [finding.code for finding in decision.findings] == ["LOSS407"]


def test_a_resumed_watch_asks_as_an_unbroken_one():
    one, other, asked = RelapseWatch(), RelapseWatch(), []
    for step in range(LOST_AT + 100):
        seen = StepObservation(step=step, loss=level(step), grad_norm=1.0)
        asked.append((one.observe(seen), other.observe(seen)))
        resumed = RelapseWatch()
        resumed.load_state_dict(json.loads(json.dumps(other.state_dict())))
        other = resumed
    assert all(first == second for first, second in asked)
    assert any(first for first, _ in asked)
