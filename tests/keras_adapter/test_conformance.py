"""Keras is held to the same table of scenarios and to the same streams as Lightning, on the backend of this process."""

import pytest

from tests.conformance import lightning_runner
from tests.conformance.bare_core import BareCore
from tests.conformance.expectations import apart, discrepancies, dropped_at_their_limits
from tests.conformance.keras_runner import run
from tests.conformance.keras_seam import KerasSeam, as_limits
from tests.conformance.lightning_seam import LightningSeam
from tests.conformance.record import story_of
from tests.conformance.scenarios import REPLAYABLE, SCENARIOS
from tests.conformance.streams import STREAMS, recorded
from tests.keras_adapter.runs import BACKEND

ROUNDING = 5e-4
"""Largest relative difference between the numbers of two frameworks after up to 100 steps, seen: 1e-4."""
JUMPS = 2e-3
"""The same for running variances: torch divides by n - 1, Keras by n."""
OTHER_NUMBERS = {("tensorflow", "an optimizer that divides by zero all the time")}
"""Keras on TensorFlow updates an embedding from sparse gradients, and Adam's moments then differ."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_table_holds(name):
    assert discrepancies(SCENARIOS[name], run) == {}


@pytest.mark.parametrize("name", [name for name in SCENARIOS if (BACKEND, name) not in OTHER_NUMBERS])
def test_numbers_and_limits_are_those_of_lightning(name):
    difference = apart(run(SCENARIOS[name]), lightning_runner.run(SCENARIOS[name]))

    jumps = [difference.pop(key) for key in ("statistics_jump", "max_statistics_jump")]
    assert max(jumps) < JUMPS
    assert max(difference.values()) < ROUNDING


def test_a_step_exactly_at_its_limit_passes():
    assert dropped_at_their_limits(SCENARIOS["a healthy network"], run) == []


@pytest.mark.parametrize("name", STREAMS)
def test_keras_decides_as_lightning_and_the_core_do(name):
    expected, other, seam = (
        BareCore(STREAMS[name]).play(),
        LightningSeam(STREAMS[name]).play(),
        KerasSeam(STREAMS[name]),
    )

    played = seam.play()

    assert played.lines() == expected.lines() == other.lines()
    assert played.limits == expected.limits == other.limits
    assert repr(played.decisions) == repr(expected.decisions) == repr(other.decisions)
    assert played.snapshots == expected.snapshots == other.snapshots
    assert_rounded_down(seam.rows, played.limits)


def assert_rounded_down(rows, limits):
    """What the compiled steps were given is what the core says, as nearly as float32 can and never more."""
    for row, limit in zip(rows, limits, strict=True):
        given = as_limits(row)
        assert given.closed is limit.closed
        assert given.admit_non_finite_loss is limit.admit_non_finite_loss
        assert given.admit_non_finite_gradients is limit.admit_non_finite_gradients
        for attribute in ("max_loss", "max_grad_norm", "max_statistics_jump"):
            rounded, exact = getattr(given, attribute), getattr(limit, attribute)
            assert rounded == exact or exact * (1.0 - 2.0**-23) < rounded < exact


@pytest.mark.parametrize("name", REPLAYABLE)
def test_a_run_recorded_on_lightning_is_judged_as_it_was(name):
    scenario = SCENARIOS[name]
    stream = recorded(lightning_runner.run(scenario).observations, scenario.settings)

    assert story_of(KerasSeam(stream).play().events) == list(scenario.story)
