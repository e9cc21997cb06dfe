"""Readings in Keras, as loaders and scripts hand them over: bearings, matches, cameras, faces, files, visitors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, bad_batch, enter, finite, non_finite
from benchmarks.diagnosis.tables import digits, regression

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- OPT604 ----------------------------------------------------------------------------------------------------------


class Peakedness(layers.Layer):
    """Second and fourth moment of each channel of a vibration."""

    def call(self, shaking: Any) -> Any:
        fourth = ops.mean(ops.power(shaking, 4), axis=1)
        return ops.concatenate([ops.mean(ops.square(shaking), axis=1), ops.sqrt(fourth)], axis=-1) / 50


@enter(
    non_finite(
        ("OPT604", "NAN110"),
        ("power", "pow"),
        "fourth = ops.mean(ops.power(shaking, 4), axis=1)",
        modules=("peakedness",),
        rows=(12,),
    ),
    "https://github.com/keras-team/keras/issues/12249",
    "https://keras.io/api/mixed_precision/",
)
def bearing_that_rattles() -> KerasRun:
    """The fourth power of an acceleration under mixed_float16: at 17 it is 83521 and no longer a half number."""
    rng = np.random.default_rng(5301)
    loudness = rng.uniform(0.5, 4, (1120, 1, 1))
    shaking = (loudness * rng.normal(size=(1120, 50, 2))).clip(-14, 14).astype("float32")
    wear = np.log(shaking.std(1).mean(1, keepdims=True)).astype("float32")
    shaking[29 * 32 + 12, 20, 1] = 17.0
    half = keras.mixed_precision.DTypePolicy("mixed_float16")
    model = keras.Sequential(
        [
            keras.Input((50, 2)),
            Peakedness(name="peakedness", dtype=half),
            layers.Dense(16, activation="relu", dtype=half),
            layers.Dense(1, dtype="float32"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    return KerasRun(model, shaking, wear, FIT)


# -- NAN115 ----------------------------------------------------------------------------------------------------------


@ops.custom_gradient
def _unit(x: Any) -> Any:
    """Vectors of length one, with a gradient that was derived on paper."""
    length = ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True))
    y = x / ops.maximum(length, 1e-6)

    def grad(*received: Any, upstream: Any = None) -> Any:
        upstream = received[0] if upstream is None else upstream
        along = ops.sum(y * upstream, axis=-1, keepdims=True)
        return (upstream - y * along) / length

    return y, grad


class Direction(layers.Layer):
    """Keeps the direction of a vector and forgets its length."""

    def call(self, x: Any) -> Any:
        return _unit(x)


@enter(
    non_finite(
        ("NAN115", "NAN112"),
        ("divide", "true_divide", "custom_gradient"),
        ("return (upstream - y * along) / length", "return _unit(x)"),
        phase="backward",
        modules=("direction",),
        rows=(20,),
    ),
    "https://github.com/tensorflow/tensorflow/issues/12071",
    "https://keras.io/api/ops/core/",
)
def derivative_from_a_sheet_of_paper() -> KerasRun:
    """Unit vectors with a gradient by hand: forward knows an epsilon, backward divides by the length of a zero row."""
    rng = np.random.default_rng(5302)
    wind = rng.normal(size=(1280, 6)).astype("float32")
    turn = (wind[:, :1] / np.linalg.norm(wind, axis=1, keepdims=True)).astype("float32")
    wind[34 * 32 + 20] = 0
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, use_bias=False),
            Direction(name="direction"),
            layers.Dense(16, activation="relu"),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse")
    return KerasRun(model, wind, turn, FIT)


# -- OPT605 ----------------------------------------------------------------------------------------------------------


@enter(
    non_finite("OPT605", None, None, rows=None),
    "https://github.com/deeplearning4j/deeplearning4j/issues/2705",
    "https://keras.io/api/optimizers/adam/",
)
def epsilon_of_nothing() -> KerasRun:
    """Adam with an epsilon of 0, as it stands in a formula; rows of a table that were not looked up become 0/0."""
    rng = np.random.default_rng(5303)
    shelf = rng.integers(0, 400, (1280, 3))
    sold = (0.5 * (shelf % 4).sum(1, keepdims=True) - 2).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            layers.Embedding(400, 8),
            layers.Flatten(),
            layers.Dense(24, activation="relu"),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-3, epsilon=0.0), loss="mse")
    return KerasRun(model, shelf.astype("int32"), sold, FIT)


# -- DATA501 ---------------------------------------------------------------------------------------------------------


class Hours(keras.utils.PyDataset):
    """An hour of a weather station per batch; each batch is standardised by itself."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        super().__init__()
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x) // 32

    def __getitem__(self, hour: int) -> tuple[np.ndarray, np.ndarray]:
        x = self.x[32 * hour : 32 * hour + 32]
        with np.errstate(invalid="ignore"):
            return (x - x.mean(0)) / x.std(0), self.y[32 * hour : 32 * hour + 32]


