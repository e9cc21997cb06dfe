"""How fast Keras models are trained: restarts, unrolled equations, schedules and averages that do not fit."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, enter, finite, healthy, runaway
from benchmarks.diagnosis.tables import digits, regression

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- OPT601 ----------------------------------------------------------------------------------------------------------


@enter(
    runaway("OPT601"),
    "https://github.com/keras-team/keras/pull/15288",
    "https://github.com/mpyrozhok/adamwr/issues/8",
    "https://github.com/bmaltais/kohya_ss/issues/881",
)
def restarts_that_climb() -> KerasRun:
    """Cosine decay with restarts; `m_mul` was taken for a divisor, and each restart begins five times as high."""
    x, y = regression(1280, seed=7501)
    inputs = keras.Input((10,))
    hidden = layers.Dense(32, activation="relu")(inputs)
    hidden = layers.Add()([hidden, layers.Dense(32, activation="relu")(hidden)])
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    rate = keras.optimizers.schedules.CosineDecayRestarts(0.004, first_decay_steps=15, t_mul=1.0, m_mul=5.0)
    model.compile(optimizer=keras.optimizers.SGD(rate, momentum=0.9), loss="mse")
    return KerasRun(model, x, y, {**FIT, "epochs": 2})


class Encoder(layers.Layer):
    """A block of a transformer."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.look = layers.MultiHeadAttention(2, 4)
        self.first, self.second = layers.LayerNormalization(), layers.LayerNormalization()
        self.wide, self.narrow = layers.Dense(32, activation="gelu"), layers.Dense(8)

    def build(self, shape: Any) -> None:
        self.look.build(shape, shape)
        for layer, width in ((self.first, 8), (self.second, 8), (self.wide, 8), (self.narrow, 32)):
            layer.build((*shape[:-1], width))

    def call(self, words: Any) -> Any:
        words = self.first(words + self.look(words, words))
        return self.second(words + self.narrow(self.wide(words)))


@enter(
    finite(Happens.STALL, "OPT601"),
    "https://github.com/rajveermalviya/language-modeling/issues/3",
    "https://github.com/jadore801120/attention-is-all-you-need-pytorch/issues/101",
    "https://github.com/tensorflow/tensorflow/issues/48308",
)
def tickets_read_in_steps_that_are_too_long() -> KerasRun:
    """A small transformer sorts support tickets under Adam with a learning rate of 0.15: it stays at chance."""
    rng = np.random.default_rng(7502)
    kind = rng.integers(0, 4, 1280)
    words = rng.integers(1, 80, (1280, 16))
    told = rng.random((1280, 16)) < 0.35
    words[told] = (80 + 5 * kind[:, None] + rng.integers(0, 5, (1280, 16)))[told]
    inputs = keras.Input((16,), dtype="int32")
    hidden = Encoder()(Encoder()(layers.Embedding(100, 8)(inputs)))
    model = keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(hidden)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(0.15), loss=loss)
    return KerasRun(model, words.astype("int32"), kind, {**FIT, "epochs": 2})


# -- GRAD203 ---------------------------------------------------------------------------------------------------------


class Flow(layers.Layer):
    """Solves a learnt differential equation with Euler's method."""

    def __init__(self, steps: int, width: float, **more: Any) -> None:
        super().__init__(**more)
        self.steps, self.width = steps, width
        self.inner = layers.Dense(24, activation="relu")
        self.outer = layers.Dense(8, kernel_initializer=keras.initializers.RandomNormal(stddev=0.05, seed=6))

    def build(self, shape: Any) -> None:
        self.inner.build(shape)
        self.outer.build((*shape[:-1], 24))

    def call(self, state: Any) -> Any:
        for _ in range(self.steps):
            state = state + self.width * self.outer(self.inner(state))
        return state


@enter(
    runaway(("GRAD203", "OPT601")),
    "https://github.com/rtqichen/torchdiffeq/issues/88",
    "https://github.com/rtqichen/torchdiffeq/issues/211",
    "https://github.com/cfinlay/ffjord-rnode/issues/3",
)
def thirty_steps_of_euler() -> KerasRun:
    """A learnt equation is solved in thirty steps that are too wide, without clipping: what grows, grows thirtyfold."""
    x, y = regression(1280, seed=7503)
    inputs = keras.Input((10,))
    state = Flow(30, 0.12)(layers.Dense(8)(inputs))
    model = keras.Model(inputs, layers.Dense(1)(state))
    model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9), loss="mse")
    return KerasRun(model, x, y, FIT)


# -- DATA509 ---------------------------------------------------------------------------------------------------------


@enter(
    runaway("DATA509"),
    "https://github.com/keras-team/keras/issues/2134",
    "https://github.com/ai2cm/fv3net/pull/506",
    "https://github.com/keras-team/keras/issues/11014",
)
def one_of_three_heads_in_pascals() -> KerasRun:
    """Wind, temperature and pressure from one trunk; the pressure is in pascals beside two standardised quantities."""
    x, y = regression(1280, seed=7504)
    told = {"wind": y, "warmth": 0.5 * y + x[:, :1], "pressure": 101_300 + 900 * x[:, 1:2]}
    inputs = keras.Input((10,))
    trunk = layers.Dense(32, activation="elu")(layers.Dense(32, activation="elu")(inputs))
    model = keras.Model(inputs, {name: layers.Dense(1, name=name)(trunk) for name in told})
    model.compile(optimizer=keras.optimizers.SGD(0.02, momentum=0.9, nesterov=True), loss=dict.fromkeys(told, "mse"))
    return KerasRun(model, x, {name: values.astype("float32") for name, values in told.items()}, FIT)


