"""Rows far outside of all others, and numbers that stand for a missing one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nan_callbacks.checkup.outliers import outlying
from tests.checkup.facts import normal, numbers


def told(values, **more):
    return [(notice.kind, notice.where) for notice in outlying(numbers(values, **more))]


@given(
    rows=st.integers(100, 400),
    columns=st.integers(1, 12),
    factor=st.sampled_from([1e3, 1e10, 1e30, -1e3]),
    dtype=st.sampled_from(["float32", "float64"]),
    data=st.data(),
)
def test_a_wild_value_is_always_found(rows, columns, factor, dtype, data):
    values = normal(rows, columns).astype(dtype)
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    values[row, column] = factor
    (notice,) = outlying(numbers(values))
    assert notice.kind == "outlier"
    assert notice.where == ("batch[0]" if columns == 1 else f"batch[0], channel {column}")
    assert notice.evidence[0].startswith(f"Row {row}:")


@given(
    rows=st.integers(1, 400),
    columns=st.integers(1, 12),
    draw=st.sampled_from(["standard_normal", "standard_exponential", "standard_t", "lognormal", "random", "poisson"]),
    seed=st.integers(0, 200),
)
def test_heavy_tails_are_no_outliers(rows, columns, draw, seed):
    generator = np.random.default_rng(seed)
    options = {"standard_t": {"df": 3}, "lognormal": {"sigma": 1.0}}.get(draw, {})
    values = getattr(generator, draw)(size=(rows, columns), **options).astype(np.float32)
    assert told(values) == []


def test_several_wild_rows_are_counted():
    values = normal(1000, 3)
    values[[5, 70, 400], 1] = [1e6, -2e6, 3e6]
    (notice,) = outlying(numbers(values))
    assert "Rows 5, 70 and 400: a value of 3e+06" in notice.evidence[0]


def test_more_than_a_hundredth_are_a_population():
    values = normal(1000, 1)
    values[:50] += 1e4 * (1 + np.random.default_rng(0).random((50, 1)))
    assert told(values) == []


@pytest.mark.parametrize("mark", [-999.0, 9999.0, -1.0e10, 1e30])
def test_a_value_for_a_missing_one_is_known(mark):
    values = normal(200, 4)
    values[::7, 2] = mark
    (notice,) = outlying(numbers(values))
    assert (notice.kind, notice.where) == ("sentinel", "batch[0], channel 2")
    assert f"The value {mark:g} occurs 29 times" in notice.evidence[0]


@pytest.mark.parametrize("mark", [0.0, -1.0, 3.0])
def test_a_mark_among_the_other_values_is_none(mark):
    values = normal(200, 4)
    values[::7, 2] = mark
    assert told(values) == []


def test_rare_features_are_no_outliers():
    values = normal(200, 4)
    values[:, 1] = 0
    values[7, 1] = 1
    assert told(values) == []


@pytest.mark.parametrize("rows", [0, 1, 15])
def test_too_few_rows_say_nothing(rows):
    values = normal(rows, 3)
    values[:1] = 1e9
    assert told(values) == []


def test_sixteen_rows_are_enough():
    values = normal(16, 3)
    values[4, 0] = 1e6
    assert told(values) == [("outlier", "batch[0], channel 0")]


def test_pixels_of_one_wild_image_count_by_their_channel():
    values = normal(64, 3, 8, 8)
    values[9, 2, 4, 4] = 1e5
    assert told(values, channel_axis=1) == [("outlier", "batch[0], channel 2")]


@pytest.mark.parametrize("spoil", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_another_matter(spoil):
    values = normal(64, 3)
    values[3] = spoil
    assert told(values) == []
    assert told(np.full((64, 3), spoil, np.float32)) == []


def test_a_wild_row_beside_nans_is_found():
    values = normal(64, 3)
    values[3], values[9, 1] = np.nan, 1e6
    values[:, 2] = np.nan
    assert told(values) == [("outlier", "batch[0], channel 1")]


@pytest.mark.parametrize("values", [np.zeros((64, 3)), np.full((64, 3), 1e308), np.tile([[1e308], [-1e308]], (32, 1))])
def test_constants_and_huge_numbers_do_no_harm(values):
    assert told(values) == []


def test_the_largest_number_is_an_outlier():
    values = normal(64, 3).astype(np.float64)
    values[5, 1] = -1.7e308
    assert told(values) == [("outlier", "batch[0], channel 1")]


def test_half_precision_repeats_its_largest_values():
    values = normal(4000, 2).astype(np.float16)
    assert told(values) == []


@pytest.mark.parametrize("values", [np.arange(64).reshape(32, 2), np.ones((32, 2), bool)])
def test_whole_numbers_are_left_alone(values):
    assert told(values) == []
