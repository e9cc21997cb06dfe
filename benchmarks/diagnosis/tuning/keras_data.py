"""Data that are wrong, in Keras: non-finite, unscaled, outliers, wrong labels, labels out of range."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, Truth, bad_batch, enter, finite, non_finite, runaway
from benchmarks.diagnosis.tables import digits, regression

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


def table_model(optimizer: Any = None) -> keras.Model:
    model = keras.Sequential([keras.Input((10,)), layers.Dense(64, activation="relu"), layers.Dense(1)])
    model.compile(optimizer=optimizer or keras.optimizers.Adam(1e-2), loss="mse")
    return model


def digit_model(classes: int = 10, rate: float = 1e-2) -> keras.Model:
    model = keras.Sequential([keras.Input((64,)), layers.Dense(128, activation="relu"), layers.Dense(classes)])
    model.compile(
        optimizer=keras.optimizers.Adam(rate), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model


@enter(
    bad_batch(None, (15,)),
    "https://theneuralbase.com/tensorflow/learn/beginner/nan-loss-learning-rate-or-data/",
    "https://mcmap.net/q/406467/-multivariate-lstm-with-missing-values",
)
def nan_in_a_column() -> KerasRun:
    """An empty cell of a CSV file."""
    x, y = regression(1280)
    x[29 * 32 + 15, 7] = np.nan
    return KerasRun(table_model(), x, y, FIT)


@enter(
    bad_batch(None, (0, 31)),
    "https://github.com/IVRL/VolRecon/issues/18",
    "https://e-learn.cn/qa/q-126061.html",
)
def growth_from_zero() -> KerasRun:
    """Targets are growth rates, computed before the training; two began at zero."""
    x, y = regression(1280)
    y[23 * 32] = y[23 * 32 + 31] = np.inf
    return KerasRun(table_model(), x, y, FIT)


@enter(
    runaway("DATA502"),
    "http://www.taourl.com/read-2589871.html",
    "http://stackoverflow.com.mevn.net/questions/52800582/why-do-i-fail-to-predict-y-x4-with-keras-y-x3-works",
)
def columns_as_they_came() -> KerasRun:
    """Square feet, years and euros as they came."""
    x, y = regression(1280)
    x = x * np.array([1, 2, 15, 900, 40, 1, 3, 0.5, 7, 1200]) + np.array([3, 4, 1970, 2500, 100, 2, 5, 1, 9, 5000])
    model = keras.Sequential([keras.Input((10,)), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(3e-7), loss="mse")
    return KerasRun(model, x.astype("float32"), y, FIT)


@enter(
    finite(Happens.SPIKE, "DATA503", rows=(12, 13)),
    "https://github.com/stanford-crfm/mistral/issues/115",
    "https://github.com/stas00/ml-engineering/issues/32",
)
def readings_of_a_broken_sensor() -> KerasRun:
    """Two readings of a sensor that reports its error as 65535."""
    x, y = regression(1280)
    x[32 * 32 + 12, 2] = x[32 * 32 + 13, 2] = 65535.0
    return KerasRun(table_model(), x, y, FIT)


@enter(
    finite(Happens.SPIKE, "DATA504", rows=None),
    "https://github.com/microsoft/CNTK/issues/3792",
    "https://github.com/yukimasano/self-label/issues/21",
)
def labels_sorted_but_not_the_images() -> KerasRun:
    """In one part of the data the labels were sorted and the images were not."""
    x, y = digits(1280)
    x, y = np.tile(x, (12, 1)), np.tile(y, 12)
    bad = slice(220 * 64, 221 * 64)
    y[bad] = np.sort(y[bad])
    return KerasRun(digit_model(rate=3e-3), x, y, {**FIT, "batch_size": 64})


def negative_log_likelihood(y_true: Any, y_pred: Any) -> Any:
    index = ops.cast(ops.reshape(y_true, (-1, 1)), "int32")
    return -ops.mean(ops.take_along_axis(ops.log_softmax(y_pred), index, axis=1))


def _raises(error: tuple[str, ...], line: str | None) -> Truth:
    return Truth(
        happens=Happens.EXCEPTION, causes=("DATA505",), kind="exception", operations=error, line=line, rows=(21,)
    )


PICK = "return -ops.mean(ops.take_along_axis("


@enter(
    _raises(("InvalidArgumentError",), PICK),
    "https://github.com/tensorflow/tensorflow/issues/8484",
    "https://github.com/keras-team/keras/issues/11786",
    backends=("tensorflow", "jax"),
    by_backend={"jax": non_finite("DATA505", None, PICK, rows=(21,))},
)
def class_that_the_model_lacks() -> KerasRun:
    """Nine outputs and a label 9; the loss is written by hand."""
    x, y = digits(1280)
    y[y == 9] = 0
    y[27 * 32 + 21] = 9
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64, activation="relu"), layers.Dense(9)])
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=negative_log_likelihood)
    return KerasRun(model, x, y, FIT)


@enter(
    _raises(("InvalidArgumentError",), None),
    "https://github.com/keras-team/keras/issues/17368",
    "https://github.com/zzh8829/yolov3-tf2/issues/259",
    backends=("tensorflow", "torch"),
    by_backend={"torch": _raises(("RuntimeError", "IndexError"), None)},
)
def unlabelled_is_minus_one() -> KerasRun:
    """Unlabelled rows are marked by -1; one of them was not filtered out."""
    x, y = digits(1280)
    y[30 * 32 + 21] = -1
    return KerasRun(digit_model(), x, y, FIT)
