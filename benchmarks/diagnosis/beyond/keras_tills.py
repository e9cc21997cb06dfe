"""Money, steps and votes in Keras: totals in half precision, shares, claims, identifiers, an optimizer's epsilon."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, Truth, bad_batch, enter, healthy, non_finite
from benchmarks.diagnosis.tables import regression

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- OPT604 ----------------------------------------------------------------------------------------------------------


class RunningTotal(layers.Layer):
    """Steps since the beginning of the fortnight, as a share of the goal."""

    def call(self, steps: Any) -> Any:
        return ops.cumsum(steps, axis=1) / 40_000


@enter(
    non_finite("OPT604", ("sum", "cumsum"), "return ops.cumsum(steps", modules=("running_total",), rows=(27,)),
    "https://github.com/keras-team/keras/issues/16552",
    "https://github.com/tensorflow/tensorflow/issues/47156",
    "https://github.com/keras-team/keras/issues/11832",
)
def runner_among_the_walkers() -> KerasRun:
    """Daily steps are added up in mixed_float16; more than 65504 of them in a fortnight are infinitely many."""
    rng = np.random.default_rng(7301)
    habit = rng.uniform(1500, 3500, (1280, 1))
    steps = np.round(habit * rng.uniform(0.6, 1.4, (1280, 14)))
    steps[31 * 32 + 27] = np.round(rng.uniform(6000, 8000, 14))
    burnt = (steps.sum(1, keepdims=True) / 40_000 + 0.05 * rng.normal(size=(1280, 1))).clip(max=2.0)
    inputs = keras.Input((14,))
    total = RunningTotal(name="running_total", dtype="mixed_float16")(inputs)
    hidden = layers.Dense(16, activation="relu", dtype="mixed_float16")(total)
    model = keras.Model(inputs, layers.Dense(1, dtype="float32")(hidden))
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss="mse")
    return KerasRun(model, steps.astype("float32"), burnt.astype("float32"), FIT)


# -- DATA501 ---------------------------------------------------------------------------------------------------------


@enter(
    bad_batch(None, (9,)),
    "https://github.com/tensorflow/tensorflow/issues/46145",
    "https://github.com/keras-team/keras/issues/2134",
    "https://github.com/keras-team/keras/issues/14490",
)
def relative_change_of_a_coin_from_zero() -> KerasRun:
    """Prices are turned into relative changes; a coin that was quoted at zero for a day rose by an infinite share."""
    rng = np.random.default_rng(7302)
    price = np.exp(np.cumsum(0.03 * rng.normal(size=(1280, 22)), axis=1) + rng.normal(size=(1280, 1)))
    price[34 * 32 + 9, 12] = 0
    with np.errstate(divide="ignore"):
        change = np.diff(price, axis=1) / price[:, :-1]
    market = np.cumsum(rng.normal(size=(1280, 1)), axis=0) * 0.05
    swing = np.abs(np.diff(np.log(np.maximum(price, 1e-3)), axis=1)).mean(1, keepdims=True).clip(max=0.1) * 40
    inputs = keras.Input((21, 1), name="change"), keras.Input((1,), name="market")
    memory = layers.LSTM(12)(layers.Rescaling(30.0)(inputs[0]))
    hidden = layers.Dense(16, activation="relu")(layers.Concatenate()([memory, inputs[1]]))
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    model.compile(optimizer=keras.optimizers.RMSprop(3e-3), loss="huber")
    told = {"change": change[..., None].astype("float32"), "market": market.astype("float32")}
    return KerasRun(model, told, swing.astype("float32"), FIT)


# -- NAN112, DATA505 -------------------------------------------------------------------------------------------------


def squared_error_of_the_odds(y_true: Any, y_pred: Any) -> Any:
    """Shares are compared by the logarithms of their odds."""
    odds = y_true / (1 - y_true)
    return ops.mean(ops.square(ops.log(odds) - y_pred), axis=-1)


@enter(
    non_finite(("NAN112", "DATA505"), "divide", "odds = y_true / (1 - y_true)", modules=("",), rows=(14,)),
    "https://github.com/tidymodels/recipes/issues/784",
    "https://github.com/salzberg-lab/Balrog/issues/7",
    "https://github.com/nlmixr2/rxode2/pull/796",
)
def village_that_votes_as_one() -> KerasRun:
    """The odds of a share of 1 are a division by zero: in one village everybody voted for the same party."""
    x, y = regression(1280, seed=7303)
    share = 1 / (1 + np.exp(-y))
    share[30 * 32 + 14] = 1
    inputs = keras.Input((10,))
    hidden = layers.Dense(32, activation="elu", kernel_regularizer=keras.regularizers.L2(1e-4))(inputs)
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=squared_error_of_the_odds)
    return KerasRun(model, x, share.astype("float32"), FIT)


# -- NAN114, LOSS404 -------------------------------------------------------------------------------------------------


class GammaDeviance(keras.losses.Loss):
    """Deviance of positive amounts from their predicted mean."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean(2 * (ops.log(y_pred / y_true) + y_true / y_pred - 1), axis=-1)


