"""Integers that went around the end of their type."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nan_callbacks.checkup.concerns import concerns_of
from nan_callbacks.checkup.wrapped import fills_its_type, has_wrapped
from tests.checkup.facts import indices, numbers

NARROW = ("int8", "uint8", "int16", "uint16")


def told(values):
    return [notice.code for notice in has_wrapped(numbers(values))]


def whole(dtype, mean, spread, size=2000):
    """Integers around a mean in shares of the range, cast as people cast them."""
    info = np.iinfo(dtype)
    width = float(info.max) - float(info.min)
    drawn = np.random.default_rng(0).normal(info.min + mean * width, spread * width, size)
    return np.rint(drawn).astype(np.int64).astype(dtype).reshape(-1, 10)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_numbers_cast_beyond_the_end_are_found(dtype, mean):
    values = whole(dtype, mean, 0.03)
    (notice,) = has_wrapped(numbers(values))
    assert (notice.code, notice.kind, notice.severity.name) == ("DATA507", "wrapped", "ERROR")
    assert dtype in notice.evidence[0]


@given(dtype=st.sampled_from(NARROW), mean=st.floats(0.35, 0.65), spread=st.floats(0.001, 0.05))
def test_numbers_within_their_type_are_healthy(dtype, mean, spread):
    assert told(whole(dtype, mean, spread)) == []


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_images_and_sound_fill_their_range(dtype):
    info = np.iinfo(dtype)
    values = np.random.default_rng(0).integers(info.min, info.max, (200, 100), dtype=dtype, endpoint=True)
    assert told(values) == []


@pytest.mark.parametrize("mark", [255, 254])
def test_a_mark_at_the_end_is_meant(mark):
    values = np.random.default_rng(0).integers(0, 20, (64, 10)).astype(np.uint8)
    values[3, 4] = mark
    assert told(values) == []


def test_black_and_white_is_healthy():
    assert told(np.tile(np.array([0, 255], np.uint8), (64, 1))) == []
    assert told(np.tile(np.array([0, 1, 255], np.uint8), (64, 1))) == []


@pytest.mark.parametrize("values", [np.array([2**63 - 1, -(2**63), 0, 1, 2]), np.ones(9), np.zeros(5, bool)])
def test_wide_integers_and_other_numbers_are_left_alone(values):
    assert told(values) == []


@pytest.mark.parametrize("shape", [(0,), (0, 4), (1,), ()])
def test_next_to_nothing_says_nothing(shape):
    assert told(np.zeros(shape, np.int8)) == []


def test_extremes_of_every_narrow_type_do_no_harm():
    for dtype in (*NARROW, "int32", "uint32"):
        info = np.iinfo(dtype)
        told(np.array([info.min, info.min, info.max, info.max], dtype))


def all_over(dtype, *, size=2000):
    """Products that have gone around the end of their type many times."""
    width = float(np.iinfo(dtype).max) - float(np.iinfo(dtype).min)
    drawn = np.random.default_rng(1).uniform(0.1, 4.0, size) * width
    return np.rint(drawn).astype(np.int64).astype(dtype).reshape(-1, 10)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "uint32"])
def test_numbers_that_fill_a_wide_type_are_a_suspicion(dtype):
    (concern,) = concerns_of((numbers(all_over(dtype)),), (), 200)
    assert (concern.code, concern.kind, concern.certain) == ("DATA507", "filled", False)
    assert dtype in concern.because[0]


LOUD = np.clip(np.random.default_rng(2).normal(0, 3e4, (200, 10)), -32768, 32767).astype("int16")


@pytest.mark.parametrize(
    "facts",
    [
        numbers(all_over("uint8")),
        numbers(all_over("int32").astype("int64")),
        numbers(all_over("uint16").reshape(-1, 10, 10)),
        numbers(all_over("int16") // 2),
        numbers(LOUD),
        numbers(np.where(all_over("int16") > 0, 32_700, -32_700).astype("int16")),
        indices(all_over("uint32"), None),
    ],
    ids=["bytes", "wide enough", "pictures", "half of the range", "clipped sound", "two values", "hashes"],
)
def test_what_fills_a_type_by_right(facts):
    assert list(fills_its_type(facts)) == []
