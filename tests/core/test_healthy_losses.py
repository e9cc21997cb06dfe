"""Losses as healthy runs show them cause no incident: nothing is flagged, skipped or rolled back."""

import pytest

from tests.core.series import HEALTHY, STEPS, log_normal
from tests.core.simulated_run import SimulatedRun


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_loss_passes_without_incident(name: str):
    run = SimulatedRun()

    run.follow(HEALTHY[name](), log_normal(seed=1))

    assert run.codes == []
    assert run.weights == STEPS
    assert run.monitor.lr_scale == 1.0


@pytest.mark.parametrize("name", ["falling_by_eight_orders", "periodic", "curriculum_switch", "constant"])
def test_a_gradient_norm_of_the_same_shape_passes_without_incident(name: str):
    run = SimulatedRun()

    run.follow(log_normal(seed=1), HEALTHY[name]())

    assert run.codes == []
    assert run.weights == STEPS


@pytest.mark.parametrize("name", HEALTHY)
def test_a_spike_at_the_end_of_a_healthy_loss_is_still_seen(name: str):
    losses = HEALTHY[name]()
    run = SimulatedRun()
    run.follow(losses)

    decision = run.attempt(loss=1e6)

    assert [finding.code for finding in decision.findings] == ["LOSS401"]
    assert run.weights == STEPS


def test_a_loss_that_is_zero_at_first_is_no_spike_when_it_wakes_up():
    run = SimulatedRun()

    run.follow([0.0] * 10 + [3.0] + [0.0, 1.0] * 50)

    assert run.codes == []


def test_gradients_that_are_exactly_zero_leave_no_trace():
    run = SimulatedRun()

    run.follow([0.5] * 400, [0.0, 0.0, 0.0, 2.0] * 100)

    assert run.codes == []
    assert run.limits[-1].max_grad_norm >= 10 * 2.0
