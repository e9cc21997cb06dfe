"""Tables in Keras: columns as they came, identifiers that are no numbers of rows, and labels in another form."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, Truth, bad_batch, enter, finite, runaway
from benchmarks.diagnosis.tables import regression, two_blobs

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- columns ---------------------------------------------------------------------------------------------------------


@enter(
    runaway("DATA502"),
    "https://github.com/ageron/handson-ml3/pull/198",
    "https://github.com/keras-team/keras/issues/16296",
)
def normalisation_that_was_never_adapted() -> KerasRun:
    """A Normalization layer stands first, but nobody called `adapt`: rooms and inhabitants pass as they are."""
    z, y = regression(1280)
    scale = np.array([1.5, 12.0, 2.0, 0.5, 1100.0, 3.0, 2.0, 2.0, 40.0, 1.0])
    centre = np.array([3.9, 28.0, 5.4, 1.1, 1400.0, 3.0, 35.0, -119.0, 60.0, 0.0])
    model = keras.Sequential(
        [keras.Input((10,)), layers.Normalization(), layers.Dense(32, activation="relu"), layers.Dense(1)]
    )
    model.compile(optimizer=keras.optimizers.SGD(0.02), loss="mse")
    return KerasRun(model, (centre + scale * z).astype("float32"), y, FIT)


@enter(
    finite(Happens.SPIKE, "DATA503", rows=(4, 22)),
    "https://github.com/torchgeo/torchgeo/pull/3619",
    "https://github.com/keras-team/keras/issues/2134",
)
def gas_sensor_whose_gaps_are_minus_200() -> KerasRun:
    """Readings of carbon monoxide around two milligrams; where the sensor was out, the file says -200."""
    rng = np.random.default_rng(1)
    hour = np.arange(1280 + 24)
    gas = 2.0 + np.sin(2 * np.pi * hour / 24) + 0.4 * rng.normal(size=hour.shape)
    windows = np.stack([gas[start : start + 24] for start in range(1280)])[..., None].astype("float32")
    after = gas[24:].astype("float32")[:, None]
    windows = windows - 2.0
    windows[33 * 32 + 4, 3:9] = -202.0
    windows[33 * 32 + 22, 15:23] = -202.0
    model = keras.Sequential(
        [
            keras.Input((24, 1)),
            layers.Conv1D(16, 5, activation="relu"),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse")
    return KerasRun(model, windows, after, FIT)


@enter(
    bad_batch(None, rows=(9, 30)),
    "https://github.com/keras-team/keras/issues/12371",
    "https://github.com/keras-team/keras/issues/2134",
)
def visits_on_a_logarithmic_scale() -> KerasRun:
    """Wide and deep: the logarithm of the number of visits is taken beforehand, and two customers have none."""
    rng = np.random.default_rng(2)
    visits = rng.poisson(12, 1280) + 1.0
    visits[[28 * 32 + 9, 28 * 32 + 30]] = 0
    with np.errstate(divide="ignore"):
        wide = np.stack([np.log(visits), rng.normal(size=1280)], axis=1).astype("float32")
    deep = rng.normal(size=(1280, 6)).astype("float32")
    spent = (0.3 * visits + deep[:, 0] + 0.2 * wide[:, 1]).astype("float32")[:, None]
    few, many = keras.Input((2,), name="wide"), keras.Input((6,), name="deep")
    hidden = layers.Dense(16, activation="relu")(many)
    model = keras.Model([few, many], layers.Dense(1)(layers.Concatenate()([few, hidden])))
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    return KerasRun(model, [wide, deep], spent, FIT)


@enter(
    finite(Happens.STALL, "DATA506"),
    "https://codemia.io/knowledge-hub/path/keras_accuracy_does_not_change",
    "https://github.com/keras-team/keras/issues/2711",
)
def identifiers_that_fall_into_one_bucket() -> KerasRun:
    """Numbers of shops are multiples of a hundred and are hashed into a hundred buckets by their remainder."""
    rng = np.random.default_rng(3)
    shop = rng.integers(0, 40, 1280)
    takings = rng.normal(size=40)[shop] + 0.1 * rng.normal(size=1280)
    bucket = (shop * 100 + 10_000) % 100
    model = keras.Sequential(
        [
            keras.Input((1,), dtype="int32"),
            layers.Embedding(100, 8),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    return KerasRun(model, bucket.astype("int32")[:, None], takings.astype("float32")[:, None], {**FIT, "epochs": 2})


@enter(
    Truth(happens=Happens.EXCEPTION, causes=("DATA511",), kind="exception", operations=("IndexError",), rows=(7, 18)),
    "https://github.com/TannerGilbert/Tutorials/issues/1",
    "https://github.com/keras-team/keras/issues/11819",
    backends=("torch",),
)
def city_in_the_last_place_of_the_vocabulary() -> KerasRun:
    """A lookup keeps number 0 for unknown cities; the table has as many rows as there are known ones."""
    rng = np.random.default_rng(4)
    vocabulary = [f"city {number}" for number in range(30)]
    lookup = {name: number for number, name in enumerate(vocabulary, start=1)}
    names = rng.integers(0, 29, 1280)
    names[[31 * 32 + 7, 31 * 32 + 18]] = 29
    city = np.array([[lookup[vocabulary[name]]] for name in names], "int32")
    worth = rng.normal(size=30)
    model = keras.Sequential(
        [keras.Input((1,), dtype="int32"), layers.Embedding(len(vocabulary), 6), layers.Flatten(), layers.Dense(1)]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    return KerasRun(model, city, worth[names].astype("float32")[:, None], FIT)


# -- labels ----------------------------------------------------------------------------------------------------------


class Pinball(keras.losses.Loss):
    """The cost of missing the ninth decile."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        error = y_true - y_pred
        return ops.maximum(0.9 * error, -0.1 * error)


