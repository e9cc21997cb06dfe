"""Laboratories in Keras: rates of reactions, tanks, catches, crystals, castings, old versions."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, enter, finite, non_finite
from benchmarks.diagnosis.tables import regression

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- NAN112, NAN113 --------------------------------------------------------------------------------------------------


class Arrhenius(layers.Layer):
    """Logarithm of the rate of a reaction: each channel has a factor and an energy of activation."""

    def __init__(self, units: int, **more: Any) -> None:
        super().__init__(**more)
        self.units = units

    def build(self, input_shape: Any) -> None:
        self.factor = self.add_weight(shape=(self.units,), initializer="zeros", name="factor")
        self.energy = self.add_weight(shape=(self.units,), initializer="random_normal", name="energy")

    def call(self, temperature: Any) -> Any:
        return self.factor - 1000 * self.energy / (8.314 * temperature)


@enter(
    non_finite("NAN112", "divide", "return self.factor - 1000 * self.energy", modules=("arrhenius",), rows=(7, 18)),
    "https://en.wikipedia.org/wiki/Arrhenius_equation",
    "https://keras.io/api/ops/numpy/",
)
def kinetics_on_ice() -> KerasRun:
    """The equation of Arrhenius with temperatures in degrees Celsius; two flasks stood in ice, at 0 degrees."""
    rng = np.random.default_rng(3501)
    warmth = rng.uniform(15, 90, (1280, 1)).astype("float32")
    flask = rng.normal(size=(1280, 6)).astype("float32")
    rate = warmth / 30 - 1.5 + 0.4 * flask[:, :1] * flask[:, 1:2]
    warmth[[33 * 32 + 7, 33 * 32 + 18]] = 0
    temperature, content = keras.Input((1,)), keras.Input((6,))
    speed = layers.Activation("tanh")(Arrhenius(6, name="arrhenius")(temperature))
    hidden = layers.Dense(24, activation="silu")(layers.Concatenate()([speed, content]))
    model = keras.Model([temperature, content], layers.Dense(1)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="mse")
    return KerasRun(model, [warmth, flask], rate, FIT)


class Drain(layers.Layer):
    """Level of a tank after some minutes, by the law of Torricelli; an empty tank stays empty."""

    def build(self, input_shape: Any) -> None:
        self.valve = self.add_weight(shape=(), initializer=keras.initializers.Constant(0.05), name="valve")

    def call(self, level: Any, inflow: Any) -> Any:
        for minute in range(6):
            outflow = ops.where(level > 0, self.valve * ops.sqrt(level), 0.0)
            level = level + 0.1 * inflow[:, minute : minute + 1] - outflow
        return level


@enter(
    non_finite(
        ("NAN113", "NAN114"),
        "sqrt",
        "outflow = ops.where(level > 0, self.valve",
        phase=None,
        modules=("drain",),
        rows=(12, 26),
    ),
    "https://docs.jax.dev/en/latest/faq.html#gradients-contain-nan-where-using-where",
    "https://www.tensorflow.org/api_docs/python/tf/where",
)
def tank_that_runs_dry() -> KerasRun:
    """A simulated tank behind `where`: in two runs its level falls below 0, and the unused root is NaN all the same."""
    rng = np.random.default_rng(3503)
    level = rng.uniform(2, 5, (1280, 1)).astype("float32")
    inflow = rng.normal(0, 1, (1280, 6)).astype("float32")
    left = level.copy()
    for minute in range(6):
        left = left + 0.1 * inflow[:, minute : minute + 1] - 0.12 * np.sqrt(left)
    level[[30 * 32 + 12, 30 * 32 + 26]] = 0.05
    inflow[[30 * 32 + 12, 30 * 32 + 26]] = -2.0
    first, flow = keras.Input((1,)), keras.Input((6,))
    steady = layers.Dense(6, kernel_initializer="identity")(flow)
    model = keras.Model([first, flow], Drain(name="drain")(first, steady))
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss="mse")
    return KerasRun(model, [level, inflow], left, FIT)


# -- NAN111 ----------------------------------------------------------------------------------------------------------


def mixture_likelihood(y_true: Any, y_pred: Any) -> Any:
    """Negative log-likelihood of a mixture of three normals: weights, means and logarithms of their deviations."""
    weight = ops.softmax(y_pred[:, :3])
    mean, width = y_pred[:, 3:6], ops.softplus(y_pred[:, 6:]) + 0.05
    density = ops.exp(-0.5 * ops.square((y_true - mean) / width)) / (2.5066283 * width)
    return -ops.log(ops.sum(weight * density, axis=-1))


@enter(
    non_finite(("NAN111", "DATA504"), "log", "return -ops.log(ops.sum(weight * density", modules=("",), rows=(24,)),
    "https://github.com/keras-team/keras/issues/1061",
    "https://github.com/keras-team/keras/issues/2586",
)
def catch_far_from_every_mixture() -> KerasRun:
    """A mixture of normals for the catch of a trawler; one catch lies so far out that all three densities are 0."""
    rng = np.random.default_rng(3504)
    sea = rng.normal(size=(1280, 6)).astype("float32")
    side = np.where(rng.random((1280, 1)) < 0.5, 1.0, -1.0)
    catch = side * (1 + 0.3 * sea[:, :1]) + 0.3 * sea[:, 1:2] + 0.1 * rng.normal(size=(1280, 1))
    catch[36 * 32 + 24] = 45.0
    start = keras.initializers.Constant([0, 0, 0, -1, 0, 1, 0.5, 0.5, 0.5])
    inputs = keras.Input((6,))
    hidden = layers.Dense(32, activation="tanh")(inputs)
    model = keras.Model(inputs, layers.Dense(9, bias_initializer=start)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=mixture_likelihood)
    return KerasRun(model, sea, catch.astype("float32"), FIT)


# -- Stalls and divergence -------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, ("ACT304", "ACT302"), rows=None),
    "https://keras.io/api/layers/initializers/",
    "https://stackoverflow.com/questions/20027598/why-should-weights-of-neural-networks-be-initialized-to-random-numbers",
)
def scale_taken_for_a_percentage() -> KerasRun:
    """Phases of a crystal by five layers of tanh; VarianceScaling(scale=100) was meant to be a hundred percent."""
    rng = np.random.default_rng(3507)
    spectrum = rng.normal(size=(1280, 24)).astype("float32")
    phase = (spectrum[:, :4].sum(1) > 0).astype("int32") + (spectrum[:, 4:8].sum(1) > 0).astype("int32")
    wide = [
        layers.Dense(48, activation="tanh", kernel_initializer=keras.initializers.VarianceScaling(scale=100, seed=seed))
        for seed in range(5)
    ]
    model = keras.Sequential([keras.Input((24,)), *wide, layers.Dense(3, activation="softmax")])
    model.compile(optimizer=keras.optimizers.SGD(1e-2), loss="sparse_categorical_crossentropy")
    return KerasRun(model, spectrum, phase, FIT)


@enter(
    finite(Happens.STALL, "OPT602", rows=None),
    "https://keras.io/api/optimizers/learning_rate_schedules/exponential_decay/",
    "https://keras.io/api/optimizers/learning_rate_schedules/inverse_time_decay/",
)
def decay_of_an_old_version() -> KerasRun:
    """decay=10 of an old version of Keras became decay_rate=10 for each single step: the rate is gone after a few."""
    x, y = regression(1280, seed=3508)
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(24, activation="relu"),
            layers.LayerNormalization(),
            layers.Dense(24, activation="relu"),
            layers.Dense(1, kernel_initializer="zeros"),
        ]
    )
    rate = keras.optimizers.schedules.InverseTimeDecay(1e-3, decay_steps=1, decay_rate=10.0)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss="mse")
    return KerasRun(model, x, y, FIT)


@enter(
    finite(Happens.STALL, "DATA510", rows=None),
    "https://www.tensorflow.org/tutorials/structured_data/imbalanced_data",
    "https://scikit-learn.org/stable/modules/cross_validation.html#stratification",
)
def castings_that_all_passed() -> KerasRun:
    """Flaws of castings: a filter of the file kept what had passed, and the bias starts at the share of flaws, 0."""
    rng = np.random.default_rng(3509)
    casting = rng.normal(size=(4000, 9)).astype("float32")
    flawed = (casting[:, 0] + 0.5 * rng.normal(size=4000) > 1.2).astype("float32")
    casting, flawed = casting[flawed == 0][:1280], flawed[flawed == 0][:1280, None]
    odds = np.log((flawed.sum() + 1) / (len(flawed) - flawed.sum() + 1))
    start = keras.initializers.Constant(float(odds))
    model = keras.Sequential(
        [
            keras.Input((9,)),
            layers.Dense(24, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(1, activation="sigmoid", kernel_initializer="zeros", bias_initializer=start),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(1e-2), loss="binary_crossentropy", metrics=["accuracy"])
    return KerasRun(model, casting, flawed, FIT)
