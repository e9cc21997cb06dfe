import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nan_callbacks.diagnosis import batch_evidence
from nan_callbacks.diagnosis.batch_evidence import NamedArray, batch_parts
from nan_callbacks.diagnosis.evidence import BatchPart, Role

RNG = np.random.default_rng(0)


def part(failed: np.ndarray, *recent: np.ndarray, role: Role = Role.INPUT) -> BatchPart:
    named = [[NamedArray(name="input", values=values)] for values in recent]
    return batch_parts([NamedArray(name="input", values=failed)], named, [role])[0]


def normal(rows: int = 32, features: int = 5) -> np.ndarray:
    return RNG.standard_normal((rows, features)).astype(np.float32)


def test_an_ordinary_batch_has_nothing_to_report():
    found = part(normal(), normal(), normal())
    assert (found.outlier_rows, found.non_finite_rows, found.is_integral) == ((), (), False)
    assert found.outlier_ratio < 3
    assert found.std == pytest.approx(1, abs=0.2)
    assert found.recent is not None
    assert found.recent.shape == (64, 5)


def test_outliers_are_measured_by_the_recent_batches_and_the_worst_comes_first():
    past, failed = normal(), normal()
    failed[3], failed[17] = 1e3, 1e6
    found = part(failed, past)
    assert found.outlier_rows == (17, 3)
    assert found.outlier_ratio > 1e5


def test_without_recent_batches_the_median_row_is_the_yardstick():
    failed = normal()
    failed[4] = 1e3
    assert part(failed).outlier_rows == (4,)


def test_a_row_as_large_as_before_is_no_outlier():
    past, failed = normal(), normal()
    past[0] = failed[5] = 1e6
    assert part(failed, past).outlier_rows == ()


def test_a_small_feature_is_not_hidden_by_a_large_one():
    past, failed = normal(), normal()
    past[:, 0] *= 1e4
    failed[:, 0] *= 1e4
    failed[9, 2] = 500.0
    assert part(failed, past).outlier_rows == (9,)


def test_a_feature_that_was_always_zero_does_not_make_an_outlier_of_an_ordinary_value():
    past, failed = normal(), normal()
    past[:, 1] = 0.0
    failed[:, 1] = 0.0
    failed[2, 1] = 2.0
    assert part(failed, past).outlier_rows == ()


def test_rows_with_nan_or_inf_are_named():
    failed = normal()
    failed[2, 1], failed[7, 0], failed[8, 0] = np.nan, np.inf, -np.inf
    found = part(failed, normal())
    assert found.non_finite_rows == (2, 7, 8)
    assert found.failed.nan == 1
    assert found.mean is not None
    assert np.isfinite(found.mean)


def test_minus_infinity_is_a_mask_where_recent_batches_hold_it_or_nothing_else_is_there():
    failed, past = normal(), normal()
    failed[2, 1] = past[0, 0] = -np.inf
    assert part(failed, past).non_finite_rows == ()
    mask = np.where(np.tri(6, dtype=bool), 0.0, -np.inf).astype(np.float32)
    assert part(mask).non_finite_rows == ()


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_indices_tokens_and_pixels_have_no_outliers(dtype: type):
    failed, past = np.ones((8, 4), dtype), np.ones((8, 4), dtype)
    failed[3] = np.asarray(120).astype(dtype)
    found = part(failed, past)
    assert found.is_integral
    assert (found.outlier_rows, found.non_finite_rows) == ((), ())


def test_images_of_0_to_255_are_whole_numbers_far_from_unit_scale():
    images = RNG.integers(0, 256, (8, 12, 12, 3)).astype(np.float32)
    found = part(images, images)
    assert found.is_integral
    assert found.recent_mean == pytest.approx(127, abs=5)
    assert found.recent_std == pytest.approx(74, abs=5)


def test_the_test_for_nan_looks_at_every_value_of_a_large_array(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batch_evidence, "MOST_VALUES", 100)
    failed = RNG.standard_normal((64, 50))
    failed[41, 33], failed[43, 7] = np.nan, 1e6
    found = part(failed, RNG.standard_normal((64, 50)))
    assert found.non_finite_rows == (41,)
    assert (found.failed.nan, found.failed.maximum) == (1, 1e6)
    assert found.failed.shape == (64, 50)
    assert 43 in found.outlier_rows


def test_features_of_different_scale():
    scaled = normal() * np.array([1e-2, 1, 1, 1, 1e3], np.float32)
    assert part(scaled, scaled).feature_std_ratio == pytest.approx(1e5, rel=0.5)
    assert part(normal()).feature_std_ratio < 2


def test_parts_are_matched_by_name_and_text_is_passed_over():
    failed = [
        NamedArray(name="x", values=normal()),
        NamedArray(name="id", values=np.array(["a"] * 32)),
        NamedArray(name="y", values=np.arange(32)),
    ]
    found = batch_parts(failed, [[failed[2], failed[0]]], [Role.INPUT, Role.UNKNOWN, Role.TARGET])
    assert [each.failed.name for each in found] == ["x", "y"]
    assert found[1].recent is not None
    assert found[1].recent.maximum == 31


def test_roles_are_counted():
    with pytest.raises(ValueError, match="one role for each of the 1 tensors, received 0"):
        batch_parts([NamedArray(name="x", values=normal())], [], [])


def test_the_widest_range_of_float64_overflows_nowhere():
    failed, past = np.full((4, 3), 1e300), np.full((4, 3), 1e-300)
    failed[0, 0] = 0.0
    with np.errstate(all="raise", under="ignore"):
        for found in (part(failed, past), part(past, failed), part(np.stack([failed] * 2), np.stack([past] * 2))):
            assert np.isfinite(found.outlier_ratio)
            assert np.isfinite(found.feature_std_ratio)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(0, 5), min_size=0, max_size=4),
    special=st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf, 1e300, 1e-320]),
    dtype=st.sampled_from(["float16", "float32", "float64", "int32", "bool"]),
    recent=st.booleans(),
)
def test_any_array_gives_finite_plain_evidence(shape: list[int], special: float, dtype: str, recent: bool):
    with np.errstate(all="ignore"):
        values = np.full(shape, special).astype(dtype)
    found = part(values, values) if recent else part(values)
    rows = values.shape[0] if values.ndim else 0
    assert all(0 <= row < rows for row in (*found.outlier_rows, *found.non_finite_rows))
    numbers = (found.mean, found.std, found.recent_mean, found.recent_std, found.outlier_ratio, found.feature_std_ratio)
    assert all(number is None or np.isfinite(number) for number in numbers)
