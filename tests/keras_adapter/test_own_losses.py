"""Losses that users wrote bring targets into shape by themselves, or do not: only the second is told."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import nan_callbacks

rng = np.random.default_rng(0)
X = rng.normal(size=(64, 8)).astype("float32")
FLAT = (X @ rng.normal(size=8)).astype("float32")
KIND = np.digitize(FLAT, np.quantile(FLAT, [0.25, 0.5, 0.75])).astype("int32")


def of(function):
    """An instance of a subclass, to which Keras hands targets as they came."""

    class Own(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return function(y_true, y_pred)

    return Own()


def squared(y_true, y_pred):
    return ops.square(y_true - y_pred)


def pinball(y_true, y_pred):
    levels = ops.convert_to_tensor(np.array([0.1, 0.5, 0.9], "float32"))
    rest = y_true - y_pred
    return ops.sum(ops.maximum(levels * rest, (levels - 1.0) * rest), axis=-1)


def gaussian(y_true, y_pred):
    mean, spread = y_pred[:, :1], ops.softplus(y_pred[:, 1:]) + 0.1
    return ops.log(spread) + 0.5 * ops.square((y_true - mean) / spread)


def focal(y_true, y_pred):
    logs = ops.log_softmax(y_pred)
    chosen = ops.sum(logs * ops.one_hot(ops.reshape(ops.cast(y_true, "int32"), (-1,)), 4), axis=-1)
    return -ops.square(1.0 - ops.exp(chosen)) * chosen


class Alone(keras.Model):
    """Computes its loss in a step or a method of its own."""

    def __init__(self, flatten):
        super().__init__()
        self.out, self.flatten = layers.Dense(1), flatten

    def call(self, x):
        return self.out(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(squared(y, ops.squeeze(y_pred, -1) if self.flatten else y_pred))


def sequential(outputs, loss):
    return keras.Sequential([layers.Input((8,)), layers.Dense(16, "relu"), layers.Dense(outputs)]), loss


HEALTHY = {
    "squeezes the outputs": lambda: (*sequential(1, of(lambda t, p: squared(t, ops.squeeze(p, -1)))), FLAT),
    "reshapes the targets": lambda: (*sequential(1, of(lambda t, p: squared(ops.reshape(t, (-1, 1)), p))), FLAT),
    "hands them on to Keras": lambda: (*sequential(1, of(lambda t, p: keras.losses.huber(t, p))), FLAT),
    "a number beside quantiles": lambda: (*sequential(3, of(pinball)), FLAT[:, None]),
    "a number beside mean and spread": lambda: (*sequential(2, of(gaussian)), FLAT[:, None]),
    "a class index in a column": lambda: (*sequential(4, of(focal)), KIND[:, None]),
    "a method of the model": lambda: (Alone(flatten=True), None, FLAT),
}


def pictures(loss):
    model = keras.Sequential([layers.Input((8,)), layers.Dense(64), layers.Reshape((8, 8, 1))])
    return model, loss, rng.uniform(size=(64, 8, 8)).astype("float32")


HEALTHY["pictures without a channel"] = lambda: pictures(of(lambda t, p: squared(t, p[..., 0])))

BROADCAST = {
    "a loss": lambda: (*sequential(1, of(squared)), FLAT),
    "rows against rows of pictures": lambda: pictures(of(squared)),
    "a method of the model": lambda: (Alone(flatten=False), None, FLAT),
}


def notices(model, loss, y):
    model.compile("adam", loss)
    batches = [(X[at : at + 8], y[at : at + 8]) for at in range(0, 64, 8)]
    return [(each.code, each.kind) for each in nan_callbacks.checkup(model, batches, strict=True)]


@pytest.mark.parametrize("name", HEALTHY)
def test_a_loss_that_brings_targets_into_shape_is_left_in_peace(name):
    keras.utils.set_random_seed(1)
    assert notices(*HEALTHY[name]()) == []


def test_vectors_are_handed_to_a_loss_as_they_are_in_arrays_too():
    """As ``fit`` hands them: Keras 3 makes no columns of them."""
    keras.utils.set_random_seed(1)
    model, loss, y = BROADCAST["a loss"]()
    model.compile("adam", loss)
    assert [each.code for each in nan_callbacks.checkup(model, (X, y), strict=True)] == ["DATA508"]


@pytest.mark.parametrize("name", BROADCAST)
def test_a_loss_that_compares_all_rows_with_all_others_is_told(name):
    keras.utils.set_random_seed(1)
    assert notices(*BROADCAST[name]()) == [("DATA508", "broadcast")]
