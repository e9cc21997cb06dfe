"""Inputs: non-finite, unscaled, constant, outside of their table."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nan_callbacks.checkup.facts import Lookup
from nan_callbacks.checkup.inputs import examine_inputs
from nan_callbacks.checkup.lookups import over_all_rows
from nan_callbacks.checkup.rules import judge
from tests.checkup.facts import healthy, indices, normal, numbers, of_input, said

SHAPES = ((16,), (16, 1), (32, 7), (64, 100), (16, 3, 5), (16, 4, 4, 3))


# -- healthy ---------------------------------------------------------------------------------------------------------


@given(
    shape=st.sampled_from(SHAPES),
    scale=st.floats(0.2, 5.0),
    shift=st.floats(-2.0, 2.0),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    axis=st.sampled_from([-1, 1]),
    seed=st.integers(0, 1000),
)
def test_nothing_about_normal_inputs_of_any_shape(shape, scale, shift, dtype, axis, seed):
    values = (scale * normal(*shape, seed=seed) + shift).astype(dtype)
    assert of_input(numbers(values, channel_axis=axis if len(shape) > 1 else -1)) == []


@given(rows=st.integers(1, 15), columns=st.integers(1, 40), seed=st.integers(0, 1000))
def test_nothing_about_a_batch_of_few_rows(rows, columns, seed):
    assert of_input(numbers(normal(rows, columns, seed=seed))) == []


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_few_rows_of_a_thousand_columns_do_not_differ_in_scale(rows):
    assert of_input(numbers(normal(rows, 1000))) == []


@pytest.mark.parametrize("use", ["numbers", "indices", "mask", "unknown"])
@pytest.mark.parametrize("shape", [(0,), (0, 8), (8, 0), (0, 0)])
def test_nothing_about_empty_inputs(use, shape):
    assert of_input(numbers(np.empty(shape, np.float32), use=use)) == []


@pytest.mark.parametrize("values", [np.array(["a", "b"]), np.array([None, 3], object), np.array([1 + 2j])])
def test_inputs_that_are_no_numbers_are_left_alone(values):
    assert of_input(numbers(values)) == []


def test_scaled_pixels_and_one_hot_columns_are_healthy():
    generator = np.random.default_rng(0)
    pixels = generator.random((64, 3, 16, 16), np.float32)
    assert of_input(numbers(pixels, channel_axis=1)) == []
    assert of_input(numbers(np.eye(8, dtype=np.float32)[generator.integers(0, 8, 64)])) == []


# -- NaN and Inf -----------------------------------------------------------------------------------------------------


@given(
    shape=st.sampled_from([(1,), (1, 1), *SHAPES]),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    use=st.sampled_from(["numbers", "indices", "unknown"]),
    place=st.floats(0, 1, exclude_max=True),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
)
def test_a_spoiled_value_is_always_found(shape, value, use, place, dtype):
    values = np.ones(shape, dtype) if use == "indices" else normal(*shape).astype(dtype)
    if values.size == 1 and value == -np.inf:  # nothing but -Inf looks like a mask
        return
    values.flat[int(place * values.size)] = value
    assert ("DATA501", "inputs") in of_input(numbers(values, use=use, lookups=indices(values).lookups))


def test_rows_and_columns_of_nans_are_told():
    values = normal(64, 8)
    values[[3, 17], 5] = np.nan
    (notice,) = judged(numbers(values))
    assert notice.severity.name == "ERROR"
    assert notice.where == "batch[0]"
    assert "2 of 512 values are NaN or Inf, in rows 3 and 17." in notice.evidence
    assert "Column: 5." in notice.evidence


def test_nothing_but_nan_is_told_once():
    assert of_input(numbers(np.full((64, 8), np.nan))) == [("DATA501", "inputs")]


def test_a_column_of_nans_does_not_hide_an_unscaled_one():
    values = normal(64, 8)
    values[:, 0] = np.nan
    values[:, 1] *= 1000
    assert of_input(numbers(values)) == [("DATA501", "inputs"), ("DATA502", "scale")]


@pytest.mark.parametrize("values", [np.where(normal(8, 8) > 0, 0, -np.inf), np.zeros((8, 8), bool)])
def test_minus_infinity_of_a_mask_is_meant(values):
    assert of_input(numbers(values, use="unknown")) == []


# -- scale -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [20, 1e3, 1e20, 1e300, 1.7e308 / 5])
def test_large_inputs_are_unscaled(factor):
    values = factor * normal(64, 8).astype(np.float64)
    assert of_input(numbers(values)) == [("DATA502", "scale")]


def test_large_numbers_of_half_precision_are_unscaled():
    assert of_input(numbers((1e4 * normal(64, 8)).astype(np.float16))) == [("DATA502", "scale")]


@pytest.mark.parametrize("factor", [1e-4, 1e-30, 1e-300])
def test_tiny_inputs_are_unscaled(factor):
    assert of_input(numbers(factor * normal(64, 8).astype(np.float64))) == [("DATA502", "scale")]


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_bytes_of_images_are_known(dtype):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 3, 8, 8)).astype(dtype)
    assert of_input(numbers(pixels, channel_axis=1)) == [("DATA502", "image_range")]


@pytest.mark.parametrize("shape", [(64,), (64, 8)])
def test_whole_numbers_in_the_columns_of_a_table_are_no_images(shape):
    ages = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    (notice,) = judged(numbers(ages))
    assert (notice.code, notice.kind) == ("DATA502", "scale")
    assert "8-bit" not in notice.describe()


@pytest.mark.parametrize(
    ("framework", "advice"), [("torch", "by 255"), ("lightning", "by 255"), ("keras", "Rescaling(1/255)")]
)
def test_images_are_to_be_divided_by_255(framework, advice):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3)).astype(np.uint8)
    told = [each for each in judge(healthy(framework=framework, inputs=(numbers(pixels),))) if each.code == "DATA502"]
    assert advice in told[0].remedy


def test_pixels_that_the_model_rescales_are_healthy():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3)).astype(np.uint8)
    assert of_input(numbers(pixels, received=pixels.astype(np.float32) / 255)) == []


def test_what_the_first_layer_receives_counts():
    values = normal(64, 8)
    assert of_input(numbers(values, received=500 * values)) == [("DATA502", "scale")]


def test_a_large_mean_is_a_large_scale():
    assert of_input(numbers(1000 + normal(64, 8))) == [("DATA502", "scale")]


def test_columns_of_different_scales():
    values = normal(64, 8)
    values[:, 3] *= 1e-5
    assert of_input(numbers(values)) == [("DATA502", "feature_scales")]


def test_the_unscaled_column_is_named():
    values = normal(64, 8)
    values[:, 3] *= 1e5
    (notice,) = judged(numbers(values, first_layer="net.0"))
    assert "net.0" in notice.evidence[0]
    assert "channel 3" in notice.evidence[0]


@pytest.mark.parametrize("rows", [32, 64, 256])
def test_one_wild_row_is_no_scale(rows):
    values = normal(rows, 8)
    values[7] *= 1e4
    assert of_input(numbers(values)) == [("DATA503", "outlier")]


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_extremes_of_integers_are_unscaled(dtype):
    info = np.iinfo(dtype)
    values = np.random.default_rng(0).integers(info.min, info.max, (64, 4), dtype=dtype, endpoint=True)
    assert [code for code, _ in of_input(numbers(values))] == ["DATA502"]


def test_zeros_and_ones_of_integers_are_healthy():
    values = np.random.default_rng(0).integers(0, 2, (64, 4))
    assert of_input(numbers(values)) == []
    assert of_input(numbers(values.astype(bool))) == []


# -- constant --------------------------------------------------------------------------------------------------------


def test_a_constant_column_is_named():
    values = normal(64, 8)
    values[:, 2] = 1.5
    (notice,) = judged(numbers(values))
    assert (notice.code, notice.kind, notice.severity.name) == ("DATA506", "feature", "WARNING")
    assert "2 (always 1.5)" in notice.evidence[0]


@pytest.mark.parametrize("value", [0.5, 0.0, -1.0])
def test_inputs_that_never_change_are_an_error(value):
    assert of_input(numbers(np.full((64, 8), value, np.float32))) == [("DATA506", "all_constant")]


def test_constant_columns_of_a_small_batch_say_nothing():
    values = normal(31, 8)
    values[:, 2] = 1.5
    assert of_input(numbers(values)) == []


def test_words_that_did_not_occur_are_usual():
    values = np.abs(normal(64, 100))
    values[np.random.default_rng(1).random(values.shape) < 0.8] = 0
    values[:, :9] = 0
    assert of_input(numbers(values)) == []


def test_dark_pixels_at_the_rim_are_information():
    values = normal(64, 100)
    values[:, :9] = 0
    (notice,) = judged(numbers(values))
    assert (notice.code, notice.severity.name) == ("DATA506", "INFO")


# -- indices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64", "float32", "float16"])
def test_indices_within_their_table_are_healthy(dtype):
    assert of_input(indices(np.arange(64).reshape(16, 4).astype(dtype) % 10)) == []


@given(rows=st.integers(1, 1000), beyond=st.integers(0, 100), below=st.booleans(), dtype=st.sampled_from("ilf"))
@example(rows=10, beyond=0, below=False, dtype="l")
def test_an_index_beyond_its_table_is_always_found(rows, beyond, below, dtype):
    values = np.zeros((8, 4), dtype)
    values[5, 2] = -1 - beyond if below else rows + beyond
    (notice,) = judged(indices(values, rows))
    assert (notice.code, notice.kind) == ("DATA511", "index")
    assert "row 5" in notice.evidence[0]


@pytest.mark.parametrize("value", [np.iinfo(np.int64).min, np.iinfo(np.int64).max])
def test_extreme_indices_are_told(value):
    assert of_input(indices(np.array([[0, value]]))) == [("DATA511", "index")]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_spoiled_index_beside_one_beyond_the_table(value):
    told = of_input(indices(np.array([[0.0, value], [12.0, 3.0]])))
    assert ("DATA501", "inputs") in told
    assert ("DATA511", "index") in told


def test_nothing_is_known_of_a_table_without_rows():
    assert of_input(indices(np.array([[0, 10**9]]), None)) == []


def test_every_table_is_judged_by_what_it_receives():
    values = np.arange(64).reshape(16, 4)
    columns = [Lookup(table=f"table{at}", rows=4 * 15 + at + 1, values=values[:, at]) for at in range(4)]
    assert of_input(indices(values, None, lookups=tuple(columns))) == []
    short = [replace(each, rows=each.rows - 1) for each in columns[1:3]]
    told = judged(indices(values, None, lookups=(columns[0], *short, columns[3])))
    assert [each.code for each in told] == ["DATA511"] * 2
    assert ["table1" in told[0].evidence[0], "table2" in told[1].evidence[0]] == [True, True]
    assert "in row 15;" in told[0].evidence[0]


def test_rows_of_one_batch_are_not_told_as_those_of_the_data():
    part = Lookup(table="table", rows=2, values=np.array([0, 5]))
    (notice,) = judged(indices(np.zeros((64, 4), int), None, lookups=(part,)))
    assert "in the first batch" in notice.evidence[0]


def test_a_table_beside_numbers_is_judged():
    part = Lookup(table="table", rows=2, values=np.arange(64))
    assert of_input(numbers(normal(64, 4), lookups=(part,))) == [("DATA511", "index")]


BATCH = np.random.default_rng(0).integers(0, 100, (8, 5, 3))
ALL = np.concatenate([BATCH, np.random.default_rng(1).integers(0, 100, (16, 5, 3))])


@pytest.mark.parametrize(
    "part",
    [
        lambda x: x,
        lambda x: x.reshape(-1),
        lambda x: np.moveaxis(x, 0, 1),
        lambda x: x[..., 1],
        lambda x: x[..., 1:],
        lambda x: x[:, 2],
        lambda x: x[:, :-1],
    ],
)
def test_parts_of_an_input_are_found_again_in_all_rows(part):
    found = over_all_rows(part(BATCH), BATCH, ALL)
    assert np.array_equal(np.sort(found, axis=None), np.sort(part(ALL), axis=None))


@pytest.mark.parametrize("other", [BATCH + 1, BATCH[:4], BATCH[:, ::2], BATCH[..., 0] + 1, np.empty(0), np.zeros(7)])
def test_what_is_no_part_of_an_input_is_not_found_in_it(other):
    assert over_all_rows(other, BATCH, ALL) is None


def test_columns_that_are_alike_are_not_told_apart():
    assert over_all_rows(np.zeros(8), np.zeros((8, 3)), np.zeros((16, 3))) is None


# -- other -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.5, np.nan, 1e308, 7])
@pytest.mark.parametrize("use", ["numbers", "indices", "mask", "unknown"])
def test_a_single_number_does_no_harm(value, use):
    of_input(numbers(np.array(value), use=use, lookups=indices(value).lookups))


@pytest.mark.parametrize("use", ["mask", "unknown"])
def test_inputs_that_reach_no_layer_have_no_scale(use):
    assert of_input(numbers(1e6 * normal(64, 8), use=use)) == []


def test_each_input_is_told_by_its_name():
    facts = healthy(inputs=(numbers(normal(64, 8)), numbers(1e6 * normal(64, 8), name="batch['b']")), losses=())
    assert said(facts) == [("DATA502", "scale")]
    assert [notice.where for notice in judged(*facts.inputs)] == ["batch['b']"]


def judged(*inputs):
    rows = max(len(each.values) for each in inputs)
    return judge(healthy(inputs=inputs, losses=(), rows_read=rows)).notices


def test_token_ids_that_are_all_the_same_say_nothing():
    ids = indices(np.zeros((64, 5), np.int64), 9)
    found = list(examine_inputs((ids,), 64))

    assert [(each.code, each.kind) for each in found] == [("DATA506", "all_constant")]


def test_segments_of_single_sentences_are_all_the_same():
    words = indices(np.arange(320).reshape(64, 5) % 9, 9)
    segments = indices(np.zeros((64, 5), np.int64), 2, name="segments")
    assert list(examine_inputs((words, segments), 64)) == []


def test_token_ids_of_a_padded_batch_are_no_constant():
    values = np.zeros((64, 5), np.int64)
    values[3, 0] = 2
    ids = indices(values, 9)

    assert list(examine_inputs((ids,), 64)) == []


def test_one_sample_for_all_is_told_if_it_is_the_only_input():
    same = np.repeat(normal(1, 6), 64, axis=0)
    assert ("DATA506", "all_constant") in said(healthy(inputs=(numbers(same),)))
    grid = numbers(same, name="grid")
    assert ("DATA506", "all_constant") not in said(healthy(inputs=(numbers(normal(64, 6)), grid)))


@pytest.mark.parametrize("values", [np.empty((64, 0)), np.repeat([["a", "b"]], 64, axis=0)])
def test_nothing_and_text_are_not_compared(values):
    assert said(healthy(inputs=(numbers(values),))) == []


def test_gaps_that_the_model_is_made_for_are_meant():
    values = spoilt(normal(64, 8), np.nan)
    facts = numbers(values, batch_has_gaps=True)
    assert [each.code for each in examine_inputs((facts,), 64)] == ["DATA501"]
    assert list(examine_inputs((facts,), 64, sound=True)) == []
    assert [each.code for each in examine_inputs((numbers(values),), 64, sound=True)] == ["DATA501"]


def spoilt(values, value):
    values[5, 2] = value
    return values


def test_rows_are_named_as_the_data_set_counts_them():
    values = spoilt(normal(64, 8), np.nan)
    notices = judge(healthy(inputs=(numbers(values),), row_numbers=np.arange(0, 640, 10)))
    assert "in row 50." in notices.notices[0].evidence[0]


def test_the_number_of_an_outlying_row_is_that_of_the_data_set():
    values = spoilt(normal(64, 8), 1e6)
    notices = judge(healthy(inputs=(numbers(values),), row_numbers=np.arange(0, 640, 10)))
    assert notices.notices[0].evidence[0].startswith("Row 50: ")


def test_columns_whose_scale_fades_towards_a_rim_are_a_picture():
    spread = np.exp(-np.linspace(0, 12, 100))
    assert of_input(numbers(normal(64, 100) * spread)) == []
    assert of_input(numbers(normal(64, 100) * np.where(np.arange(100) == 7, 1e-4, 1))) == [
        ("DATA502", "feature_scales")
    ]
    assert of_input(numbers(normal(64, 5) * np.logspace(-4, 0, 5))) == [("DATA502", "feature_scales")]
