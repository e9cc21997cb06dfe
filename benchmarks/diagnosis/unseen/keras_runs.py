"""Weights, schedules and long ways: networks that are made so that they cannot learn, or learn too fast."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, enter, finite, runaway
from benchmarks.diagnosis.tables import digits, waves

FIT: dict[str, Any] = {"batch_size": 24, "epochs": 1, "shuffle": False}


# -- ACT303, ACT304 --------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, "ACT303"),
    "https://github.com/omitakahiro/NeuralNetworkPointProcess/issues/3",
    "https://github.com/niklasnolte/MonotonicNetworks/issues/9",
)
def loudness_through_positive_weights() -> KerasRun:
    """Weights are kept positive so that more is never less; decibels are negative, so no unit ever fires."""
    rng = np.random.default_rng(801)
    decibels = rng.uniform(-60, -2, (1200, 12))
    annoying = (decibels.mean(1) > -31).astype("float32")
    start = keras.initializers.RandomUniform(0, 0.3)
    positive = {"kernel_constraint": keras.constraints.NonNeg(), "kernel_initializer": start}
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(24, activation="relu", **positive),
            layers.Dense(24, activation="relu", **positive),
            layers.Dense(1, activation="sigmoid", **positive),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss="binary_crossentropy")
    return KerasRun(model, (decibels / 20).astype("float32"), annoying[:, None], {**FIT, "epochs": 2})


@enter(
    runaway(("ACT304", "GRAD203")),
    "https://github.com/speechbrain/speechbrain/issues/104",
    "https://github.com/tensorflow/tensorflow/issues/21738",
)
def recurrence_from_a_wide_normal() -> KerasRun:
    """A rectified recurrence whose weights are drawn with deviation 0.45: the state grows at each of 30 moments."""
    x, y = waves(1200, length=30, seed=802)
    wide = keras.initializers.RandomNormal(stddev=0.45)
    model = keras.Sequential(
        [
            keras.Input((30, 1)),
            layers.SimpleRNN(24, activation="relu", recurrent_initializer=wide, kernel_initializer=wide),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(1e-3), loss="mse")
    return KerasRun(model, x, y, FIT)


# -- GRAD202, GRAD203 ------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, "GRAD202"),
    "https://github.com/keras-team/keras/issues/13272",
    "https://github.com/rajarsheem/libsdae-autoencoder-tensorflow/issues/3",
    "https://github.com/FluxML/Flux.jl/issues/1546",
)
def softmax_in_every_layer() -> KerasRun:
    """A softmax between the layers as well: of 64 shares each is tiny, and so is every slope."""
    images, labels = digits(1440)
    model = keras.Sequential([keras.Input((64,))])
    for number in range(5):
        model.add(layers.Dense(64, activation="softmax", name=f"hidden_{number}"))
    model.add(layers.Dense(10, activation="softmax"))
    model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9), loss="sparse_categorical_crossentropy")
    return KerasRun(model, images, labels, {**FIT, "epochs": 2})


class Weather(layers.Layer):
    """One Euler step of Lorenz's equations, with learnt parameters."""

    state_size = output_size = 3

    def build(self, input_shape: Any) -> None:
        start = keras.initializers.Constant
        self.sigma = self.add_weight(shape=(), initializer=start(9.0), name="sigma")
        self.rho = self.add_weight(shape=(), initializer=start(26.5), name="rho")

    def call(self, push: Any, states: Any) -> Any:
        x, y, z = ops.split(states[0], 3, axis=-1)
        change = ops.concatenate([self.sigma * (y - x), x * (self.rho - z) - y, x * y - 2.667 * z], axis=-1)
        state = states[0] + 0.02 * change + push
        return state, [state]


def lorenz(state: np.ndarray, steps: int) -> np.ndarray:
    for _ in range(steps):
        x, y, z = state.T
        state = state + 0.02 * np.stack([10 * (y - x), x * (28 - z) - y, x * y - 2.667 * z], 1)
    return state


class Forecasts(keras.utils.PyDataset):
    """States, and what has become of them some steps later: 5 at first, then 250."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(803)
        self.batches = []
        state = lorenz(rng.normal(size=(48 * 16, 3)) + 5, 500)
        for number in range(48):
            steps = (5, 6)[number % 2] if number < 36 else 250
            start = state[number * 16 : (number + 1) * 16]
            still = np.zeros((16, steps, 3), "float32")
            self.batches.append(((still, start.astype("float32")), lorenz(start, steps).astype("float32")))

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        return self.batches[index]


@enter(
    finite(Happens.SPIKE, "GRAD203", rows=None),
    "https://github.com/rtqichen/torchdiffeq/issues/184",
    "https://github.com/nicholas-leonard/drmad/issues/3",
    "https://github.com/DassHydro/smash/issues/399",
)
def forecast_of_next_month() -> KerasRun:
    """Parameters of a chaotic system, fitted through 5 steps and then through 250: the gradient explodes, unclipped."""
    push, start = keras.Input((None, 3)), keras.Input((3,))
    later = layers.RNN(Weather(name="weather"))(push, initial_state=[start])
    model = keras.Model([push, start], later)
    model.compile(optimizer=keras.optimizers.Adam(0.05), loss="mse")
    return KerasRun(model, Forecasts(), None, {"shuffle": False})


# -- OPT601, OPT602 --------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("unseen")
class NoamSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """The schedule of "Attention is all you need"; the width should come with an exponent of -0.5."""

    def __init__(self, width: int, warmup: int) -> None:
        self.width, self.warmup = width, warmup

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32") + 1
        return self.width**0.5 * ops.minimum(step**-0.5, step * self.warmup**-1.5)

    def get_config(self) -> dict[str, Any]:
        return {"width": self.width, "warmup": self.warmup}


@enter(
    runaway("OPT601"),
    "https://github.com/jadore801120/attention-is-all-you-need-pytorch/issues/101",
    "https://github.com/Kyubyong/transformer/issues/89",
    "https://github.com/xiongma/transformer-pointer-generator/issues/29",
)
def width_with_the_wrong_sign() -> KerasRun:
    """A transformer's schedule multiplies by the root of the width where it should divide: 32 times too fast."""
    rng = np.random.default_rng(804)
    tokens = rng.integers(0, 30, (1440, 10))
    kind = (tokens < 10).sum(1) // 2 % 4
    inputs = keras.Input((10,), dtype="int32")
    x = layers.Embedding(30, 32)(inputs)
    x = x + layers.MultiHeadAttention(4, 8)(x, x)
    x = x + layers.Dense(32)(layers.Dense(64, activation="relu")(x))
    model = keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(NoamSchedule(32, 15), beta_2=0.98), loss=loss)
    return KerasRun(model, tokens.astype("int32"), kind.astype("int32"), FIT)


@enter(
    finite(Happens.STALL, "OPT602"),
    "https://github.com/open-edge-platform/physical-ai-studio/pull/407",
    "https://github.com/lightly-ai/lightly/pull/1353",
)
def cosine_over_five_steps() -> KerasRun:
    """CosineDecay counts steps and was told the number of epochs: after five batches the rate is 0."""
    images, labels = digits(1440)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Reshape((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    rate = keras.optimizers.schedules.CosineDecay(1e-3, decay_steps=5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss)
    return KerasRun(model, images, labels, {**FIT, "epochs": 2})
