"""Keras trainings that stand still or run away, and healthy ones that only look as if they did."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops
from sklearn.datasets import make_moons

from benchmarks.diagnosis.program import Happens, KerasRun, enter, finite, healthy, runaway
from benchmarks.diagnosis.tables import digits, regression

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 3, "shuffle": False}
SPARSE = keras.losses.SparseCategoricalCrossentropy


# -- GRAD202 ---------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, "GRAD202"),
    "https://masterinai.com/computer-vision/vanishing-gradient-problem",
    "https://www.engineermaxxing.com/veanors/papers/difficulty-training-rnns.html",
)
def first_word_of_ninety() -> KerasRun:
    """What counts is the first of 90 moments; a recurrent layer of sigmoids forgets it, and gets no gradient there."""
    rng = np.random.default_rng(41)
    first = rng.choice([-1.0, 1.0], 800)
    series = 0.3 * rng.normal(size=(800, 90, 2))
    series[:, 0, 1] = first
    model = keras.Sequential(
        [
            keras.Input((90, 2)),
            layers.SimpleRNN(20, activation="sigmoid"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss="binary_crossentropy")
    return KerasRun(model, series.astype("float32"), (first > 0).astype("float32")[:, None], FIT)


# -- LOSS403, LOSS404 ------------------------------------------------------------------------------------------------


class Committee(keras.Model):
    """Two heads; their probabilities are averaged."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = layers.Conv1D(12, 3, activation="relu")
        self.flat, self.one, self.two = layers.Flatten(), layers.Dense(classes), layers.Dense(classes)

    def call(self, rows: Any) -> Any:
        hidden = self.flat(self.conv(rows))
        return (ops.softmax(self.one(hidden), axis=-1) + ops.softmax(self.two(hidden), axis=-1)) / 2


@enter(
    finite(Happens.STALL, "LOSS403"),
    "https://github.com/mmalekzadeh/dana/issues/1",
    "https://github.com/nfmcclure/tensorflow_cookbook/issues/86",
)
def probabilities_taken_for_logits() -> KerasRun:
    """The model returns the mean of two softmaxes, and the loss is told from_logits=True."""
    rows, label = digits(1280)
    model = Committee(10)
    model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.5), loss=SPARSE(from_logits=True))
    return KerasRun(model, rows.reshape(-1, 8, 8), label, FIT)


@enter(
    finite(Happens.STALL, "LOSS404"),
    "https://github.com/tensorflow/tensorflow/issues/28718",
    "https://github.com/keras-team/keras/issues/7678",
    backends=("jax", "torch"),
)
def cross_entropy_of_raw_scores() -> KerasRun:
    """loss="sparse_categorical_crossentropy" and no softmax at the end: most scores are clipped to 0 or 1."""
    x, label = digits(1280)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(64, activation="relu"),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, name="scores"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return KerasRun(model, x, label, FIT)


# -- OPT602 ----------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, "OPT602"),
    "https://github.com/tensorflow/recommenders/issues/213",
    "https://github.com/keras-team/keras-cv/pull/1505",
)
def weight_of_a_loss_that_was_left() -> KerasRun:
    """The main loss was taken out, the weight of 0.01 of the other one stayed, and the rate was small already."""
    x, y = regression(1280, seed=43)
    inputs = keras.Input((10,))
    hidden = layers.LayerNormalization()(layers.Dense(32, activation="relu")(inputs))
    model = keras.Model(inputs, {"price": layers.Dense(1, name="price")(hidden)})
    model.compile(optimizer=keras.optimizers.SGD(0.003), loss={"price": "mse"}, loss_weights={"price": 0.01})
    return KerasRun(model, x, {"price": y}, FIT)


# -- ACT302, ACT303, ACT304 ------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, ("ACT302", "DATA502")),
    "https://github.com/mukul-rathi/deep-learning-tutorials/issues/2",
    "https://github.com/keras-team/keras/issues/6399",
)
def counts_of_a_converter_into_an_lstm() -> KerasRun:
    """Counts of a converter, around 2000, go into an LSTM as they are: each of its gates is open or shut for good."""
    rng = np.random.default_rng(44)
    pace = rng.uniform(0.2, 1.0, (1000, 1))
    counts = 2000 + 500 * np.sin(pace * np.arange(24) + rng.uniform(0, 6, (1000, 1))) + 20 * rng.normal(size=(1000, 24))
    model = keras.Sequential([keras.Input((24, 1)), layers.LSTM(16), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(0.05), loss="mse")
    target = (pace - pace.mean()) / pace.std()
    return KerasRun(model, counts[..., None].astype("float32"), target.astype("float32"), FIT)


@enter(
    finite(Happens.STALL, ("ACT303", "OPT601")),
    "https://github.com/keras-team/keras/issues/7057",
    "https://github.com/keras-team/keras/issues/3687",
)
def killed_by_the_first_step() -> KerasRun:
    """Adam at a rate of 1: its first step throws the weights of a rectified output below zero, where they stay."""
    x, _ = digits(1280)
    ink = x.mean(1, keepdims=True).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(24, activation="sigmoid"),
            layers.Dense(1, activation="relu", bias_initializer=keras.initializers.Constant(1.5)),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1.0), loss="mse")
    return KerasRun(model, x, ink, FIT)


