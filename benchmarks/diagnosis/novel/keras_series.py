"""Sequences in Keras: forecasts and texts whose gradient explodes, vanishes, or is never given a chance."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, enter, finite, runaway
from benchmarks.diagnosis.tables import regression, waves

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 2, "shuffle": False}
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@enter(
    runaway(("GRAD203", "OPT601")),
    "https://vincentbogousslavsky.com/post/lstm-with-tanh-activation-function-producing-na-n-during",
    "https://taourl.com/read-2580372.html",
)
def lstm_with_rectified_cells() -> KerasRun:
    """The tutorial's LSTM with `activation="relu"`: nothing bounds the cell over sixty steps, nor the gradient."""
    x, y = waves(1280, length=60, seed=1)
    model = keras.Sequential(
        [
            keras.Input((60, 1)),
            layers.LSTM(32, activation="relu", return_sequences=True),
            layers.LSTM(32, activation="relu"),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.RMSprop(0.01), loss="mse")
    return KerasRun(model, 3 * x, 3 * y, {**FIT, "epochs": 1})


@enter(
    finite(Happens.STALL, "GRAD202"),
    "https://github.com/dsgiitr/d2l-pytorch/pull/11",
    "https://github.com/keras-team/keras/issues/2711",
)
def dilated_stack_of_sigmoids() -> KerasRun:
    """A temporal convolutional network of ten dilated layers, each with a sigmoid, and no way around any of them."""
    x, y = waves(1280, length=40, seed=2)
    stack = [
        layers.Conv1D(16, 2, dilation_rate=2 ** (depth % 5), padding="causal", activation="sigmoid")
        for depth in range(10)
    ]
    head = layers.Dense(1, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01))
    model = keras.Sequential([keras.Input((40, 1)), *stack, layers.Lambda(lambda h: h[:, -1]), head])
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
    return KerasRun(model, x, y, FIT)


@enter(
    finite(Happens.STALL, ("ACT302", "ACT304")),
    "https://github.com/keras-team/keras/issues/7724",
    "https://codemia.io/knowledge-hub/path/keras_accuracy_does_not_change",
)
def word_vectors_from_a_wide_normal() -> KerasRun:
    """Word vectors of standard deviation fifty push every gate of the LSTM to one of its ends."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(1, 80, (1280, 20))
    mood = (np.sum(tokens < 40, axis=1) > 9.5).astype("float32")[:, None]
    model = keras.Sequential(
        [
            keras.Input((20,), dtype="int32"),
            layers.Embedding(81, 32, embeddings_initializer=keras.initializers.RandomNormal(stddev=50.0)),
            layers.LSTM(32),
            layers.Dense(1, activation="sigmoid", kernel_initializer=keras.initializers.RandomNormal(stddev=0.02)),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="binary_crossentropy")
    return KerasRun(model, tokens.astype("int32"), mood, FIT)


@enter(
    finite(Happens.SPIKE, ("DATA512", "DATA502"), rows=None),
    "https://github.com/keras-team/keras/issues/21",
    "https://keras.io/examples/timeseries/timeseries_weather_forecasting/",
)
def weather_stations_that_report_fahrenheit() -> KerasRun:
    """From the thirtieth batch on the windows come from another country, in degrees of another scale."""
    x, y = waves(1280, length=24, seed=4)
    centre, spread = 10.0, 8.0
    past, after = centre + spread * x, centre + spread * y
    past[30 * 32 :], after[30 * 32 :] = past[30 * 32 :] * 1.8 + 32, after[30 * 32 :] * 1.8 + 32
    model = keras.Sequential(
        [keras.Input((24, 1)), layers.Flatten(), layers.Dense(32, activation="relu"), layers.Dense(1)]
    )
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="mse")
    past, after = (past - centre) / spread, (after - centre) / spread
    return KerasRun(model, past.astype("float32"), after.astype("float32"), {**FIT, "epochs": 1})


class Noam(keras.optimizers.schedules.LearningRateSchedule):
    """The rate of the Transformer: it climbs for `warmup` steps, and falls with the root of their number after."""

    def __init__(self, width: int, warmup: int) -> None:
        self.width, self.warmup = width, warmup

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32") + 1.0
        return self.width**-0.5 * ops.minimum(step**-0.5, step * self.warmup**-1.5)

    def get_config(self) -> dict[str, Any]:
        return {"width": self.width, "warmup": self.warmup}


def translator(schedule: Any) -> KerasRun:
    """Tags each token by its own number."""
    rng = np.random.default_rng(5)
    tokens = rng.integers(0, 20, (1280, 10))
    tags = tokens % 4
    ids = keras.Input((10,), dtype="int32")
    x = layers.Embedding(20, 32)(ids)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 8)(x, x))
    x = layers.LayerNormalization()(x + layers.Dense(32)(layers.Dense(64, activation="relu")(x)))
    model = keras.Model(ids, layers.Dense(4)(x))
    model.compile(optimizer=keras.optimizers.Adam(schedule, beta_2=0.98, epsilon=1e-9), loss=SPARSE)
    return KerasRun(model, tokens.astype("int32"), tags.astype("int32"), {**FIT, "epochs": 3})


@enter(
    finite(Happens.STALL, "OPT602"),
    "https://www.tensorflow.org/text/tutorials/transformer",
    "https://github.com/lsdefine/attention-is-all-you-need-keras/issues/13",
)
def schedule_of_the_paper_for_a_hundred_batches() -> KerasRun:
    """The Transformer's own schedule with a warm-up of forty thousand steps, for a run of a hundred and twenty."""
    return translator(Noam(512, 40_000))


class GatedProjection(layers.Layer):
    """A value times a gate, both linear in the same inputs."""

    def build(self, input_shape: Any) -> None:
        shape = (input_shape[-1], 32)
        self.value = self.add_weight(shape=shape, initializer="zeros", name="value")
        self.gate = self.add_weight(shape=shape, initializer="zeros", name="gate")

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.value) * ops.matmul(x, self.gate)


@enter(
    finite(Happens.STALL, ("ACT305", "ACT304")),
    "https://github.com/keras-team/keras/issues/1360",
    "https://keras.io/guides/making_new_layers_and_models_via_subclassing/",
)
def gate_and_value_that_both_begin_at_zero() -> KerasRun:
    """A layer of one's own multiplies two projections; both begin as zeros, and neither ever gets a gradient."""
    x, _ = regression(1280)
    y = x[:, :1] * x[:, 1:2] - x[:, 2:3] * x[:, 3:4]
    model = keras.Sequential([keras.Input((10,)), GatedProjection(name="gated"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    return KerasRun(model, x, y, FIT)
