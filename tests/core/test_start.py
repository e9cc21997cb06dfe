"""LOSS408: which runs are asked about, what becomes of the first snapshot meanwhile, and what an answer leads to."""

import json
import math
import random

import pytest

from nan_callbacks.core import Action, GuardConfig, Monitor, StepObservation
from nan_callbacks.core.ledger import SLOTS
from nan_callbacks.core.start import AFTER, PATIENCE, BetterStart, StartWatch

BETTER = BetterStart(cut=0.125, steps=24, reached=0.3, at_this_rate=2.4, present=2.3)


def asked_at(level, steps=600, *, start=0, rates=lambda step: 1e-3, spread=0.05, **more):
    """The steps at which a watch has a question."""
    draw, watch, found = random.Random(0), StartWatch(), []
    for step in range(start, start + steps):
        loss = level(step) * (1 + spread * draw.gauss(0, 1))
        seen = StepObservation(step=step, loss=loss, grad_norm=1.0, learning_rates=(rates(step),), **more)
        found += [step] if watch.observe(seen) is not None else []
    return found


@pytest.mark.parametrize(
    "level",
    [lambda step: 2.3, lambda step: 2.3 if step < 2 else 9.0, lambda step: max(1.2, 2.3 - step / 50)],
    ids=["where it began", "above", "half of it, and no further"],
)
def test_a_loss_that_has_not_got_far_is_asked_about_once(level):
    assert asked_at(level) == [AFTER - 1]


@pytest.mark.parametrize(
    "level",
    [
        lambda step: 2.3 * 0.99**step,
        lambda step: 2.3 if step < 100 else 0.5,
        lambda step: 2.3 if step < 100 else 2.3 - 1.2 * (step - 100) / 100,
        lambda step: 1.0 - 0.01 * step,
        lambda step: -1.0,
    ],
    ids=["falls", "has fallen", "is falling", "crosses zero", "negative"],
)
def test_a_run_that_gets_on_is_not(level):
    assert asked_at(level) == []


def test_adversaries_and_runs_that_began_elsewhere_are_not():
    assert asked_at(lambda step: 2.3, competing=True) == []
    assert asked_at(lambda step: 2.3, start=300) == []


def test_a_rate_that_is_still_rising_is_waited_for():
    assert asked_at(lambda step: 2.3, rates=lambda step: 1e-6 * (step + 1)) == [PATIENCE - 1]


def test_steps_that_were_dropped_or_found_fault_with_are_no_part_of_it():
    watch = StartWatch()
    seen = [StepObservation(step=step, loss=2.3, grad_norm=1.0, applied=step % 2 == 0) for step in range(200)]
    assert all(watch.observe(each, incident=each.step % 4 == 0) is None for each in seen)


class Plateau:
    """Drives a monitor as an adapter does, over losses of its own choice, and answers its question."""

    def __init__(self, *, trials=True, **settings):
        self.monitor = Monitor(GuardConfig(**settings), trials=trials)
        self.slots, self.decisions, self.asked = {}, [], 0

    def go(self, steps, loss=2.3, answer=None):
        for _ in range(steps):
            monitor = self.monitor
            if monitor.snapshot_is_due():
                step = monitor.step
                self.slots[monitor.snapshot_slot()] = step
            decision = monitor.observe(StepObservation(step=monitor.step, loss=loss, grad_norm=1.0))
            if monitor.question is not None:
                self.asked += 1
                decision = monitor.settle(monitor.question, lambda: None, lambda: answer) or decision
            self.decisions.append(decision)
        return self.decisions[-1]


def test_the_first_snapshot_is_kept_beside_the_usual_ones_until_the_answer():
    run = Plateau()
    run.go(AFTER - 1)
    assert run.slots == {0: 0, 1: 150, 2: 100}
    assert (run.monitor.ledger.first().step, run.monitor.ledger.target().step) == (0, 100)
    assert run.monitor.ledger.slots() == set(range(SLOTS))
    run.go(1)
    assert run.asked == 1
    run.go(300)
    assert run.monitor.ledger.first() is None
    assert run.monitor.ledger.target().step > AFTER
    assert len(run.monitor.ledger.slots()) < SLOTS


@pytest.mark.parametrize("options", [{"trials": False}, {"trials": True}], ids=["nobody answers", "it has learnt"])
def test_otherwise_snapshots_are_what_they_have_always_been(options):
    run = Plateau(**options)
    run.go(1)
    run.go(159, loss=2.3 if not options["trials"] else 0.1)
    assert run.monitor.ledger.target().step == 100
    assert run.asked == 0


def test_a_proof_leads_back_to_the_first_weights_with_the_cut_that_was_tried():
    run = Plateau()
    decision = run.go(AFTER, answer=BETTER)
    assert (decision.action, decision.restore_step, decision.lr_cut) == (Action.ROLLBACK, 0, 0.125)
    assert run.monitor.lr_scale == 0.125
    (finding,) = decision.findings
    assert (finding.code, finding.detail) == ("LOSS408", BETTER.describe())
    assert run.monitor.ledger.target().step == 0


def test_the_witness_of_the_trials_is_the_first_snapshot():
    run = Plateau()
    run.go(AFTER - 1)
    witnesses = []
    run.monitor.observe(StepObservation(step=run.monitor.step, loss=2.3, grad_norm=1.0))
    run.monitor.settle(run.monitor.question, lambda: None, lambda: witnesses.append(run.monitor.last_good().step))
    assert witnesses == [0]


def test_a_run_that_gets_on_from_there_keeps_the_cut():
    run = Plateau()
    run.go(AFTER, answer=BETTER)
    run.go(2 * AFTER, loss=0.3)
    assert (run.asked, run.monitor.lr_scale) == (1, 0.125)


def test_one_that_does_no_better_gets_its_rate_back():
    run = Plateau()
    run.go(AFTER, answer=BETTER)
    decision = run.go(AFTER)
    assert run.asked == 2
    assert (decision.action, decision.level_accepted, decision.lr_scale) == (Action.OBSERVE, True, 1.0)
    run.go(600)
    assert run.asked == 2


def test_one_that_does_a_little_better_keeps_it():
    run = Plateau()
    run.go(AFTER, answer=BETTER)
    run.go(AFTER, loss=1.5)
    assert (run.asked, run.monitor.lr_scale) == (2, 0.125)


@pytest.mark.parametrize(("on_divergence", "action"), [("observe", Action.OBSERVE), ("stop", Action.STOP)])
def test_what_the_user_wants_instead_of_a_rollback(on_divergence, action):
    decision = Plateau(on_divergence=on_divergence).go(AFTER, answer=BETTER)
    assert decision.action is action
    assert [finding.code for finding in decision.findings] == ["LOSS408"]


def test_a_resumed_run_asks_as_an_unbroken_one_unless_its_snapshots_are_gone():
    def resumed(**kept):
        run = Plateau()
        run.go(120)
        state = json.loads(json.dumps(run.monitor.state_dict(), allow_nan=False))
        run.monitor = Monitor(run.monitor.config, trials=True)
        run.monitor.load_state_dict(state, **kept)
        run.go(AFTER, answer=BETTER)
        return run

    (rollback,) = [each for each in resumed().decisions if each.action is Action.ROLLBACK]
    assert rollback.restore_step == 0
    assert resumed(snapshots_kept=False).asked == 0


def test_an_overflow_is_told():
    told = BetterStart(cut=0.125, steps=24, reached=0.3, at_this_rate=math.inf, present=2.3).describe()
    assert told.endswith("at the full rate the same overflows")
