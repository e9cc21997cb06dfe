"""Copies among the units of a layer."""

import numpy as np
import pytest

from nan_callbacks.diagnosis.likeness import are_alike

DRAWN = np.random.default_rng(0).normal(size=(32, 6))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (np.full((24, 6), 0.1), True),
        (np.repeat(np.array([[0.3], [0.2], [0.1], [0.4]]), 8, axis=0) * np.ones(6), True),
        (np.full((8, 4, 3, 3), 0.5), True),
        (np.concatenate([np.zeros((4, 6)), np.full((4, 6), 0.3), DRAWN[:4]]), True),
        (DRAWN, False),
        (np.stack([np.roll(DRAWN[0].round(1), shift) for shift in range(6)]), False),
        (DRAWN[:4], False),
        (np.zeros((24, 6)), False),
        (np.concatenate([DRAWN[:1], DRAWN]), False),
        (np.full((24, 6), np.nan), False),
        (np.full((2, 6), 0.1), False),
        (np.zeros((0, 6)), False),
        (np.zeros((4, 0)), False),
    ],
    ids=[
        "one number", "four gates", "convolution", "behind zeros", "drawn", "equal sums", "few drawn", "zeros",
        "two copies", "nan", "too few", "no units", "no inputs",
    ],
)  # fmt: skip
def test_many_units_with_the_very_same_weights(weights, expected):
    assert are_alike(weights.astype("float32")) is expected
