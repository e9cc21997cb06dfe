"""Runs in Keras that look dangerous and are well: rates, scales and losses that somebody would frown at."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import KerasRun, enter, healthy
from benchmarks.diagnosis.tables import digits, regression, two_blobs, waves

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


def _log_density(target: Any, told: Any) -> Any:
    """Negative log likelihood of a normal distribution whose spread is predicted; below 0 for narrow ones."""
    mean, spread = told[:, :1], ops.softplus(told[:, 1:]) + 1e-3
    return ops.mean(0.5 * ops.square((target - mean) / spread) + ops.log(spread), axis=-1)


@enter(
    healthy(),
    "https://keras.io/api/losses/regression_losses/",
    "https://pytorch.org/docs/stable/generated/torch.nn.GaussianNLLLoss.html",
)
def density_that_goes_below_zero() -> KerasRun:
    """A likelihood of narrow errors: the loss passes 0 and goes on falling, as it should."""
    rng = np.random.default_rng(5601)
    x = rng.normal(size=(1440, 6)).astype("float32")
    y = (0.3 * x[:, :1] - 0.2 * x[:, 1:2] + 0.02 * rng.normal(size=(1440, 1))).astype("float32")
    model = keras.Sequential([keras.Input((6,)), layers.Dense(24, activation="relu"), layers.Dense(2)])
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=_log_density)
    return KerasRun(model, x, y, FIT)


@enter(
    healthy(),
    "https://keras.io/api/optimizers/learning_rate_schedules/cosine_decay_restarts/",
    "https://keras.io/api/optimizers/sgd/",
)
def rate_that_jumps_up_three_times() -> KerasRun:
    """Cosine decay with restarts every fifteen steps: the rate jumps back to 0.05 three times."""
    images, labels = digits(1440)
    rate = keras.optimizers.schedules.CosineDecayRestarts(0.05, first_decay_steps=15, t_mul=1.0)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(48, activation="relu"),
            layers.BatchNormalization(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy")
    return KerasRun(model, images, labels.astype("int32"), {**FIT, "epochs": 2})


@enter(
    healthy(),
    "https://keras.io/api/mixed_precision/",
    "https://github.com/keras-team/keras/issues/12249",
)
def half_precision_with_all_its_guards() -> KerasRun:
    """Convolutions under mixed_float16 with a scaled loss and a last layer in float32."""
    images, labels = digits(1280)
    half = keras.mixed_precision.DTypePolicy("mixed_float16")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(12, 3, activation="relu", dtype=half),
            layers.LayerNormalization(dtype=half),
            layers.Flatten(dtype=half),
            layers.Dense(32, activation="relu", dtype=half),
            layers.Dense(10, dtype="float32"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(3e-3), initial_scale=1024.0)
    model.compile(optimizer=optimizer, loss=loss)
    return KerasRun(model, images.reshape(-1, 8, 8, 1), labels.astype("int32"), FIT)


class Careful(layers.Layer):
    """Attention over places of which some rows have none; those get zeros."""

    def call(self, query: Any, items: Any, there: Any) -> Any:
        scores = ops.where(there > 0, ops.einsum("bd,btd->bt", query, items), -1e9)
        weights = ops.softmax(scores, axis=-1) * there
        return ops.einsum("bt,btd->bd", weights, items)


@enter(
    healthy(),
    "https://github.com/tensorflow/tensorflow/issues/11756",
    "https://github.com/pytorch/pytorch/issues/25110",
)
def baskets_of_which_some_are_empty() -> KerasRun:
    """Attention with a mask of -1e9; every tenth basket is empty and is multiplied by zeros afterwards."""
    rng = np.random.default_rng(5602)
    things = rng.integers(1, 50, (1280, 7)).astype("int32")
    count = rng.integers(1, 8, (1280, 1))
    count[::10] = 0
    there = (np.arange(7) < count).astype("float32")
    person = rng.normal(size=(1280, 5)).astype("float32")
    paid = ((things % 5) * there).sum(1, keepdims=True) / np.maximum(count, 1) / 2 + 0.5 * person[:, :1]
    who, what, mask = keras.Input((5,)), keras.Input((7,), dtype="int32"), keras.Input((7,))
    seen = Careful()(layers.Dense(12)(who), layers.Embedding(50, 12)(what), mask)
    hidden = layers.Dense(24, activation="relu")(layers.Concatenate()([seen, who]))
    model = keras.Model([who, what, mask], layers.Dense(1)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    return KerasRun(model, [person, things, there], paid.astype("float32"), FIT)


@enter(
    healthy(),
    "https://keras.io/api/models/model_training_apis/",
    "https://keras.io/api/losses/",
)
def frauds_that_weigh_twenty_times() -> KerasRun:
    """One row in fifteen is a fraud and weighs twenty times as much: the loss is rough from batch to batch."""
    x, y = two_blobs(2880, gap=1.0, seed=5603)
    rng = np.random.default_rng(5603)
    kept = (y[:, 0] == 0) | (rng.random(2880) < 0.07)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(24, activation="relu"),
            layers.Dropout(0.2, seed=1),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="binary_crossentropy")
    return KerasRun(model, x[kept][:1440], y[kept][:1440], {**FIT, "class_weight": {0: 1.0, 1: 20.0}})


@enter(
    healthy(),
    "https://keras.io/api/losses/",
    "https://keras.io/api/optimizers/sgd/",
)
def losses_in_the_thousands() -> KerasRun:
    """A forecast of waves whose errors are summed over batch and steps; the rate is small to match."""
    x, _ = waves(1280, length=48, seed=5604)
    model = keras.Sequential(
        [
            keras.Input((32, 1)),
            layers.GRU(16),
            layers.Dense(16),
        ]
    )

    def total(y: Any, forecast: Any) -> Any:
        return ops.sum(ops.square(y - forecast))

    model.compile(optimizer=keras.optimizers.SGD(2e-4, momentum=0.9), loss=total)
    return KerasRun(model, 3 * x[:, :32], 3 * x[:, 32:, 0], FIT)


@enter(
    healthy(),
    "https://keras.io/api/optimizers/adamw/",
    "https://keras.io/api/layers/regularizers/",
)
def weights_under_a_strong_decay() -> KerasRun:
    """AdamW with a decay of 2 at a rate of 0.005: a hundredth of each weight is taken away at every step."""
    x, y = regression(1440, seed=5605)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(48, activation="gelu"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.AdamW(5e-3, weight_decay=2.0), loss="huber")
    return KerasRun(model, x, y, FIT)
