"""Cross-entropies in code of the user's own are looked over as those that `compile` is given."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import nan_callbacks

rng = np.random.default_rng(1)
KIND = rng.integers(0, 4, 64).astype("int32")
X = (rng.normal(size=(64, 8)) + 2 * np.eye(4, 8)[KIND]).astype("float32")


def entropy_and_more(from_logits):
    def loss(y_true, y_pred):
        found = keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=from_logits)
        return found + 1e-3 * ops.mean(ops.abs(y_pred), axis=-1)

    return loss


class Own(keras.Model):
    """Computes its loss by itself, with a loss object of Keras'."""

    def __init__(self, activation, from_logits):
        super().__init__()
        self.out = layers.Dense(4)
        self.last = activation
        self.entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)

    def call(self, x, training=None):
        scores = self.out(x)
        return ops.softmax(scores) if self.last == "softmax" else scores

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self.entropy(y, y_pred)


def model_of(how, activation, from_logits):
    keras.utils.set_random_seed(0)
    if how == "in a function":
        model = keras.Sequential([keras.Input((8,)), layers.Dense(4, activation=activation)])
        model.compile(optimizer="adam", loss=entropy_and_more(from_logits))
        return model
    model = Own(activation, from_logits)
    model.compile(optimizer="adam")
    return model


@pytest.mark.parametrize("how", ["in a function", "in compute_loss"])
@pytest.mark.parametrize(
    ("activation", "from_logits", "code"),
    [("softmax", True, "LOSS403"), ("linear", False, "LOSS404"), ("softmax", False, ""), ("linear", True, "")],
)
def test_loss_and_last_activation(how, activation, from_logits, code):
    model = model_of(how, activation, from_logits)
    report = nan_callbacks.checkup(model, (X, KIND))
    assert {each.code for each in report.notices} & {"LOSS403", "LOSS404"} == ({code} if code else set())


def test_nothing_is_left_behind():
    before = keras.ops.sparse_categorical_crossentropy
    model = model_of("in compute_loss", "softmax", True)
    model.fit(X, KIND, verbose=0)
    weights = [np.array(each) for each in model.get_weights()]
    nan_callbacks.checkup(model, (X, KIND))
    assert keras.ops.sparse_categorical_crossentropy is before
    assert all(np.array_equal(one, other) for one, other in zip(weights, model.get_weights(), strict=True))


def test_labels_of_an_own_loss_are_looked_over_as_well():
    model = model_of("in a function", "softmax", False)
    spoilt = np.where(np.arange(64) % 16 == 3, 4, KIND).astype("int32")
    report = nan_callbacks.checkup(model, (X, spoilt))
    assert "DATA505" in {each.code for each in report.notices}
