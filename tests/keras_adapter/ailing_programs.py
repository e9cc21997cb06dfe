"""Ordinary Keras programs with one mistake each, as users write them: what the diagnosis must name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

FEATURES, ROWS, STEPS = 6, 16, 16
AT = 12
"""The batch that goes wrong, where a single one does."""

Arrays = tuple[np.ndarray, np.ndarray]


def regression() -> Arrays:
    """A learnable linear problem."""
    generator = np.random.default_rng(1)
    x = generator.normal(size=(STEPS * ROWS, FEATURES)).astype("float32")
    truth = generator.normal(size=(FEATURES, 1))
    return x, (x @ truth + 0.1 * generator.normal(size=(len(x), 1))).astype("float32")


def spoil(change: Callable[[np.ndarray, np.ndarray], None], make: Callable[[], Arrays] = regression) -> Arrays:
    """The data with one batch changed in place."""
    x, y = make()
    change(x[AT * ROWS : (AT + 1) * ROWS], y[AT * ROWS : (AT + 1) * ROWS])
    return x, y


def put(row: int, value: float, column: Any = 2) -> Callable[[np.ndarray, np.ndarray], None]:
    def change(x: np.ndarray, y: np.ndarray) -> None:
        x[row, column] = value

    return change


def put_target(row: int, value: float) -> Callable[[np.ndarray, np.ndarray], None]:
    def change(x: np.ndarray, y: np.ndarray) -> None:
        y[row] = value

    return change


def same_rows(x: np.ndarray, y: np.ndarray) -> None:
    """A batch of one sample, over and over."""
    x[:] = x[0].copy()


def larger(x: np.ndarray, y: np.ndarray) -> None:
    """A batch of another scale, which float32 has room for."""
    x *= 9.0


def net(activation: str = "tanh", **options: Any) -> keras.Model:
    return keras.Sequential([layers.Input((FEATURES,)), layers.Dense(16, activation, **options), layers.Dense(1)])


def program(
    model: keras.Model, loss: Any = "mse", rate: float = 0.02, optimizer: Any = None, **options: Any
) -> keras.Model:
    graph = {"jit_compile": False} if keras.backend.backend() == "tensorflow" else {}  # as in `runs.compiled`
    model.compile(optimizer or keras.optimizers.SGD(rate), loss, **{**graph, **options})
    return model


def log_loss(y_true: Any, y_pred: Any) -> Any:
    share = ops.relu(y_true) * ops.sigmoid(y_pred)
    return ops.mean(ops.square(y_true - y_pred)) - 0.01 * ops.mean(ops.log(share))


class Ratio(layers.Layer):
    """Divides by what may be zero."""

    def build(self, shape: Any) -> None:
        self.gain = self.add_weight(shape=(FEATURES,), initializer="ones")

    def call(self, x: Any) -> Any:
        return self.gain * x / ops.sum(ops.abs(x), axis=1, keepdims=True)


class WhereTrap(layers.Layer):
    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(FEATURES,), initializer="ones")

    def call(self, x: Any) -> Any:
        x = x * self.scale
        return ops.where(x > 0, ops.power(ops.maximum(x, 0.0), 0.5), 0.1 * x)


class Normalised(layers.Layer):
    """Normalises each feature of the batch by hand."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(FEATURES,), initializer="ones")

    def call(self, x: Any) -> Any:
        x = x * self.scale
        return (x - ops.mean(x, axis=0)) / ops.std(x, axis=0)


def with_first(layer: layers.Layer) -> keras.Model:
    return keras.Sequential([layers.Input((FEATURES,)), layer, layers.Dense(16, "tanh"), layers.Dense(1)])


def deep_and_large() -> keras.Model:
    large = keras.initializers.RandomNormal(stddev=1e7)
    hidden = [layers.Dense(FEATURES, "relu", kernel_initializer=large) for _ in range(6)]
    return keras.Sequential([layers.Input((FEATURES,)), *hidden, layers.Dense(1)])


def recurrent() -> keras.Model:
    large = keras.initializers.RandomNormal(stddev=3.0, seed=3)
    cell = layers.SimpleRNN(16, activation=None, recurrent_initializer=large)
    return keras.Sequential([layers.Input((FEATURES,)), layers.RepeatVector(60), cell, layers.Dense(1)])


def half() -> keras.Model:
    with_half = {"dtype": "mixed_float16"}
    hidden = layers.Dense(16, "relu", **with_half)
    last = layers.Lambda(lambda x: x * 10000.0, name="last", **with_half)
    return keras.Sequential([layers.Input((FEATURES,)), hidden, layers.Dense(1, **with_half), last])


def half_squares(y_true: Any, y_pred: Any) -> Any:
    error = ops.cast(y_pred, "float32") - 10000.0 * y_true
    return ops.mean(ops.square(error)) * 1e-8


def scaled_feature() -> Arrays:
    x, y = regression()
    x[:, 5] *= 1e5
    return x, y


def positive(at: int | None = AT) -> Arrays:
    x, y = regression()
    y = np.abs(y) + 0.1
    if at is not None:
        y[at * ROWS + 3] = -1.0
    return x, y


@dataclass(frozen=True)
class Expected:
    """What the printed diagnosis must name; empty: not asked."""

    codes: tuple[str, ...]
    module: str = ""
    line: str = ""
    row: int | None = None
    confirmed: bool = True


Program = tuple[Callable[[], keras.Model], Callable[[], Arrays], Expected]

PROGRAMS: dict[str, Program] = {
    "nan-in-data": (lambda: program(net()), lambda: spoil(put(3, np.nan)), Expected(("DATA501",), row=3)),
    "outlier": (lambda: program(net("relu")), lambda: spoil(put(5, 1e8)), Expected(("DATA503",), row=5)),
    "wrong-label": (
        lambda: program(net()),
        lambda: spoil(put_target(7, 1e7)),
        Expected(("DATA504", "DATA503"), row=7),
    ),
    "rate-too-high": (lambda: program(net("relu"), rate=4.0), regression, Expected(("OPT601",))),
    "log-of-zero": (
        lambda: program(net(), log_loss),
        positive,
        Expected(("NAN111",), line="share", confirmed=False),
    ),
    "division-by-zero": (
        lambda: program(with_first(Ratio(name="ratio"))),
        lambda: spoil(put(9, 0.0, slice(None))),
        Expected(("NAN112",), module="ratio", line="ops.sum(ops.abs(x), axis=1", row=9, confirmed=False),
    ),
    "where-trap": (
        lambda: program(with_first(WhereTrap(name="trap"))),
        lambda: spoil(put(4, 0.0)),
        Expected(("NAN113",), module="trap", line="ops.power(ops.maximum(x, 0.0), 0.5)", confirmed=False),
    ),
    "constant-batch": (
        lambda: program(with_first(Normalised(name="normalised"))),
        lambda: spoil(same_rows),
        Expected(("NAN112", "NAN113"), line="ops.std(x, axis=0)", confirmed=False),
    ),
    "bad-init": (lambda: program(deep_and_large()), regression, Expected(("ACT304",))),
    "recurrent": (lambda: program(recurrent()), regression, Expected(("GRAD203", "ACT304"))),
    "float16": (
        lambda: program(half(), half_squares, rate=1e-3),
        lambda: spoil(larger),
        Expected(("OPT604",), module="last", line="x * 10000.0"),
    ),
    "unscaled": (lambda: program(net("relu")), scaled_feature, Expected(("DATA502",))),
}
