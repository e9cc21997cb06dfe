import numpy as np
import pytest

from nan_callbacks.demo.faults import FAULTS, lose_pixels, rescale

TOTAL_STEPS = 500


def clean_images(count: int = 32) -> np.ndarray:
    return np.random.default_rng(7).uniform(0.1, 1.0, size=(count, 8, 8)).astype(np.float32)


def test_nan_rows_spoil_four_pixels_of_one_image():
    images = lose_pixels(clean_images(), np.random.default_rng(0))

    missing_per_image = np.isnan(images).sum(axis=(1, 2))
    assert sorted(missing_per_image)[-2:] == [0, 4]
    assert np.array_equal(images[missing_per_image == 0], clean_images()[missing_per_image == 0])


def test_scaled_samples_are_four_whole_images_times_ten_thousand():
    ratio = rescale(clean_images(), np.random.default_rng(0)) / clean_images()

    is_scaled = ratio.reshape(len(ratio), -1).mean(axis=1) > 1
    assert is_scaled.sum() == 4
    np.testing.assert_allclose(ratio[is_scaled], 1e4, rtol=1e-6)
    assert (ratio[~is_scaled] == 1).all()


def test_rescaling_a_batch_of_two_scales_both():
    assert (rescale(clean_images(2), np.random.default_rng(0)) > 100).all()


@pytest.mark.parametrize("name", ["nan_rows", "scaled_samples"])
def test_a_corruption_hits_its_steps_alone_and_leaves_the_stored_images_as_they_are(name: str):
    fault, stored = FAULTS[name], clean_images()
    seen = [fault.images(stored, step, TOTAL_STEPS, seed=0) for step in range(TOTAL_STEPS)]

    assert tuple(step for step, images in enumerate(seen) if images is not stored) == fault.steps(TOTAL_STEPS)
    assert np.array_equal(stored, clean_images())


def test_a_corruption_depends_on_seed_and_step_alone():
    fault, stored = FAULTS["nan_rows"], clean_images()
    step = fault.steps(TOTAL_STEPS)[0]
    once, again, other_seed = (fault.images(stored, step, TOTAL_STEPS, seed) for seed in (0, 0, 1))

    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(np.isnan(once), np.isnan(other_seed))


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_happens_within_the_run(name: str):
    steps = FAULTS[name].steps(TOTAL_STEPS)

    assert 0 <= steps[0] <= steps[-1] < TOTAL_STEPS


def test_the_learning_rate_is_a_hundred_times_too_high_from_its_step_to_the_end():
    fault = FAULTS["learning_rate"]
    (start,) = fault.steps(TOTAL_STEPS)
    scales = [fault.learning_rate_scale(step, TOTAL_STEPS) for step in range(TOTAL_STEPS)]

    assert scales == [1.0] * start + [100.0] * (TOTAL_STEPS - start)


@pytest.mark.parametrize("name", ["nan_rows", "scaled_samples"])
def test_corrupted_data_leave_the_learning_rate_alone(name: str):
    assert {FAULTS[name].learning_rate_scale(step, TOTAL_STEPS) for step in range(TOTAL_STEPS)} == {1.0}


def test_the_learning_rate_fault_leaves_the_data_alone():
    stored = clean_images()

    assert all(FAULTS["learning_rate"].images(stored, step, TOTAL_STEPS, 0) is stored for step in range(TOTAL_STEPS))


def test_the_description_names_the_steps():
    assert "steps 100, 250, 400 has NaN pixels" in FAULTS["nan_rows"].describe(TOTAL_STEPS)
