"""RollingWindow and the robust statistics, against slow twins that are obviously right."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nan_callbacks.core.statistics import MAD_TO_SIGMA, median, robust_sigma_of_sorted, robust_z
from nan_callbacks.core.window import RollingWindow

# Coarse values make ties, which is where a sorted window can lose the wrong twin.
VALUES = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e12, 1e12))
STREAMS = st.lists(VALUES, min_size=1, max_size=60)
NON_FINITE = [math.nan, math.inf, -math.inf]


def filled(values: list[float], size: int = 10) -> RollingWindow:
    window = RollingWindow(size)
    for value in values:
        window.append(value)
    return window


@given(values=STREAMS, size=st.integers(1, 20))
def test_median_and_spread_are_those_of_the_last_values(values: list[float], size: int):
    window = filled(values, size)
    kept = values[-size:]

    assert window.values == kept
    assert len(window) == len(kept)
    assert window.smallest == min(kept)
    assert window.largest == max(kept)
    center = statistics.median(kept)
    assert window.center == pytest.approx(center, rel=1e-12)
    twin = 1.4826 * float(np.median(np.abs(np.array(kept) - center)))
    assert window.sigma == pytest.approx(twin, rel=1e-9, abs=1e-12 * max(map(abs, kept)))


@given(values=STREAMS, size=st.integers(1, 20))
def test_the_spread_is_right_after_every_single_value(values: list[float], size: int):
    window = RollingWindow(size)
    for value in values:
        window.append(value)
        assert window.sigma == robust_sigma_of_sorted(sorted(window.values))


@pytest.mark.parametrize("value", NON_FINITE)
def test_a_non_finite_value_is_refused_and_changes_nothing(value: float):
    window = filled([1.0, 2.0, 3.0])

    with pytest.raises(ValueError, match=r"^a window accepts finite values only, received (nan|inf|-inf)\.$"):
        window.append(value)

    assert window.values == [1.0, 2.0, 3.0]
    assert window.center == 2.0


@given(values=STREAMS, more=STREAMS, size=st.integers(1, 20))
def test_a_restored_window_goes_on_like_the_old_one(values: list[float], more: list[float], size: int):
    old = filled(values, size)
    new = filled([7.0], size)
    new.load_state_dict(old.state_dict())

    for value in more:
        old.append(value)
        new.append(value)
        assert (new.values, new.center, new.sigma) == (old.values, old.center, old.sigma)


def test_a_cleared_window_is_empty():
    window = filled([1.0, 2.0])

    window.clear()

    assert window.values == []
    assert len(window) == 0


@pytest.mark.parametrize("size", [0, -1])
def test_a_window_without_room_is_refused(size: int):
    with pytest.raises(ValueError, match=rf"^`size` must be >= 1 value, received {size}\.$"):
        RollingWindow(size)


def test_the_factor_makes_the_mad_a_standard_deviation_for_normal_values():
    assert pytest.approx(1.0 / statistics.NormalDist().inv_cdf(0.75), rel=1e-4) == MAD_TO_SIGMA
    sample = sorted(np.random.default_rng(0).normal(5.0, 2.0, 20_001).tolist())
    assert robust_sigma_of_sorted(sample) == pytest.approx(2.0, rel=0.03)


def test_a_quarter_of_outliers_hardly_moves_median_and_spread():
    values = [*np.linspace(0.0, 1.0, 75), *[1e9] * 25]

    assert median(values) < 1.0
    assert robust_sigma_of_sorted(sorted(values)) < 1.0


@pytest.mark.parametrize(("value", "z"), [(7.0, 2.0), (1.0, -1.0), (3.0, 0.0)], ids=["above", "below", "in the middle"])
def test_robust_z_counts_spreads(value: float, z: float):
    assert robust_z(value, center=3.0, sigma=2.0) == z


def test_without_spread_every_difference_is_infinitely_far():
    assert robust_z(3.0, 3.0, 0.0) == 0.0
    assert robust_z(3.1, 3.0, 0.0) == math.inf
    assert robust_z(2.9, 3.0, 0.0) == -math.inf


def test_one_value_has_no_spread():
    assert robust_sigma_of_sorted([4.0]) == 0.0
