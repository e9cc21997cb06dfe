"""Keras programs with data, targets and layers that go wrong, in functional models and generators."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from sklearn.datasets import load_iris

from benchmarks.diagnosis.program import Happens, KerasRun, Truth, enter, finite, non_finite, runaway

FIT: dict[str, Any] = {"batch_size": 30, "epochs": 1, "shuffle": False}


# -- NAN113 ----------------------------------------------------------------------------------------------------------


class Polar(layers.Layer):
    """Speed and bearing of a wind that is given by its two components, each with its own calibration."""

    def build(self, input_shape: Any) -> None:
        self.calibration = self.add_weight(shape=(2,), initializer="ones", name="calibration")

    def call(self, wind: Any) -> Any:
        wind = wind * self.calibration
        east, north = wind[:, 0], wind[:, 1]
        bearing = ops.arctan2(east, north)
        return ops.stack([ops.square(east) + ops.square(north), bearing], axis=-1)


@enter(
    non_finite(
        "NAN113",
        ("atan2", "divide", "reciprocal"),
        "bearing = ops.arctan2(east, north)",
        phase="backward",
        modules=("polar",),
        rows=(1, 26),
    ),
    "https://github.com/pytorch/pytorch/issues/98276",
    "https://github.com/e3nn/e3nn/issues/112",
    backends=("tensorflow", "jax"),
)
def hours_without_any_wind() -> KerasRun:
    """The bearing of the wind by arctan2; in two hours there was none, and arctan2 has no slope at (0, 0)."""
    rng = np.random.default_rng(31)
    wind = rng.normal(size=(1200, 2)).astype("float32")
    power = (np.hypot(*wind.T) ** 2 * (1 + 0.3 * np.sin(np.arctan2(*wind.T)))).astype("float32")
    wind[28 * 30 + 1] = wind[28 * 30 + 26] = 0
    inputs = keras.Input((2,), name="wind")
    hidden = layers.Dense(24, activation="swish")(Polar(name="polar")(inputs))
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    model.compile(optimizer=keras.optimizers.RMSprop(2e-3), loss="mae")
    return KerasRun(model, wind, power[:, None], FIT)


# -- ENV701 ----------------------------------------------------------------------------------------------------------


@enter(
    non_finite(("ENV701", "NAN112"), "divide", None, modules=("pool",), rows=(22,)),
    "https://github.com/keras-team/keras/issues/18152",
    "https://github.com/keras-team/keras/pull/18159",
)
def review_of_no_words() -> KerasRun:
    """GlobalAveragePooling1D behind a masked embedding divides by the number of words (a known issue); one is empty."""
    rng = np.random.default_rng(32)
    words = rng.integers(1, 120, (1050, 14))
    words[np.arange(14)[None] >= rng.integers(3, 15, (1050, 1))] = 0
    liked = (np.where(words < 60, 1, -1) * (words > 0)).sum(1) > 0
    words[27 * 30 + 22] = 0
    model = keras.Sequential(
        [
            keras.Input((14,), dtype="int32"),
            layers.Embedding(120, 10, mask_zero=True),
            layers.GlobalAveragePooling1D(name="pool"),
            layers.Dense(1),
        ]
    )
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss, metrics=["accuracy"])
    return KerasRun(model, words, liked.astype("float32")[:, None], FIT)


# -- DATA502 ---------------------------------------------------------------------------------------------------------


@enter(
    runaway("DATA502"),
    "https://github.com/nndl/exercise/issues/9",
    "https://github.com/zhouhaoyi/Informer2020/issues/251",
)
def powers_of_the_age() -> KerasRun:
    """Age and its square as features, up to 80 and 6400, at a rate that was lowered again and again."""
    rng = np.random.default_rng(33)
    age = rng.uniform(18, 80, (1200, 1))
    income = np.sin(age / 20) + 0.1 * rng.normal(size=(1200, 1))
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, name="regression")])
    model.compile(optimizer=keras.optimizers.SGD(2e-7), loss="mse")
    return KerasRun(model, np.hstack([age, age**2]).astype("float32"), income.astype("float32"), FIT)


# -- DATA507 ---------------------------------------------------------------------------------------------------------


def in_ten_thousands(y_true: Any, y_pred: Any) -> Any:
    return ops.mean(ops.square(ops.cast(y_true, "float32") / 1e4 - y_pred), axis=-1)


@enter(
    finite(Happens.SPIKE, ("DATA507", "DATA504"), rows=tuple(range(12, 30))),
    "https://github.com/laszukdawid/PyEMD/issues/90",
    "https://github.com/tensorflow/tensorflow/issues/41312",
)
def odometer_in_sixteen_bits() -> KerasRun:
    """Kilometres are stored as int16: after 32767 they go on at -32768."""
    weeks = np.arange(1500)
    kilometres = 26 * weeks + 20 * np.sin(weeks / 9)
    kilometres += 32_768 + 1 - kilometres[41 * 30 + 12]
    inputs = np.stack([weeks / 1000, np.sin(weeks / 9), np.cos(weeks / 9)], 1).astype("float32")
    model = keras.Sequential([keras.Input((3,)), layers.Dense(16, activation="softplus"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(0.02), loss=in_ten_thousands)
    return KerasRun(model, inputs, np.round(kilometres).astype("int64").astype("int16")[:, None], FIT)


# -- DATA508 ---------------------------------------------------------------------------------------------------------


class Rents(keras.Model):
    """Computes its loss by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.rent = layers.Dense(32, activation="relu"), layers.Dense(1)

    def call(self, flats: Any) -> Any:
        return self.rent(self.hidden(flats))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        return ops.mean(ops.square(y - y_pred))


