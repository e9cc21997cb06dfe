"""The cut of a rollback, when trials say that it must be deeper."""

import math

from nan_callbacks.core import Decision, StepObservation
from nan_callbacks.core.events import step_events
from tests.core.simulated_run import SimulatedRun


def rolled_back() -> tuple[SimulatedRun, Decision]:
    run = SimulatedRun()
    for _ in range(120):
        run.attempt()
    for _ in range(2):
        run.attempt(loss=math.nan)
    return run, run.attempt(loss=math.nan)


def test_trials_may_make_the_cut_of_a_rollback_deeper():
    run, decision = rolled_back()
    asked = []
    deeper = run.monitor.deepen(decision, lambda cut: asked.append(run.monitor.last_good().step) or cut / 4)
    assert asked == [decision.restore_step]
    assert (deeper.lr_cut, deeper.lr_scale, run.monitor.lr_scale) == (0.125, 0.125, 0.125)
    seen = StepObservation(step=122, loss=math.nan)
    assert any("× 0.125, now 0.125 of its schedule · trains best" in e["message"] for e in step_events(seen, deeper))


def test_a_cut_that_trials_do_not_deepen_stays_as_it_was_decided():
    run, decision = rolled_back()
    assert run.monitor.deepen(decision, lambda cut: cut) is decision
    assert run.monitor.lr_scale == 0.5


def test_only_a_rollback_of_a_single_optimizer_is_tried():
    def fail(cut: float) -> float:
        raise AssertionError("nothing was to be tried")

    run, decision = rolled_back()
    plain = run.attempt()
    assert run.monitor.deepen(plain, fail) is plain
    run.attempt(stream=1)
    assert run.monitor.deepen(decision, fail) is decision
