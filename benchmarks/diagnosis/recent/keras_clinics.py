"""Medicine in Keras: doses, survival, wards, scanners, screening, risk scores."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, enter, finite, non_finite
from benchmarks.diagnosis.tables import digits, regression

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- NAN111 ----------------------------------------------------------------------------------------------------------


class DoseResponse(layers.Layer):
    """Hill's equation: each channel has a steepness and a dose at which half of the effect is reached."""

    def __init__(self, units: int, **more: Any) -> None:
        super().__init__(**more)
        self.units = units

    def build(self, input_shape: Any) -> None:
        self.steepness = self.add_weight(shape=(self.units,), initializer="ones", name="steepness")
        self.half = self.add_weight(shape=(self.units,), initializer="zeros", name="half")

    def call(self, dose: Any) -> Any:
        power = ops.exp(self.steepness * (ops.log(dose) - self.half))
        return power / (1 + power)


@enter(
    non_finite("NAN111", "log", "power = ops.exp(self.steepness * (ops.log", modules=("hill",), rows=(9, 21)),
    "https://github.com/keras-team/keras/issues/1244",
    "https://stackoverflow.com/questions/33712178/tensorflow-nan-bug",
)
def patients_who_got_the_placebo() -> KerasRun:
    """Effects of a drug by Hill's equation in the logarithm of the dose; two patients got a placebo, a dose of 0."""
    rng = np.random.default_rng(3101)
    dose = rng.lognormal(0, 0.7, (1280, 1)).astype("float32")
    history = rng.normal(size=(1280, 6)).astype("float32")
    effect = dose**1.5 / (1 + dose**1.5) * (1 + 0.3 * history[:, :1]) + 0.05 * rng.normal(size=(1280, 1))
    dose[[34 * 32 + 9, 34 * 32 + 21]] = 0
    taken, told = keras.Input((1,), name="dose"), keras.Input((6,), name="history")
    strength = layers.Dense(8, activation="softplus")(layers.Dense(16, activation="relu")(told))
    hidden = layers.Multiply()([DoseResponse(8, name="hill")(taken), strength])
    model = keras.Model([taken, told], layers.Dense(1)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="mse")
    return KerasRun(model, [dose, history], effect.astype("float32"), FIT)


def discrete_hazard(y_true: Any, y_pred: Any) -> Any:
    """Negative log-likelihood of a month in which a patient relapsed, or did not."""
    return -ops.mean(y_true * ops.log(y_pred) + (1 - y_true) * ops.log(1 - y_pred), axis=-1)


@enter(
    non_finite("NAN111", "log", "return -ops.mean(y_true * ops.log(y_pred)", modules=("",), rows=None),
    "https://stackoverflow.com/questions/33712178/tensorflow-nan-bug",
    "https://keras.io/api/losses/probabilistic_losses/",
)
def relapse_that_is_certain() -> KerasRun:
    """Monthly hazards without a floor under the logarithm: a hazard becomes 1 to the last digit, and 0 * log(0) NaN."""
    rng = np.random.default_rng(3102)
    markers = rng.normal(size=(1600, 6)).astype("float32")
    grade = rng.integers(0, 2, (1600, 1)).astype("float32")
    markers[:, :4] += 5 * (grade - 0.5)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(32, activation="relu"), layers.Dense(1, activation="sigmoid")]
    )
    model.compile(optimizer=keras.optimizers.Adam(2e-2), loss=discrete_hazard)
    return KerasRun(model, markers, grade, FIT)


# -- NAN112 ----------------------------------------------------------------------------------------------------------