@enter(
    runaway("ACT304"),
    "https://github.com/keras-team/keras/issues/10847",
    "https://github.com/wkentaro/pytorch-fcn/issues/167",
)
def uniform_between_zero_and_one() -> KerasRun:
    """RandomUniform(0, 1) in every convolution: all weights are positive and large, the outputs enormous."""
    x, _ = digits(1280)
    start = [keras.initializers.RandomUniform(0.0, 1.0, seed=number) for number in range(3)]
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(12, 3, activation="leaky_relu", kernel_initializer=start[0]),
            layers.Conv2D(12, 3, activation="leaky_relu", kernel_initializer=start[1]),
            layers.Flatten(),
            layers.Dense(1, kernel_initializer=start[2]),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(0.01), loss="mse")
    return KerasRun(model, x.reshape(-1, 8, 8, 1), (x[:, 20:21] + x[:, 43:44] - 0.5).astype("float32"), FIT)


# -- healthy ---------------------------------------------------------------------------------------------------------


@enter(healthy(), "https://github.com/keras-team/keras/issues/12573")
def softmax_where_it_belongs() -> KerasRun:
    """Bytes that the model rescales, a softmax at its end, and a loss that expects one."""
    x, label = digits(1280)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalMaxPooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="sparse_categorical_crossentropy")
    return KerasRun(model, np.round(255 * x).astype("uint8").reshape(-1, 8, 8, 1), label, FIT)


@enter(healthy(), "https://github.com/keras-team/keras/issues/10895")
def padded_texts_up_to_the_last_word() -> KerasRun:
    """Padding is masked, no text is empty, and the last word of the table is used."""
    rng = np.random.default_rng(47)
    words = rng.integers(1, 80, (960, 10))
    words[np.arange(10)[None] >= rng.integers(2, 11, (960, 1))] = 0
    words[0, 0] = 79
    first = (words[:, 0] < 40).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((10,), dtype="int32"),
            layers.Embedding(80, 8, mask_zero=True),
            layers.Bidirectional(layers.GRU(8)),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.01, global_clipnorm=1.0), loss="binary_crossentropy")
    return KerasRun(model, words, first[:, None], FIT)


@enter(healthy(), "https://github.com/keras-team/keras/issues/2586")
def counts_under_a_poisson_loss() -> KerasRun:
    """Counts with a long tail, an exponential at the end, and a logarithm of the exposure among the inputs."""
    rng = np.random.default_rng(48)
    x = rng.normal(size=(1600, 5))
    exposure = rng.uniform(0.2, 3.0, (1600, 1))
    rate = exposure * np.exp(0.5 + 0.5 * x[:, :1] - 0.4 * x[:, 1:2])
    counts = rng.poisson(rate * rng.gamma(2, 0.5, (1600, 1)))
    inputs = np.hstack([x, np.log(exposure)]).astype("float32")
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, activation="tanh"), layers.Dense(1), layers.Activation("exponential")]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="poisson")
    return KerasRun(model, inputs, counts.astype("float32"), FIT)


@enter(healthy(), "https://github.com/keras-team/keras/issues/898")
def moons_with_restarts() -> KerasRun:
    """Two moons, a rate that restarts again and again, and a classifier that ends up very sure."""
    x, y = make_moons(1600, noise=0.05, random_state=49)
    schedule = keras.optimizers.schedules.CosineDecayRestarts(0.03, 30, t_mul=1.0, m_mul=1.0)
    model = keras.Sequential([keras.Input((2,)), layers.Dense(32, activation="relu"), layers.Dense(2)])
    model.compile(optimizer=keras.optimizers.Adam(schedule), loss=SPARSE(from_logits=True))
    return KerasRun(model, x.astype("float32"), y.astype("int32"), FIT)