# -- DATA502 ---------------------------------------------------------------------------------------------------------


class Pairs(layers.Layer):
    """Products of all pairs of features, of the second order of a factorisation machine."""

    def build(self, shape: Any) -> None:
        self.factors = self.add_weight(shape=(shape[-1], 6), initializer="random_normal", name="factors")

    def call(self, features: Any) -> Any:
        whole = ops.square(ops.matmul(features, self.factors))
        return ops.sum(whole - ops.matmul(ops.square(features), ops.square(self.factors)), axis=-1, keepdims=True) / 2


@enter(
    runaway("DATA502"),
    "https://github.com/online-ml/river/issues/669",
    "https://github.com/blebreton/spark-FM-parallelSGD/issues/5",
    "https://github.com/coreylynch/pyFM/issues/3",
)
def factorisation_machine_with_raw_ages() -> KerasRun:
    """A factorisation machine multiplies its features with each other: ages, years and zeros and ones as they are."""
    rng = np.random.default_rng(7505)
    viewer = np.eye(8)[rng.integers(0, 8, 1280)]
    age, year = rng.integers(18, 80, (1280, 1)), rng.integers(1950, 2020, (1280, 1))
    stars = (viewer @ rng.normal(size=(8, 1)) + 0.02 * (age - 45) - 0.01 * (year - 1990)).astype("float32")
    features = np.concatenate([viewer, age, year], axis=1).astype("float32")
    inputs = keras.Input((10,))
    model = keras.Model(inputs, layers.Add()([layers.Dense(1)(inputs), Pairs()(inputs)]))
    model.compile(optimizer=keras.optimizers.SGD(1e-3), loss="mse")
    return KerasRun(model, features, stars, FIT)


# -- LOSS405 ---------------------------------------------------------------------------------------------------------


class Rod(keras.Model):
    """A network for the temperature along a rod; the heat equation joins the loss later."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [layers.Dense(24, activation="tanh") for _ in range(2)]
        self.warmth = layers.Dense(1)
        self.physics = self.add_weight(shape=(), initializer="zeros", trainable=False, name="physics")

    def call(self, place: Any) -> Any:
        for layer in self.hidden:
            place = layer(place)
        return self.warmth(place)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *more: Any, **named: Any) -> Any:
        bend = (self(x + 0.05) - 2 * y_pred + self(x - 0.05)) / 0.05**2
        residual = ops.mean(ops.square(bend + 9.0 * ops.sin(3 * x)))
        return ops.mean(ops.square(y - y_pred)) + self.physics * residual


class PhysicsFromBatch(keras.callbacks.Callback):
    """Switches the equation on."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == 40:
            self.model.physics.assign(100.0)


@enter(
    finite(Happens.SPIKE, "LOSS405"),
    "https://github.com/benmoseley/harmonic-oscillator-pinn-workshop/issues/2",
    "https://github.com/neuraloperator/physics_informed/issues/26",
    "https://github.com/levimcclenny/SA-PINNs/issues/5",
)
def heat_equation_from_the_fortieth_batch() -> KerasRun:
    """A network learns from measurements first; then the equation is switched on all at once, with a weight of 100."""
    rng = np.random.default_rng(7506)
    place = rng.uniform(-1, 1, (1920, 1)).astype("float32")
    warmth = (np.sin(3 * place) + 0.02 * rng.normal(size=place.shape)).astype("float32")
    model = Rod()
    model.compile(optimizer=keras.optimizers.Adam(3e-3))
    return KerasRun(model, place, warmth, {**FIT, "callbacks": [PhysicsFromBatch()]})


# -- OPT602 ----------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, "OPT602"),
    "https://github.com/Nerogar/OneTrainer/issues/889",
    "https://github.com/real-stanford/diffusion_policy/issues/63",
    "https://github.com/keras-team/keras/issues/18949",
)
def average_that_overwrites_every_step() -> KerasRun:
    """The moving average overwrites the weights after every batch: of each step remains a hundredth."""
    images, labels = digits(1280)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(12, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(10),
        ]
    )
    optimizer = keras.optimizers.Adam(3e-3, use_ema=True, ema_momentum=0.99, ema_overwrite_frequency=1)
    model.compile(optimizer=optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return KerasRun(model, images.reshape(-1, 8, 8, 1), labels, {**FIT, "epochs": 2})


# -- Healthy ---------------------------------------------------------------------------------------------------------


class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """Up to a high rate and down again."""

    def __call__(self, step: Any) -> Any:
        share = ops.cast(step, "float32") / 80.0
        return 0.002 + 0.15 * ops.maximum(0.0, 1 - ops.abs(2 * share - 1))

    def get_config(self) -> dict[str, Any]:
        return {}


@enter(healthy(), "https://github.com/titu1994/keras-one-cycle/issues/4")
def one_cycle_to_a_high_rate() -> KerasRun:
    """A schedule that climbs to 0.15 under Nesterov momentum and comes down again, behind batch normalisation."""
    images, labels = digits(1280)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(48),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Dropout(0.2, seed=1),
            layers.Dense(10),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.SGD(OneCycle(), momentum=0.9, nesterov=True),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return KerasRun(model, images, labels, {**FIT, "epochs": 2})