@enter(
    finite(Happens.STALL, "DATA508"),
    "https://github.com/tensorflow/tensorflow/issues/28901",
    "https://github.com/keras-team/keras/issues/16836",
)
def every_rent_with_every_other() -> KerasRun:
    """compute_loss subtracts a column of predictions from a vector of rents: n by n differences."""
    rng = np.random.default_rng(35)
    flats = rng.normal(size=(1200, 6)).astype("float32")
    rents = (flats[:, 0] + 0.7 * flats[:, 1] * flats[:, 2]).astype("float32")
    model = Rents()
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    return KerasRun(model, flats, rents / rents.std(), {**FIT, "epochs": 3})


# -- DATA510 ---------------------------------------------------------------------------------------------------------


class SortedFlowers:
    """Batches of irises as the file has them: first all of one kind, then of the next."""

    def __init__(self, rows: int, size: int) -> None:
        data = load_iris()
        chosen = np.sort(np.random.default_rng(36).integers(0, 150, rows))
        self.flowers = ((data.data - data.data.mean(0)) / data.data.std(0))[chosen].astype("float32")
        self.kinds, self.size = data.target[chosen].astype("int32"), size

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self.kinds), self.size):
            yield self.flowers[start : start + self.size], self.kinds[start : start + self.size]


@enter(
    finite(Happens.SPIKE, "DATA510", rows=None),
    "https://github.com/facebookresearch/fastText/issues/74",
    "https://github.com/BVLC/caffe/issues/1445",
)
def irises_in_the_order_of_the_file() -> KerasRun:
    """The rows are sorted by class and not shuffled: each batch has one class, until the next one comes."""
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(12, activation="tanh"), layers.Dense(3, activation="softmax")]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.03), loss="sparse_categorical_crossentropy")
    return KerasRun(model, iter(SortedFlowers(1800, 20)), None, {"steps_per_epoch": 90})


# -- DATA511 ---------------------------------------------------------------------------------------------------------


def _raises(*errors: str) -> Truth:
    return Truth(happens=Happens.EXCEPTION, causes=("DATA511",), kind="exception", operations=errors, rows=(8,))


@enter(
    _raises("InvalidArgumentError"),
    "https://github.com/TannerGilbert/Tutorials/issues/1",
    "https://github.com/keras-team/keras/issues/11819",
    by_backend={
        "torch": _raises("IndexError", "RuntimeError"),
        "jax": Truth(happens=Happens.NON_FINITE, causes=("DATA511",), modules=("book",), rows=(8,)),
    },
)
def book_with_the_highest_number() -> KerasRun:
    """input_dim is the highest number of a book, not one more; that very book comes in batch 31."""
    rng = np.random.default_rng(37)
    reader, book = rng.integers(0, 40, (1200, 1)), rng.integers(0, 75, (1200, 1))
    stars = (rng.normal(size=40)[reader] + rng.normal(size=75)[book]).astype("float32")
    book[31 * 30 + 8] = 75
    who, what = keras.Input((1,), dtype="int32"), keras.Input((1,), dtype="int32")
    pair = layers.Concatenate()([layers.Embedding(40, 6)(who), layers.Embedding(75, 6, name="book")(what)])
    model = keras.Model([who, what], layers.Dense(1)(layers.Flatten()(pair)))
    model.compile(optimizer=keras.optimizers.Adamax(0.02), loss="mse")
    return KerasRun(model, [reader, book], stars, FIT)