class PartialLikelihood(keras.losses.Loss):
    """Cox's partial likelihood within the batch; targets are the time and whether the event was seen."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        time, seen, risk = y_true[:, 0], y_true[:, 1], y_pred[:, 0]
        later = ops.cast(time[None, :] >= time[:, None], "float32")
        at_risk = ops.logsumexp(risk[None, :] - 1e9 * (1 - later), axis=1)
        return ops.sum(seen * (at_risk - risk)) / ops.sum(seen)


@enter(
    non_finite("NAN112", "divide", "return ops.sum(seen * (at_risk - risk))", modules=("",), rows=None),
    "https://github.com/havakv/pycox/issues/124",
    "https://github.com/liupei101/TFDeepSurv/issues/15",
)
def batch_in_which_nobody_died() -> KerasRun:
    """A Cox model averages over the events of the batch; in one batch all patients were still alive: 0 / 0."""
    rng = np.random.default_rng(3103)
    record = rng.normal(size=(1280, 12)).astype("float32")
    time = rng.exponential(np.exp(-record[:, 0] + 0.5 * record[:, 1]))
    seen = (rng.random(1280) < 0.35).astype("float32")
    seen[::32] = 1.0
    seen[33 * 32 : 34 * 32] = 0.0
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(24, activation="selu"),
            layers.Dropout(0.1),
            layers.Dense(1, use_bias=False),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=PartialLikelihood())
    return KerasRun(model, record, np.stack([time, seen], axis=1).astype("float32"), FIT)


class Whiten(layers.Layer):
    """Brings each column of the batch to mean 0 and deviation 1."""

    def call(self, x: Any) -> Any:
        centred = x - ops.mean(x, axis=0, keepdims=True)
        return centred / ops.std(x, axis=0, keepdims=True)


@enter(
    non_finite("NAN112", "divide", "return centred / ops.std(x, axis=0", modules=("whiten",), rows=None),
    "https://github.com/keras-team/keras/issues/2001",
    "https://keras.io/api/layers/normalization_layers/batch_normalization/",
)
def ward_without_smokers() -> KerasRun:
    """Batch normalisation by hand without an epsilon; in one batch nobody smokes, and that column has no deviation."""
    x, y = regression(1280, seed=3104)
    rng = np.random.default_rng(3104)
    smokes = (rng.random((1280, 1)) < 0.3).astype("float32")
    smokes[::32] = 1.0
    smokes[31 * 32 : 32 * 32] = 0.0
    model = keras.Sequential(
        [
            keras.Input((11,)),
            Whiten(name="whiten"),
            layers.Dense(32, activation="gelu"),
            layers.Dense(16, activation="gelu"),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse")
    return KerasRun(model, np.concatenate([x, smokes], axis=1), y + 0.3 * smokes, FIT)


# -- Stalls ----------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, ("DATA502", "ACT302"), rows=None),
    "https://github.com/keras-team/keras/issues/18919",
    "https://keras.io/api/layers/preprocessing_layers/numerical/normalization/",
)
def scanner_with_twelve_bits() -> KerasRun:
    """Slices of a scanner come with values from 0 to 4095 into sigmoids, each of which is shut or open."""
    images, labels = digits(1280)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="sigmoid"),
            layers.Flatten(),
            layers.Dense(32, activation="sigmoid"),
            layers.Dense(10, activation="softmax", kernel_initializer="zeros"),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(1e-2), loss="sparse_categorical_crossentropy")
    return KerasRun(model, (4095 * images).reshape(-1, 8, 8, 1), labels, FIT)


@enter(
    finite(Happens.STALL, ("ACT302", "GRAD202", "LOSS403", "LOSS404"), rows=None),
    "https://github.com/keras-team/keras/issues/4784",
    "https://github.com/keras-team/keras/issues/126",
    backends=("jax", "torch"),
)
def sick_or_healthy_by_one_softmax() -> KerasRun:
    """A softmax over a single unit is 1 for every patient, whatever the weights are."""
    rng = np.random.default_rng(3106)
    blood = rng.normal(size=(1280, 12)).astype("float32")
    sick = (np.arange(1280) % 2).astype("float32")[:, None]
    blood[:, :2] += 1.5 * sick
    inputs = keras.Input((12,))
    hidden = layers.Dense(32, activation="relu")(inputs)
    hidden = layers.Dense(16, activation="relu")(layers.Dropout(0.2)(hidden))
    model = keras.Model(inputs, layers.Dense(1, activation="softmax")(hidden))
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    return KerasRun(model, blood, sick, FIT)


@enter(
    finite(Happens.STALL, "LOSS403", rows=None),
    "https://keras.io/api/losses/probabilistic_losses/",
    "https://stackoverflow.com/questions/57253841/from-logits-true-and-from-logits-false-get-different-training-result",
    backends=("jax", "torch"),
)
def readmission_through_two_softmaxes() -> KerasRun:
    """Readmission of patients, hard to foresee: a softmax at the end of the model and another one in the loss."""
    rng = np.random.default_rng(3107)
    stay, notes = rng.normal(size=(1920, 8)), rng.integers(1, 60, (1920, 12))
    worth = rng.normal(size=60)
    score = stay[:, 0] - stay[:, 1] + 0.6 * worth[notes].mean(1)
    again = (score + 2.4 * rng.normal(size=1920) > 0).astype("int32")
    numbers, words = keras.Input((8,)), keras.Input((12,), dtype="int32")
    read = layers.GlobalAveragePooling1D()(layers.Embedding(60, 8)(words))
    hidden = layers.Dense(16, activation="relu")(layers.Concatenate()([numbers, read]))
    model = keras.Model([numbers, words], layers.Dense(2, activation="softmax")(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss)
    return KerasRun(model, [stay.astype("float32"), notes.astype("int32")], again, FIT)
