"""From one step on the data, the loss or the weights are others: that is what the diagnosis says."""

import keras
import numpy as np
import pytest
from keras import ops

from nan_callbacks.diagnosis.diagnosis import Confidence
from nan_callbacks.keras import NaNGuard

AT, ROWS = 100, 16


def data(moved):
    rng = np.random.default_rng(4)
    x = rng.normal(size=((AT + 20) * ROWS, 6))
    y = np.tanh(x[:, :1] - x[:, 1:2])
    if moved:
        x[AT * ROWS :] = 40 + 8 * x[AT * ROWS :]
    return x.astype("float32"), y.astype("float32")


class SecondStage(keras.layers.Layer):
    """From one step on, large outputs cost something."""

    def __init__(self, penalty):
        super().__init__()
        self.penalty = penalty
        self.steps = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.steps.assign_add(1.0)
        self.add_loss(ops.where(self.steps > AT, self.penalty, 0.0) * ops.mean(ops.abs(x)))
        return x


def regression(penalty, rate=3e-3):
    keras.utils.set_random_seed(3)
    hidden = keras.layers.Dense(24, activation="relu")
    model = keras.Sequential([keras.Input((6,)), hidden, keras.layers.Dense(1), SecondStage(penalty)])
    model.compile(keras.optimizers.Adam(rate), loss="mse")
    return model


@pytest.mark.parametrize("code", ["DATA512", "LOSS405"])
def test_a_change_is_no_explosion(code):
    moved, guard = code == "DATA512", NaNGuard(strict=True, checkup=False)
    model = regression(0.0 if moved else 100.0)
    model.fit(*data(moved), batch_size=ROWS, shuffle=False, verbose=0, callbacks=[guard])
    first = guard.incidents[0]
    assert (first.step, first.action) == (AT, "skip_step")
    assert [verdict.code for verdict in first.diagnosis.verdicts] == [code], first.diagnosis.describe()
    assert first.diagnosis.cause.confidence is Confidence.CONFIRMED


class Overwriting(keras.callbacks.Callback):
    """A callback that is not as harmless as its author thought."""

    def on_train_batch_begin(self, batch, logs=None):
        if batch == AT:
            self.model.set_weights([8.0 * weight for weight in self.model.get_weights()])


def glitch():
    """The rate of one step has too many zeros."""
    return keras.optimizers.schedules.PiecewiseConstantDecay([AT - 2, AT - 1], [3e-3, 30.0, 3e-3])


@pytest.mark.parametrize("code", ["OPT601", "OPT609"])
def test_weights_that_were_thrown_off_are_no_explosion_and_no_fault_of_the_batch(code):
    by_the_rate, guard = code == "OPT601", NaNGuard(strict=True, checkup=False)
    model = regression(0.0, glitch() if by_the_rate else 3e-3)
    others = [] if by_the_rate else [Overwriting()]
    model.fit(*data(moved=False), batch_size=ROWS, shuffle=False, verbose=0, callbacks=[guard, *others])
    first = guard.incidents[0]
    assert (first.step, first.action) == (AT, "skip_step")
    assert first.diagnosis.cause.code == code, first.diagnosis.describe()
    assert first.diagnosis.cause.confidence is Confidence.CONFIRMED
    assert guard.summary["rollbacks"] == 1
