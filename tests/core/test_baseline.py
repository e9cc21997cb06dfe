"""Baseline: the limit that follows from a series' own history."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nan_callbacks.core.baseline import MAX_PEAK_RATIO, MEMORY_BLOCKS, MIN_VALUES, Baseline, BaselineSettings

SETTINGS = BaselineSettings(
    window_size=16,
    warmup_steps=5,
    z_threshold=8.0,
    min_ratio=10.0,
    peak_ratio=5.0,
    memory_ratio=2.0,
    warmup_ratio=30.0,
)
# A range in which scaling by 2^30 stays exact: no overflow, no subnormal numbers.
POSITIVE = st.lists(st.floats(1e-9, 1e9), min_size=MIN_VALUES, max_size=60)
SIGNED = st.lists(st.floats(-1e9, 1e9).filter(lambda x: x == 0 or abs(x) > 1e-9), min_size=MIN_VALUES, max_size=60)
SCALES = st.integers(-30, 30).map(lambda exponent: 2.0**exponent)
ANY_FLOATS = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=60)


def learned(values: list[float], settings: BaselineSettings = SETTINGS) -> Baseline:
    baseline = Baseline(settings)
    for value in values:
        baseline.learn(value)
    return baseline


@given(values=POSITIVE, scale=SCALES)
def test_scaling_a_positive_series_scales_its_limit(values: list[float], scale: float):
    plain, scaled = learned(values), learned([scale * value for value in values])

    assert plain.is_positive
    assert scaled.limit() == pytest.approx(scale * plain.limit(), rel=1e-6)


@given(values=SIGNED, scale=SCALES)
def test_scaling_a_signed_series_scales_its_limit(values: list[float], scale: float):
    signed = [*values, -1.0]  # one value below zero makes it a signed one

    plain, scaled = learned(signed), learned([scale * value for value in signed])

    assert not plain.is_positive
    assert scaled.limit() == pytest.approx(scale * plain.limit(), rel=1e-6)


@given(values=ANY_FLOATS)
def test_a_limit_is_a_number_and_never_below_what_was_accepted(values: list[float]):
    baseline = Baseline(SETTINGS)
    for position, value in enumerate(values, start=1):
        baseline.learn(value)
        assert baseline.limit() >= max(values[max(0, position - SETTINGS.window_size) : position])


@given(values=SIGNED, offset=st.sampled_from([-1e10, 1e10, 0.0]))
def test_of_whatever_sign_a_value_among_the_others_is_no_spike(values: list[float], offset: float):
    shifted = [value + offset for value in values]

    limit = learned(shifted).limit()

    assert limit > max(shifted[-SETTINGS.window_size :]) or limit == math.inf


@given(values=ANY_FLOATS, more=ANY_FLOATS)
def test_a_restored_baseline_goes_on_like_the_old_one(values: list[float], more: list[float]):
    old = learned(values)
    new = Baseline(SETTINGS)
    new.load_state_dict(json.loads(json.dumps(old.state_dict(), allow_nan=False)))

    assert (new.limit(), len(new), new.is_positive) == (old.limit(), len(old), old.is_positive)
    for value in more:
        old.learn(value)
        new.learn(value)
        assert (new.limit(), new.z(1.0)) == (old.limit(), old.z(1.0))


@given(values=ANY_FLOATS, bad=st.sampled_from([math.nan, math.inf, -math.inf]))
def test_a_non_finite_value_is_refused_and_changes_nothing(values: list[float], bad: float):
    baseline = learned(values)
    before = (baseline.state_dict(), baseline.limit())

    with pytest.raises(ValueError, match="finite values only"):
        baseline.learn(bad)

    assert (baseline.state_dict(), baseline.limit()) == before


def test_memory_is_bounded():
    baseline = Baseline(SETTINGS)
    for step in range(100_000):
        baseline.learn(1.0 + step % 7)

    assert len(baseline) == SETTINGS.window_size
    assert {name: len(kept) for name, kept in baseline.state_dict().items() if isinstance(kept, list)} == {
        "raw": SETTINGS.window_size,
        "maxima": MEMORY_BLOCKS,
    }


def test_nothing_is_a_spike_before_the_first_values():
    baseline = Baseline(SETTINGS)

    for _ in range(MIN_VALUES):
        assert baseline.limit() == math.inf
        baseline.learn(1.0)

    assert baseline.limit() < math.inf


def test_the_limit_of_warm_up_is_a_multiple_of_the_largest_value():
    assert learned([1.0, 4.0, 2.0]).limit() == 30.0 * 4.0


def test_zeros_alone_set_no_limit():
    assert learned([0.0] * 3).limit() == math.inf
    assert learned([0.0] * 16).limit() == math.inf


def test_the_limit_of_a_calm_series_is_the_smallest_ratio():
    assert learned([2.0] * 16).limit() == pytest.approx(10.0 * 2.0)


def test_a_noisy_series_gets_a_wider_limit_than_a_calm_one():
    calm = learned([0.9, 1.0, 1.1, 1.0] * 4)
    noisy = learned([0.1, 1.0, 10.0, 1.0] * 4)

    assert calm.limit() == pytest.approx(10.0)
    assert noisy.limit() == pytest.approx(MAX_PEAK_RATIO * 10.0)


def test_what_the_run_has_survived_is_no_spike_until_it_is_long_ago():
    baseline = learned([100.0] + [1.0] * 20)
    assert baseline.limit() == 200.0

    for _ in range(MEMORY_BLOCKS * SETTINGS.window_size):
        baseline.learn(1.0)

    assert baseline.limit() == pytest.approx(10.0)


def test_the_limit_of_a_negative_series_lies_its_own_magnitude_above_it():
    assert learned([-101.0, -100.0, -99.0] * 5).limit() == pytest.approx(-100.0 + 10.0 * 100.0)


def test_a_signed_series_remembers_as_well_what_the_run_has_survived():
    assert learned([1000.0] + [-1.0, 0.0, 1.0] * 6).limit() == pytest.approx(2.0 * 1000.0)


def test_the_robust_distance_is_that_of_the_logarithms():
    baseline = learned([math.exp(x) for x in (-1.0, 0.0, 1.0)] * 5)

    assert baseline.z(math.e**1.4826) == pytest.approx(1.0)
    assert baseline.z(1.0) == 0.0


def test_the_robust_distance_of_a_signed_series_is_linear():
    assert learned([-1.0, 0.0, 1.0] * 5).z(2 * 1.4826) == pytest.approx(2.0)


def test_there_is_no_robust_distance_during_warm_up_nor_of_nan():
    assert learned([1.0] * 4).z(2.0) is None
    assert learned([1.0] * 5).z(math.nan) is None


def test_a_series_is_judged_in_log_space_again_once_its_last_zero_is_gone():
    baseline = learned([1.0] * 5 + [0.0] + [1.0] * 15)
    assert not baseline.is_positive

    baseline.learn(1.0)

    assert baseline.is_positive


def test_a_reset_baseline_has_no_limit():
    baseline = learned([1.0] * 20)

    baseline.reset()

    assert baseline.limit() == math.inf
    assert baseline.state_dict() == Baseline(SETTINGS).state_dict()