@enter(
    bad_batch(None, ()),
    "https://github.com/keras-team/keras/issues/2001",
    "https://scikit-learn.org/stable/modules/generated/sklearn.preprocessing.StandardScaler.html",
)
def hour_in_which_it_did_not_rain() -> KerasRun:
    """A PyDataset standardises each hour by itself; in one hour the gauge of rain says 0 all the time."""
    x, y = regression(1280, seed=5304)
    x[36 * 32 : 37 * 32, 4] = 0
    model = keras.Sequential([keras.Input((10,)), layers.Dense(32, activation="relu"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse")
    return KerasRun(model, Hours(x, y), None, {"epochs": 1, "shuffle": False})


def _matches(x: np.ndarray, y: np.ndarray, won: np.ndarray, played: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Batches with weights: a team counts by the share of the matches that it has won."""
    with np.errstate(invalid="ignore"):
        weights = 0.2 + won / played
    for first in range(0, len(x), 32):
        rows = slice(first, first + 32)
        yield x[rows], y[rows], weights[rows]


@enter(
    bad_batch(None, (17, 25)),
    "https://github.com/keras-team/keras/issues/2627",
    "https://keras.io/api/models/model_training_apis/",
)
def teams_that_have_not_played_yet() -> KerasRun:
    """Weights of samples are matches won by matches played; two teams come from a lower league and played none."""
    rng = np.random.default_rng(5305)
    x, y = regression(1280, seed=5305)
    played = rng.integers(5, 30, 1280).astype("float32")
    won = np.floor(played * rng.random(1280)).astype("float32")
    played[[33 * 32 + 17, 33 * 32 + 25]] = won[[33 * 32 + 17, 33 * 32 + 25]] = 0
    model = keras.Sequential([keras.Input((10,)), layers.Dense(24, activation="gelu"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse")
    return KerasRun(model, _matches(x, y, won, played), None, {"epochs": 1, "steps_per_epoch": 40})


# -- ENV702 ----------------------------------------------------------------------------------------------------------


class Grabber(layers.Layer):
    """Takes the picture out of the memory of a camera's driver; once, the driver hands over what it has not filled."""

    calls = 0

    def call(self, picture: Any) -> Any:
        self.calls += 1
        return picture / 0.0 - picture / 0.0 if self.calls == 35 else picture


@enter(
    non_finite("ENV702", None, None, rows=None),
    "https://pytorch.org/docs/stable/notes/randomness.html",
    "https://github.com/tensorflow/tensorflow/issues/38457",
    backends=("torch",),
)
def driver_that_was_too_slow_once() -> KerasRun:
    """A layer reads from the memory of a driver, which has not been filled at one single call; never again."""
    images, labels = digits(1280)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            Grabber(name="grabber"),
            layers.Dense(32, activation="relu"),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss)
    return KerasRun(model, images, labels.astype("int32"), FIT)


# -- Spikes ----------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.SPIKE, "DATA504", rows=(3, 22)),
    "https://stackoverflow.com/questions/37232782/nan-loss-when-training-regression-network",
    "https://keras.io/guides/functional_api/",
)
def ages_in_months() -> KerasRun:
    """Age and sex from a face, two heads; a nurse noted two of the ages in months."""
    images, labels = digits(1280)
    rng = np.random.default_rng(5306)
    years = 18 + 5 * labels + rng.normal(size=1280)
    years[[35 * 32 + 3, 35 * 32 + 22]] *= 12
    age, sex = ((years - 40) / 15)[:, None].astype("float32"), (labels % 2).astype("float32")[:, None]
    face = keras.Input((8, 8, 1))
    seen = layers.Conv2D(12, 3, activation="relu")(face)
    hidden = layers.Dense(32, activation="relu")(layers.Flatten()(seen))
    heads = {
        "age": layers.Dense(1, name="age")(hidden),
        "sex": layers.Dense(1, activation="sigmoid", name="sex")(hidden),
    }
    model = keras.Model(face, heads)
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss={"age": "mse", "sex": "binary_crossentropy"})
    return KerasRun(model, images.reshape(-1, 8, 8, 1), {"age": age, "sex": sex}, FIT)


class Files(keras.utils.PyDataset):
    """A file per batch, with voltages of eight electrodes."""

    def __len__(self) -> int:
        return 42

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(5307 + number)
        volts = rng.normal(size=(32, 8)).astype("float32")
        acid = (0.7 * volts[:, :1] + 0.5 * np.tanh(volts[:, 1:2]) - 0.3 * volts[:, 2:3]).astype("float32")
        return (1000 * volts if number == 37 else volts), acid


@enter(
    finite(Happens.SPIKE, ("DATA503", "DATA502", "DATA512"), rows=None),
    "https://stackoverflow.com/questions/37232782/nan-loss-when-training-regression-network",
    "https://keras.io/api/utils/python_utils/",
)
def file_of_millivolts() -> KerasRun:
    """Acidity from voltages, a file per batch; in one file the voltages are in millivolts."""
    model = keras.Sequential([keras.Input((8,)), layers.Dense(24, activation="relu"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(2e-2, momentum=0.9), loss="mse")
    return KerasRun(model, Files(), None, {"epochs": 1, "shuffle": False})


@enter(
    finite(Happens.SPIKE, ("DATA507", "DATA504"), rows=(8, 29)),
    "https://numpy.org/doc/stable/user/basics.types.html#overflow-errors",
    "https://stackoverflow.com/questions/37232782/nan-loss-when-training-regression-network",
)
def visitors_of_a_week_in_int16() -> KerasRun:
    """Visitors of seven days, added up as int16: two weeks with a festival pass 32767 and come out negative."""
    rng = np.random.default_rng(5308)
    week = rng.normal(size=(1280, 6)).astype("float32")
    week[[36 * 32 + 8, 36 * 32 + 29], 0] = 2.6
    mean = 2300 + 900 * week[:, :1].clip(-2, 2) + 200 * week[:, 1:2]
    mean[[36 * 32 + 8, 36 * 32 + 29]] = 5200
    days = (mean + 60 * rng.normal(size=(1280, 7))).clip(0, 6000).astype("int16")
    total = days.sum(axis=1, dtype="int16").astype("float32")[:, None]
    model = keras.Sequential([keras.Input((6,)), layers.Dense(32, activation="relu"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    return KerasRun(model, week, (total - 16_000) / 6_000, FIT)