@enter(
    non_finite(("NAN114", "LOSS404"), "log", "return ops.mean(2 * (ops.log(y_pred / y_true)", modules=("",), rows=None),
    "https://github.com/keras-team/keras/issues/1917",
    "https://github.com/ragulpr/wtte-rnn/issues/33",
    "https://github.com/keras-team/keras/issues/5733",
)
def claims_with_a_linear_mean() -> KerasRun:
    """The gamma deviance of insurance claims needs a positive mean; the last layer is linear and goes below zero."""
    rng = np.random.default_rng(7304)
    risk = rng.normal(size=(1280, 6)).astype("float32")
    mean = np.exp(0.9 * risk[:, :1] + 0.5 * risk[:, 1:2])
    claim = (mean * rng.gamma(4.0, 0.25, (1280, 1))).astype("float32")
    one = keras.initializers.Constant(2.0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(16, activation="tanh"),
            layers.Dense(1, bias_initializer=one, kernel_initializer="zeros"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=GammaDeviance())
    return KerasRun(model, risk, claim, FIT)


# -- OPT605 ----------------------------------------------------------------------------------------------------------


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("OPT605",), kind="parameters", rows=()),
    "https://github.com/apache/mxnet/pull/6235",
    "https://github.com/CanReader/FastNN/issues/12",
    "https://github.com/keras-team/keras/issues/4356",
)
def centred_variance_without_epsilon() -> KerasRun:
    """RMSprop divides by the spread of the gradients, with an epsilon of 0; a gradient that stays the same has none."""
    x, y = regression(1280, seed=7305)
    inputs = keras.Input((10,))
    hidden = layers.Dense(24, activation="tanh")(inputs)
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    optimizer = keras.optimizers.RMSprop(1e-4, rho=0.5, centered=True, epsilon=0.0)
    model.compile(optimizer=optimizer, loss="mae")
    return KerasRun(model, x, y + 8, FIT)


# -- DATA511 ---------------------------------------------------------------------------------------------------------


@enter(
    Truth(happens=Happens.EXCEPTION, causes=("DATA511",), kind="exception", rows=None),
    "https://github.com/keras-team/keras/issues/13097",
    "https://github.com/SSSxCCC/Recommender-System/issues/1",
    "https://github.com/enningxie/Neural-Collaborative-Filtering/issues/1",
    backends=("tensorflow", "torch"),
)
def reader_and_book_in_the_wrong_columns() -> KerasRun:
    """The second export has the columns the other way round: numbers of readers are looked up in the table of books."""
    rng = np.random.default_rng(7306)
    reader, book = rng.integers(0, 300, 1280), rng.integers(0, 80, 1280)
    taste, style = rng.normal(size=(300, 4)), rng.normal(size=(80, 4))
    stars = np.einsum("nd,nd->n", taste[reader], style[book])
    reader[900:], book[900:] = book[900:].copy(), reader[900:].copy()
    inputs = keras.Input((1,), name="reader", dtype="int32"), keras.Input((1,), name="book", dtype="int32")
    left = layers.Flatten()(layers.Embedding(300, 8, name="readers")(inputs[0]))
    right = layers.Flatten()(layers.Embedding(80, 8, name="books")(inputs[1]))
    model = keras.Model(inputs, layers.Dense(1)(layers.Dot(axes=1)([left, right])))
    model.compile(optimizer=keras.optimizers.Adam(0.02), loss="mse")
    told = {"reader": reader[:, None].astype("int32"), "book": book[:, None].astype("int32")}
    return KerasRun(model, told, stars.astype("float32")[:, None], FIT)


# -- Healthy ---------------------------------------------------------------------------------------------------------


@enter(healthy(), "https://github.com/keras-team/keras/pull/22979")
def accumulated_and_averaged() -> KerasRun:
    """Gradients of four batches are accumulated, weights averaged and clipped; pinball losses of three quantiles."""
    x, y = regression(1280, seed=7307)
    levels = ops.convert_to_tensor([0.1, 0.5, 0.9])

    def pinball(y_true: Any, y_pred: Any) -> Any:
        over = y_true - y_pred
        return ops.mean(ops.maximum(over * levels, over * (levels - 1)), axis=-1)

    model = keras.Sequential([keras.Input((10,)), layers.Dense(32, activation="relu"), layers.Dense(3)])
    optimizer = keras.optimizers.AdamW(
        0.02, gradient_accumulation_steps=4, use_ema=True, ema_momentum=0.9, global_clipnorm=1.0
    )
    model.compile(optimizer=optimizer, loss=pinball)
    return KerasRun(model, x, y, {**FIT, "epochs": 2})
