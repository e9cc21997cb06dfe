"""Limits: the reference of every gate."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nan_callbacks.core import GuardConfig, Limits, Monitor, StepObservation

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
LIMITS = st.builds(
    Limits,
    max_loss=st.floats(allow_nan=False),
    max_grad_norm=st.floats(min_value=0.0, allow_nan=False),
    max_statistics_jump=st.floats(min_value=0.0, allow_nan=False),
    admit_non_finite_loss=st.booleans(),
    admit_non_finite_gradients=st.booleans(),
    closed=st.booleans(),
)


@pytest.mark.parametrize(
    ("loss", "grad_norm", "jump", "admitted"),
    [
        (1.0, 2.0, 3.0, True),
        (1.1, 2.0, 3.0, False),
        (1.0, 2.1, 3.0, False),
        (1.0, 2.0, 3.1, False),
        (1.0, 2.0, math.inf, False),
        (-1e9, 0.0, 0.0, True),
        (None, 2.0, None, True),
        (None, 2.1, None, False),
        (1.0, None, None, True),
        (1.1, None, None, False),
        (None, None, None, True),
    ],
)
def test_a_step_is_admitted_up_to_and_including_every_limit(loss, grad_norm, jump, admitted):
    limits = Limits(max_loss=1.0, max_grad_norm=2.0, max_statistics_jump=3.0)

    assert limits.admits(loss, grad_norm, jump) is admitted


def test_closed_limits_admit_nothing():
    assert not Limits(closed=True, admit_non_finite_gradients=True).admits(0.0, 0.0)


def test_fresh_limits_admit_every_finite_step_and_no_other():
    assert Limits().admits(1e300, 1e300, 1e300)
    assert not Limits().admits(math.nan, 1.0)
    assert not Limits().admits(1.0, math.nan)


@given(one=LIMITS, other=LIMITS)
def test_the_stricter_number_wins_and_one_permission_is_enough(one: Limits, other: Limits):
    both = Limits.combined([one, other])

    assert both == Limits.combined([other, one])
    assert both.max_loss == min(one.max_loss, other.max_loss)
    assert both.max_grad_norm == min(one.max_grad_norm, other.max_grad_norm)
    assert both.max_statistics_jump == min(one.max_statistics_jump, other.max_statistics_jump)
    assert both.admit_non_finite_loss is (one.admit_non_finite_loss or other.admit_non_finite_loss)
    assert both.admit_non_finite_gradients is (one.admit_non_finite_gradients or other.admit_non_finite_gradients)
    assert both.closed is (one.closed or other.closed)


@given(limits=LIMITS, loss=NUMBERS, grad_norm=NUMBERS, jump=NUMBERS)
def test_a_larger_limit_never_drops_what_a_smaller_one_admits(limits: Limits, loss, grad_norm, jump):
    larger = replace(limits, max_loss=math.inf, max_grad_norm=math.inf, max_statistics_jump=math.inf)

    assert larger.admits(loss, grad_norm, jump) or not limits.admits(loss, grad_norm, jump)


def test_limits_stay_the_same_object_until_a_number_changes():
    """So that an adapter sends them to its device only then."""
    monitor = Monitor(GuardConfig(warmup_steps=8, window_size=16))
    seen, changes = [], 0
    for step in range(96):
        seen.append(monitor.limits())
        monitor.observe(StepObservation(step=step, loss=1.0 + 0.01 * (step % 3), grad_norm=1.0))
    for earlier, later in pairwise(seen[32:]):
        assert (earlier == later) == (earlier is later)
        changes += earlier is not later
    assert changes < 16
    monitor.observe(StepObservation(step=96, loss=4.0, grad_norm=1.0))
    assert monitor.limits() is not seen[-1]
    assert monitor.limits().max_loss > seen[-1].max_loss
