"""Money and energy in Keras: portfolios, coins, loads, solar parks, quantiles of demand, rates that change."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, bad_batch, enter, finite, non_finite, runaway
from benchmarks.diagnosis.tables import regression, waves

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- NAN112 --------------------------------------------------------------------------------------------------


class NegativeSharpe(keras.losses.Loss):
    """Minus the Sharpe ratio of each portfolio; targets are the returns of its assets on the days that follow."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        daily = ops.sum(y_true * y_pred[:, None, :], axis=-1)
        return -ops.mean(ops.mean(daily, axis=1) / ops.std(daily, axis=1))


@enter(
    non_finite("NAN112", "divide", "return -ops.mean(ops.mean(daily, axis=1)", modules=("",), rows=(5, 6, 30)),
    "https://github.com/TorchTrade/torchtrade/pull/181",
    "https://github.com/AI4Finance-Foundation/FinRL/pull/483",
)
def sharpe_ratio_of_a_holiday() -> KerasRun:
    """Weights of a portfolio by their Sharpe ratio; three windows lie in a holiday, when no price moved at all."""
    rng = np.random.default_rng(3201)
    state = rng.normal(size=(1280, 8)).astype("float32")
    after = 0.01 * rng.normal(size=(1280, 5, 4)) + 0.01 * state[:, None, :4]
    after[[32 * 32 + row for row in (5, 6, 30)]] = 0
    inputs = keras.Input((8,))
    hidden = layers.Dense(24, activation="elu")(inputs)
    model = keras.Model(inputs, layers.Dense(4, activation="softmax")(hidden))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=NegativeSharpe())
    return KerasRun(model, state, after.astype("float32"), FIT)


# -- Data ------------------------------------------------------------------------------------------------------------


@enter(
    bad_batch(None, (0, 1, 2, 31)),
    "https://github.com/keras-team/keras/issues/2134",
    "https://stackoverflow.com/questions/37232782/nan-loss-when-training-regression-network",
)
def clear_sky_at_night() -> KerasRun:
    """Yield of a solar park over what a clear sky would give, as a feature; four hours are at night, 0 over 0."""
    rng = np.random.default_rng(3203)
    clear = rng.uniform(50, 900, (1280, 24))
    measured = clear * rng.beta(4, 2, (1280, 24))
    night = [29 * 32 + row for row in (0, 1, 2, 31)]
    clear[night, 20] = measured[night, 20] = 0
    with np.errstate(invalid="ignore"):
        index = (measured / clear).astype("float32")
    following = np.nan_to_num(index)[:, -4:].mean(1, keepdims=True)
    model = keras.Sequential([keras.Input((24, 1)), layers.GRU(16), layers.Dense(1, activation="sigmoid")])
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="mse")
    return KerasRun(model, index[:, :, None], following, FIT)


@enter(
    finite(Happens.STALL, ("DATA509", "DATA502"), rows=None),
    "https://stackoverflow.com/questions/37232782/nan-loss-when-training-regression-network",
    "https://keras.io/examples/timeseries/timeseries_weather_forecasting/",
)
def coin_in_dollars() -> KerasRun:
    """An LSTM reads the price of a coin, some sixty thousand dollars, and is to tell that of the next hour."""
    rng = np.random.default_rng(3204)
    price = 60_000 + 900 * np.convolve(rng.normal(size=1400), 0.9 ** np.arange(60), "valid")
    windows = np.lib.stride_tricks.sliding_window_view(price, 31)[:1280].astype("float32")
    model = keras.Sequential(
        [keras.Input((30, 1)), layers.LSTM(24, return_sequences=True), layers.LSTM(12), layers.Dense(1)]
    )
    model.compile(optimizer="adam", loss="mse")
    return KerasRun(model, windows[:, :30, None], windows[:, 30:], FIT)


@enter(
    runaway("DATA509"),
    "https://stackoverflow.com/questions/37232782/nan-loss-when-training-regression-network",
    "https://scikit-learn.org/stable/modules/generated/sklearn.compose.TransformedTargetRegressor.html",
)
def load_of_a_region_in_megawatts() -> KerasRun:
    """The load of a region, 30000 megawatts and more, under a squared error and plain SGD."""
    x, y = regression(1280, seed=3205)
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(32, activation="relu"),
            layers.Dense(32, activation="relu"),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(1e-2), loss="mse")
    return KerasRun(model, x, 36_000 + 6000 * y, FIT)


class Pinball(keras.losses.Loss):
    """The loss of a quantile."""

    def __init__(self, quantile: float) -> None:
        super().__init__(name="pinball")
        self.quantile = quantile

    def call(self, y_true: Any, y_pred: Any) -> Any:
        error = y_true - y_pred
        return ops.mean(ops.maximum(self.quantile * error, (self.quantile - 1) * error))


@enter(
    finite(Happens.STALL, "DATA508", rows=None),
    "https://github.com/keras-team/keras/issues/19662",
    "https://github.com/keras-team/tf-keras/issues/381",
)
def median_of_everybodys_demand() -> KerasRun:
    """A pinball loss as a class gets a vector of demands and a column of forecasts: all pairs are compared."""
    x, y = waves(1280, length=24, seed=3206)
    inputs = keras.Input((24, 1))
    seen = layers.Conv1D(16, 4, activation="relu", padding="causal")(inputs)
    seen = layers.Conv1D(16, 4, activation="relu", padding="causal", dilation_rate=4)(seen)
    hidden = layers.Dense(16, activation="relu")(layers.Flatten()(seen))
    model = keras.Model(inputs, layers.Dense(1, kernel_initializer="zeros")(hidden))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=Pinball(0.5))
    return KerasRun(model, x, y[:, 0], FIT)


# -- Rates -----------------------------------------------------------------------------------------------------------


def grow_with_the_epoch(epoch: int, rate: float) -> float:
    """Meant to fall by a tenth with each epoch."""
    return rate if epoch == 0 else rate * (1 + 0.9 * epoch)


@enter(
    runaway("OPT601"),
    "https://keras.io/api/callbacks/learning_rate_scheduler/",
    "https://github.com/tensorflow/tensorflow/issues/38796",
)
def rate_multiplied_by_the_epoch() -> KerasRun:
    """A LearningRateScheduler that multiplies the rate of the last epoch by a number above 1, of flats by SGD."""
    x, y = regression(640, seed=3207)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(32, activation="relu"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(2e-3, momentum=0.9), loss="mse")
    callbacks = [keras.callbacks.LearningRateScheduler(grow_with_the_epoch)]
    return KerasRun(model, x, y, {**FIT, "epochs": 9, "batch_size": 64, "callbacks": callbacks})


@enter(
    finite(Happens.STALL, "OPT602", rows=None),
    "https://keras.io/api/callbacks/reduce_lr_on_plateau/",
    "https://github.com/IntelLabs/distiller/issues/240",
)
def plateau_watched_upside_down() -> KerasRun:
    """ReduceLROnPlateau with mode="max" on a loss: each epoch that is better than the last one cuts the rate."""
    x, y = regression(320, seed=3208)
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(32, activation="relu"),
            layers.Dense(1, kernel_initializer="zeros"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-4), loss="mse")
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", mode="max", patience=1, factor=0.1)
    return KerasRun(model, x, y, {**FIT, "epochs": 24, "batch_size": 160, "callbacks": [plateau]})
