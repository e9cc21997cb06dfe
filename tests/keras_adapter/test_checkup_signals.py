"""What the checkup tells of the signal in layers that read sequences."""

import keras
import numpy as np
import pytest
from keras import layers

import nan_callbacks
from nan_callbacks.core.finding import Severity

ROWS, STEPS = 64, 6


def told(make, *shape, level=0.0, size=1.0):
    """Codes of everything but information, for inputs around a level."""
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    model = make()
    model.compile("adam", "mse")
    x = (level + size * generator.standard_normal((ROWS, *shape))).astype("float32")
    report = nan_callbacks.checkup(model, (x, generator.standard_normal((ROWS, 1)).astype("float32")), strict=True)
    assert report.notes == ()
    return [each.code for each in report if each.severity >= Severity.WARNING]


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_what_a_state_brings_is_no_signal_that_grows(kind):
    def make():
        x = keras.Input((STEPS, 4))
        start = layers.Dense(8, activation="tanh")(x[:, 0])
        states = [start, start] if kind == "LSTM" else start
        nearly_shut = layers.Rescaling(1e-4)(layers.Dense(8)(x))
        hidden = getattr(layers, kind)(8)(nearly_shut, initial_state=states)
        return keras.Model(x, layers.Dense(1)(hidden))

    assert "ACT304" not in told(make, STEPS, 4)


def test_a_constant_series_is_no_signal_that_shrinks():
    def make():
        hidden = [layers.Dense(16, activation="relu"), layers.Dense(16, activation="relu")]
        return keras.Sequential([layers.Input((12,)), *hidden, layers.Dense(1)])

    assert "ACT304" not in told(make, 12, level=10.0, size=1e-6)
