"""Models in Keras that look risky and train: steep rates under a clip, raw units, densities, empty masks."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import KerasRun, enter, healthy
from benchmarks.diagnosis.tables import digits, regression, two_blobs

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


@enter(
    healthy(),
    "https://keras.io/api/optimizers/",
    "https://github.com/keras-team/keras/issues/510",
)
def rate_of_one_under_a_tight_clip() -> KerasRun:
    """SGD with a rate of 1 whose gradients are clipped to a length of 0.05: no step is long."""
    x, y = regression(1600, seed=3701)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(32, activation="tanh"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(1.0, global_clipnorm=0.05), loss="mse")
    return KerasRun(model, x, y, FIT)


@enter(
    healthy(),
    "https://keras.io/api/layers/preprocessing_layers/numerical/normalization/",
    "https://stackoverflow.com/questions/37232782/nan-loss-when-training-regression-network",
)
def census_in_its_own_units() -> KerasRun:
    """Incomes, Unix times and shares side by side, behind a Normalization layer that was adapted to them."""
    x, y = regression(1600, seed=3702)
    units = np.array([3e4, 1, 1e-3, 2e7, 40, 1, 0.1, 900, 1, 12.0])
    offsets = np.array([6e4, 0, 0, 1.5e9, 100, 0, 0.5, 0, 0, 38.0])
    raw = (units * x + offsets).astype("float32")
    scale = layers.Normalization()
    scale.adapt(raw)
    model = keras.Sequential([keras.Input((10,)), scale, layers.Dense(32, activation="relu"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="mse")
    return KerasRun(model, raw, y, FIT)


def log_density(y_true: Any, y_pred: Any) -> Any:
    """Negative log-density of a normal distribution with a floor under its deviation."""
    width = ops.softplus(y_pred[:, 1:]) + 1e-3
    return 0.5 * ops.square((y_true - y_pred[:, :1]) / width) + ops.log(width)


@enter(
    healthy(),
    "https://keras.io/api/ops/nn/",
    "https://stackoverflow.com/questions/37232782/nan-loss-when-training-regression-network",
)
def density_of_a_quiet_river() -> KerasRun:
    """The level of a river as a normal density that grows narrow: the loss goes below 0, as it should."""
    rng = np.random.default_rng(3703)
    rain = rng.normal(size=(2560, 6)).astype("float32")
    level = 0.4 * rain[:, :1] - 0.2 * rain[:, 1:2] + 0.02 * rng.normal(size=(2560, 1))
    model = keras.Sequential([keras.Input((6,)), layers.Dense(32, activation="tanh"), layers.Dense(2)])
    model.compile(optimizer=keras.optimizers.Adam(5e-3, clipnorm=1.0), loss=log_density)
    return KerasRun(model, rain, level.astype("float32"), FIT)


class PooledByAttention(layers.Layer):
    """Attention over the words of a title; where there are none, all words are zero and so is the sum."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.score = layers.Dense(1)

    def call(self, words: Any, there: Any) -> Any:
        scores = self.score(words)[..., 0] - 1e9 * (1 - there)
        return ops.sum((ops.softmax(scores) * there)[..., None] * words, axis=1)


@enter(
    healthy(),
    "https://keras.io/guides/understanding_masking_and_padding/",
    "https://keras.io/api/layers/attention_layers/attention/",
)
def titles_of_which_some_are_empty() -> KerasRun:
    """Titles of up to nine words, some of none, under attention with a mask of minus a billion."""
    rng = np.random.default_rng(3704)
    words = rng.integers(1, 40, (1600, 9))
    words[np.arange(9) >= rng.integers(0, 10, (1600, 1))] = 0
    worth = np.where(np.arange(40) % 2, 1.0, -1.0) * (np.arange(40) > 0)
    label = (worth[words].sum(1) > 0).astype("float32")[:, None]
    inputs = keras.Input((9,), dtype="int32")
    there = layers.Lambda(lambda x: ops.cast(x > 0, "float32"))(inputs)
    seen = PooledByAttention()(layers.Embedding(40, 12)(inputs), there)
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(layers.Dense(16, activation="relu")(seen)))
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="binary_crossentropy")
    return KerasRun(model, words.astype("int32"), label, FIT)


@enter(
    healthy(),
    "https://keras.io/examples/structured_data/imbalanced_classification/",
    "https://keras.io/api/losses/probabilistic_losses/",
)
def three_frauds_in_a_hundred() -> KerasRun:
    """Frauds are rare and weigh thirty times as much: the loss of a batch jumps with the number of them."""
    x, labels = two_blobs(6400, gap=1.2, seed=3705)
    rng = np.random.default_rng(3705)
    kept = np.flatnonzero((labels[:, 0] == 0) | (rng.random(6400) < 0.03))
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.BatchNormalization(),
            layers.Dense(16, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss="binary_crossentropy")
    return KerasRun(model, x[kept], labels[kept], {**FIT, "batch_size": 64, "class_weight": {0: 1.0, 1: 30.0}})


@enter(
    healthy(),
    "https://keras.io/api/layers/activations/",
    "https://keras.io/api/layers/normalization_layers/group_normalization/",
)
def seven_branches_that_begin_as_nothing() -> KerasRun:
    """Seven residual branches whose last layers are zero at first, eight pictures at a time."""
    images, labels = digits(640)
    inputs = keras.Input((64,))
    stream = layers.Dense(32)(inputs)
    for _ in range(7):
        branch = layers.Dense(32, activation="swish")(layers.LayerNormalization()(stream))
        stream = layers.Add()([stream, layers.Dense(32, kernel_initializer="zeros")(branch)])
    model = keras.Model(inputs, layers.Dense(10)(stream))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss=loss)
    return KerasRun(model, images, labels, {**FIT, "batch_size": 8})
