"""Whether a batch as a whole lies elsewhere than those before it."""

import numpy as np
import pytest

from nan_callbacks.diagnosis.moved import moved_share


def batches(*shape, count=8):
    return [np.random.default_rng(seed).normal(size=shape) for seed in range(count)]


@pytest.mark.parametrize("shape", [(16, 5), (16, 3, 8, 8), (16,), (32, 2000)])
def test_batches_like_those_before_have_not_moved(shape):
    assert moved_share(np.random.default_rng(99).normal(size=shape), batches(*shape)) < 0.3


def test_one_feature_is_enough():
    batch = np.random.default_rng(99).normal(size=(16, 5))
    batch[:, 3] += 9
    assert moved_share(batch, batches(16, 5)) == 1.0


def test_a_few_rows_are_no_batch():
    batch = np.random.default_rng(99).normal(size=(16, 5))
    batch[:3] = 100.0
    assert moved_share(batch, batches(16, 5)) == pytest.approx(3 / 16)


def test_sequences_of_other_lengths_are_compared_row_by_row():
    before = [np.random.default_rng(length).normal(size=(16, length)) for length in range(20, 28)]
    assert moved_share(np.random.default_rng(9).normal(size=(16, 31)), before) < 0.3
    assert moved_share(6 * np.random.default_rng(9).normal(size=(16, 31)), before) > 0.9


@pytest.mark.parametrize(
    ("failed", "recent"),
    [
        (np.ones(()), [np.ones(())]),
        (np.ones((16, 2)), []),
        (np.ones((3, 2)), batches(16, 2)),
        (9 * np.ones((16, 2)), batches(16, 2, count=1)),
        (np.ones((16, 0)), [np.ones((16, 0))] * 4),
        (np.ones((16, 2)), [np.full((16, 2), np.nan)] * 4),
    ],
)
def test_where_too_little_is_known_nothing_has_moved(failed, recent):
    assert moved_share(failed, recent) == 0.0


def test_what_moves_with_every_batch_has_not_moved():
    """Times and numbers of samples."""
    before = [np.stack([np.arange(16.0) + 16 * step, np.zeros(16)], axis=1) for step in range(8)]
    now = np.stack([np.arange(16.0) + 128, np.zeros(16)], axis=1)
    assert moved_share(now, before) == 0.0
    now[:, 1] = 5.0
    assert moved_share(now, before) == 1.0
