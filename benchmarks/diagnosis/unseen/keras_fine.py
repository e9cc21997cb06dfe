"""Keras trainings that look risky and are not: masks of minus a billion, weights of zero, negative and steep losses."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import KerasRun, enter, healthy
from benchmarks.diagnosis.tables import digits, regression

FIT: dict[str, Any] = {"batch_size": 24, "epochs": 1, "shuffle": False}


class PooledByAttention(layers.Layer):
    """A weighted mean of the places that are taken; the others get minus a billion."""

    def build(self, input_shape: Any) -> None:
        self.query = self.add_weight(shape=(input_shape[0][-1], 1), initializer="glorot_uniform", name="query")

    def call(self, inputs: Any) -> Any:
        values, taken = inputs
        scores = ops.squeeze(ops.matmul(values, self.query), -1) + (1 - taken) * -1e9
        weights = ops.softmax(scores, axis=-1)
        return ops.sum(values * ops.expand_dims(weights, -1), axis=1)


@enter(
    healthy(),
    "https://github.com/zju3dv/LoFTR/issues/285",
    "https://github.com/pytorch/pytorch/issues/11551",
)
def basket_with_room_left() -> KerasRun:
    """Attention over baskets with a mask of minus a billion; some hold one thing only, and one holds nothing."""
    rng = np.random.default_rng(901)
    things = rng.normal(size=(2400, 7, 5)).astype("float32")
    taken = (np.arange(7)[None] < rng.integers(1, 8, (2400, 1))).astype("float32")
    taken[50 * 24 + 3] = 0
    worth = (np.tanh(things[:, :, 0]) * taken).sum(1) / np.maximum(taken.sum(1), 1)
    values, places = keras.Input((7, 5)), keras.Input((7,))
    pooled = PooledByAttention()([layers.Dense(16, activation="tanh")(values), places])
    model = keras.Model([values, places], layers.Dense(1)(pooled))
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="mse")
    return KerasRun(model, [things, taken], worth.astype("float32")[:, None], FIT)


@enter(
    healthy(),
    "https://github.com/keras-team/keras/issues/12850",
)
def batches_of_weight_zero() -> KerasRun:
    """Some batches are held out by sample weights of 0: their loss is exactly 0, and so is their gradient."""
    images, labels = digits(1440)
    weight = np.ones(1440, "float32")
    for batch in (11, 12, 30, 47):
        weight[batch * 24 : (batch + 1) * 24] = 0
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, activation="relu"), layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss)
    return KerasRun(model, images, labels, {**FIT, "sample_weight": weight, "epochs": 2})


def laplace(y_true: Any, y_pred: Any) -> Any:
    """Negative log-density of a Laplace distribution whose width has a floor."""
    width = 0.01 + ops.softplus(y_pred[:, 1:])
    return ops.mean(ops.abs(y_true - y_pred[:, :1]) / width + ops.log(2 * width), axis=-1)


@enter(
    healthy(),
    "https://github.com/hardmaru/write-rnn-tensorflow/issues/12",
    "https://github.com/roggirg/AutoBots/issues/7",
)
def narrow_errors_with_heavy_tails() -> KerasRun:
    """A Laplace likelihood of small errors with heavy tails: the loss becomes negative, and jumps."""
    rng = np.random.default_rng(903)
    x = rng.normal(size=(3600, 5)).astype("float32")
    y = (0.3 * x[:, :1] + 0.1 * np.sin(3 * x[:, 1:2]) + 0.02 * rng.standard_t(2.5, (3600, 1))).astype("float32")
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(32, activation="gelu")(inputs)))
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=laplace)
    return KerasRun(model, x, y, FIT)


@enter(
    healthy(),
    "https://github.com/yztang4/WarpingGAN/issues/11",
    "https://github.com/vitoralbiero/img2pose/issues/46",
)
def steep_start_under_a_clip() -> KerasRun:
    """Wide last weights make the first losses hundreds of times the last ones; gradients are clipped, and it trains."""
    x, y = regression(2400, seed=904)
    wide = keras.initializers.RandomNormal(stddev=3.0)
    model = keras.Sequential(
        [keras.Input((10,)), layers.Dense(32, activation="relu"), layers.Dense(1, kernel_initializer=wide)]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.01, global_clipnorm=5.0), loss="mse")
    return KerasRun(model, x, y, FIT)