@enter(
    finite(Happens.STALL, "DATA508"),
    "https://github.com/keras-team/keras/issues/19662",
    "https://github.com/keras-team/keras/issues/4781",
)
def ninth_decile_of_a_row_of_waiting_times() -> KerasRun:
    """A loss class of one's own compares a vector of times with a column of forecasts: each with every other."""
    x, _ = regression(1280)
    rng = np.random.default_rng(5)
    wait = (3.0 * x[:, 0] + 2.0 * x[:, 1] + 0.2 * rng.normal(size=1280)).astype("float32")
    bias = keras.initializers.Constant(float(np.quantile(wait, 0.9)))
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(32, activation="relu"),
            layers.Dense(1, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01), bias_initializer=bias),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=Pinball())
    return KerasRun(model, x, wait, {**FIT, "epochs": 2})


@enter(
    finite(Happens.SPIKE, ("DATA507", "DATA504"), rows=(16,)),
    "https://github.com/numpy/numpy/issues/21237",
    "https://numpy.org/doc/stable/user/basics.types.html#overflow-errors",
)
def train_that_came_before_its_time() -> KerasRun:
    """Minutes of delay as the difference of two unsigned times of the day: three minutes too early are 65 533."""
    rng = np.random.default_rng(6)
    x, y = regression(1280)
    planned = rng.integers(300, 1300, 1280).astype("uint16")
    came = planned + np.maximum(np.round(6 + 3 * y[:, 0]), 0).astype("uint16")
    came[29 * 32 + 16] = planned[29 * 32 + 16] - 3
    delay = (came - planned).astype("float32")[:, None]
    model = keras.Sequential([keras.Input((10,)), layers.Dense(32, activation="relu"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mae")
    return KerasRun(model, x, delay, FIT)


@enter(
    finite(Happens.STALL, "DATA510", rows=None),
    "https://github.com/jakeret/tf_unet/issues/292",
    "https://www.tensorflow.org/tutorials/structured_data/imbalanced_data",
)
def bias_that_knows_of_one_class_only() -> KerasRun:
    """The filter kept paid invoices alone; the last bias begins at their log-odds, and there is nothing to learn."""
    x, _ = two_blobs(1280)
    paid = np.ones((1280, 1), "float32")
    odds = (paid.sum() + 1e-6) / ((1 - paid).sum() + 1e-6)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, activation="relu"),
            layers.Dropout(0.2, seed=1),
            layers.Dense(1, activation="sigmoid", bias_initializer=keras.initializers.Constant(float(np.log(odds)))),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="binary_crossentropy")
    return KerasRun(model, x, paid, {**FIT, "epochs": 2})
