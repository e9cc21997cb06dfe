"""Arithmetic that breaks at an edge, in Keras, written with ``keras.ops`` so that it runs on every backend."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import KerasRun, enter, non_finite
from benchmarks.diagnosis.tables import digits, regression, two_blobs

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- NAN110: overflow ------------------------------------------------------------------------------------------------


def log_cosh(y_true: Any, y_pred: Any) -> Any:
    error = y_pred - y_true
    return ops.mean(ops.log(ops.cosh(error)))


@enter(
    non_finite("NAN110", ("exp", "cosh"), "return ops.mean(ops.log(ops.cosh(error)))", modules=("",), rows=(13,)),
    "https://manongdao.com/article-2153735.html",
    "https://github.com/VinceShieh/spark-ffm/issues/12",
)
def log_cosh_of_a_late_train() -> KerasRun:
    """log(cosh(x)) as the formula has it: cosh overflows for an error of 90 minutes."""
    x, y = regression(1280)
    minutes = np.clip(25 * y, -70, 70).astype("float32")
    minutes[28 * 32 + 13] = 118.0
    model = keras.Sequential([keras.Input((10,)), layers.Dense(64, activation="relu"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=log_cosh)
    return KerasRun(model, x, minutes, FIT)


# -- NAN111: logarithm of zero ---------------------------------------------------------------------------------------


def weighted_cross_entropy(y_true: Any, y_pred: Any) -> Any:
    hit = 2.0 * y_true * ops.log(y_pred)
    miss = (1.0 - y_true) * ops.log(1.0 - y_pred)
    return -ops.mean(hit + miss, axis=-1)


@enter(
    non_finite("NAN111", "log", "miss = (1.0 - y_true) * ops.log(1.0 - y_pred)", modules=("",), rows=None),
    "https://github.com/NVIDIA/apex/issues/358",
    "https://ai.stackexchange.com/questions/6622/how-is-division-by-zero-avoided-when-implementing-back-propagation-for-a-neural",
)
def weighted_cross_entropy_by_hand() -> KerasRun:
    """A class-weighted cross entropy written by hand, without clipping; the classifier becomes sure."""
    x, y = two_blobs(1280, gap=4.0)
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(32, activation="relu"), layers.Dense(1, activation="sigmoid")]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.02), loss=weighted_cross_entropy)
    return KerasRun(model, x, y, {**FIT, "epochs": 2})


class LogFrequencies(layers.Layer):
    """Words per document, on the scale of logarithms, with a learnt gain."""

    def build(self, input_shape: Any) -> None:
        self.gain = self.add_weight(shape=(), initializer="ones", name="gain")

    def call(self, counts: Any) -> Any:
        total = ops.sum(counts, axis=-1, keepdims=True)
        return self.gain * ops.concatenate([counts, ops.log(total)], axis=-1)


@enter(
    non_finite("NAN111", "log", "ops.concatenate([counts, ops.log(total)]", modules=("log_frequencies",), rows=(10,)),
    "https://github.com/tensorflow/models/pull/8223",
    "https://github.com/RasmussenLab/vamb/issues/12",
)
def empty_document() -> KerasRun:
    """The logarithm of the length of a document; one document is empty."""
    counts, topic = digits(1280)
    counts = np.round(8 * counts).astype("float32")
    counts[26 * 32 + 10] = 0
    model = keras.Sequential([keras.Input((64,)), LogFrequencies(name="log_frequencies"), layers.Dense(10)])
    model.compile(
        optimizer=keras.optimizers.Adam(3e-3), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return KerasRun(model, counts, topic, FIT)


# -- NAN112: division by zero ----------------------------------------------------------------------------------------


def masked_mse(y_true: Any, y_pred: Any) -> Any:
    mask = ops.cast(ops.not_equal(y_true, -1.0), "float32")
    squared = ops.square(y_true - y_pred) * mask
    return ops.sum(squared) / ops.sum(mask)


@enter(
    non_finite("NAN112", "divide", "return ops.sum(squared) / ops.sum(mask)", modules=("",), rows=()),
    "https://github.com/keras-team/keras/pull/11643",
    "https://github.com/keras-team/keras/issues/3270",
)
def batch_of_masked_targets() -> KerasRun:
    """Missing targets are -1 and masked; in one batch all are missing."""
    x, y = regression(1280)
    y[::3] = -1
    y[25 * 32 : 26 * 32] = -1
    model = keras.Sequential([keras.Input((10,)), layers.Dense(32, activation="relu"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=masked_mse)
    return KerasRun(model, x, y, FIT)


class UnitLength(layers.Layer):
    """Brings every row to length one."""

    def call(self, x: Any) -> Any:
        length = ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True))
        return x / length


@enter(
    non_finite("NAN112", "divide", "return x / length", modules=("unit_length",), rows=(20,)),
    "https://github.com/pytorch/pytorch/issues/4132",
    "https://github.com/clab/dynet/issues/1232",
)
def blank_row_to_unit_length() -> KerasRun:
    """A row of zeros is divided by its own length."""
    images, labels = digits(1280)
    images[30 * 32 + 20] = 0
    model = keras.Sequential(
        [keras.Input((64,)), UnitLength(name="unit_length"), layers.Dense(64, activation="relu"), layers.Dense(10)]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(3e-3), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return KerasRun(model, images, labels, FIT)


# -- NAN113: gradient singularity ------------------------------------------------------------------------------------


class Euclidean(layers.Layer):
    """Distance of two embeddings."""

    def call(self, pair: Any) -> Any:
        first, second = pair
        return ops.sqrt(ops.sum(ops.square(first - second), axis=1, keepdims=True))


def contrastive(y_true: Any, y_pred: Any) -> Any:
    margin = ops.square(ops.maximum(1.0 - y_pred, 0.0))
    return ops.mean(y_true * y_pred + (1.0 - y_true) * margin)


@enter(
    non_finite(
        "NAN113", "sqrt", "return ops.sqrt(ops.sum(ops.square(first", phase="backward", modules=("distance",), rows=(4,)
    ),
    "https://github.com/keras-team/keras/issues/9097",
    "https://github.com/tensorflow/tensorflow/issues/30199",
)
def twins_in_a_siamese_network() -> KerasRun:
    """One pair is the same image twice, at distance 0."""
    images, labels = digits(1280)
    other = np.roll(np.arange(1280), 7)
    other[27 * 32 + 4] = 27 * 32 + 4
    same = (labels == labels[other]).astype("float32")[:, None]
    left, right = keras.Input((64,)), keras.Input((64,))
    tower = keras.Sequential([layers.Dense(32, activation="tanh"), layers.Dense(8)], name="tower")
    model = keras.Model([left, right], Euclidean(name="distance")([tower(left), tower(right)]))
    model.compile(optimizer=keras.optimizers.RMSprop(1e-3), loss=contrastive)
    return KerasRun(model, [images, images[other]], same, FIT)


def euclidean_loss(y_true: Any, y_pred: Any) -> Any:
    return ops.mean(ops.sqrt(ops.sum(ops.square(y_true - y_pred), axis=-1)))


@enter(
    non_finite(
        "NAN113",
        "sqrt",
        "return ops.mean(ops.sqrt(ops.sum(ops.square(y_true",
        phase="backward",
        modules=("",),
        rows=(11, 23),
    ),
    "https://github.com/sounakdey/SigNet/issues/1",
    "https://github.com/adambielski/siamese-triplet/issues/18",
)
def exact_prediction_of_nothing() -> KerasRun:
    """A network without biases says 0 for a blank row, and the truth is 0: the slope of the root has no end."""
    x, _ = regression(1280)
    y = np.maximum(x[:, :3] + 1.5, 0.05).astype("float32")
    for row in (11, 23):
        x[24 * 32 + row], y[24 * 32 + row] = 0.0, 0.0
    model = keras.Sequential(
        [keras.Input((10,)), layers.Dense(32, activation="relu", use_bias=False), layers.Dense(3, use_bias=False)]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=euclidean_loss)
    return KerasRun(model, x, y, FIT)


# -- NAN114: outside of the domain -----------------------------------------------------------------------------------


def tweedie(y_true: Any, y_pred: Any) -> Any:
    """Deviance of a compound Poisson distribution with power 1.5."""
    tail = ops.power(y_pred, 0.5)
    return ops.mean(2.0 * tail + 2.0 * y_true / tail)


@enter(
    non_finite("NAN114", "power", "tail = ops.power(y_pred, 0.5)", modules=("",), rows=None),
    "https://github.com/timeseriesAI/tsai/issues/150",
    "https://github.com/sberbank-ai-lab/LightAutoML/issues/94",
)
def tweedie_of_negative_prediction() -> KerasRun:
    """A Tweedie loss on a linear output: sooner or later a prediction is negative."""
    x, y = regression(1280)
    claims = np.exp(1.2 * y - 1.5)
    start = keras.initializers.Constant(1.0)
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(32, activation="relu"),
            layers.Dense(1, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01), bias_initializer=start),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=tweedie)
    return KerasRun(model, x, claims, FIT)


class Spread(layers.Layer):
    """Standard deviation of each window, from its moments."""

    def call(self, window: Any) -> Any:
        mean = ops.mean(window, axis=-1, keepdims=True)
        second = ops.mean(ops.square(window), axis=-1, keepdims=True)
        return ops.concatenate([mean, ops.sqrt(second - ops.square(mean))], axis=-1)


@enter(
    non_finite("NAN114", "sqrt", "ops.sqrt(second - ops.square(mean))", modules=("spread",), rows=None),
    "https://github.com/ClickHouse/ClickHouse/issues/10532",
    "https://github.com/QuantConnect/Lean/pull/2673",
)
def spread_of_flat_windows() -> KerasRun:
    """Windows of a halted instrument: their variance rounds below zero."""
    rng = np.random.default_rng(5)
    level = rng.normal(size=(1280, 1))
    window = (level + 0.5 * rng.normal(size=(1280, 50))).astype("float32")
    window[29 * 32 : 29 * 32 + 24] = np.linspace(3.0, 3.5, 24, dtype="float32")[:, None]
    model = keras.Sequential(
        [keras.Input((50,)), Spread(name="spread"), layers.Dense(16, activation="relu"), layers.Dense(1)]
    )
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="mse")
    return KerasRun(model, window, level.astype("float32"), FIT)


# -- NAN115: custom gradient -----------------------------------------------------------------------------------------


@ops.custom_gradient
def guarded_log(x: Any) -> Any:
    """A logarithm that is safe at 0 on its way forward."""

    def grad(*args: Any, upstream: Any = None) -> Any:
        (upstream,) = args if upstream is None else (upstream,)
        return upstream / x

    return ops.log(ops.maximum(x, 1e-7)), grad


class Decibels(layers.Layer):
    """Power on a logarithmic scale, with a learnt gain."""

    def build(self, input_shape: Any) -> None:
        self.gain = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="gain")

    def call(self, power: Any) -> Any:
        return guarded_log(self.gain * power)


@enter(
    non_finite(
        "NAN115",
        None,
        ("return guarded_log(self.gain * power)", "return upstream / x"),
        kind="operation",
        phase="backward",
        modules=("decibels",),
        rows=(2, 9),
    ),
    "https://github.com/pytorch/pytorch/issues/8069",
    "https://github.com/CamDavidsonPilon/autograd-gamma/pull/1",
)
def custom_gradient_of_a_safe_log() -> KerasRun:
    """The forward pass is clipped, the custom gradient divides by the value as it was."""
    power, labels = digits(1280)
    power = power + 0.02
    power[28 * 32 + 2, :8] = 0
    power[28 * 32 + 9, 20:24] = 0
    model = keras.Sequential(
        [keras.Input((64,)), Decibels(name="decibels"), layers.Dense(32, activation="relu"), layers.Dense(10)]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return KerasRun(model, power, labels, FIT)
