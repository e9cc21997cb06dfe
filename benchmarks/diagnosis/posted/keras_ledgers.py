"""Tables and series in Keras: prices, occupancy, traffic counters, customers, machines, counts."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, bad_batch, enter, finite, non_finite

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- NAN114 ----------------------------------------------------------------------------------------------------------


class LogReturns(layers.Layer):
    """Logarithms of the ratios of neighbouring prices, in percent."""

    def call(self, prices: Any) -> Any:
        return 100 * ops.log(prices[:, 1:] / prices[:, :-1])


@enter(
    non_finite("NAN114", "log", "return 100 * ops.log(prices[:, 1:]", modules=("returns",), rows=(20, 21, 22)),
    "https://github.com/kdgutier/esrnn_torch/issues/18",
    "https://github.com/etzinis/sudo_rm_rf/issues/1",
)
def day_on_which_oil_was_given_away() -> KerasRun:
    """Log returns of the price of oil, which was below zero on one day; three windows contain that day."""
    rng = np.random.default_rng(2301)
    windows = 40 * np.exp(np.cumsum(0.02 * rng.normal(size=(1280, 20)), axis=1))
    for row, day in ((20, 19), (21, 18), (22, 17)):
        windows[30 * 32 + row, day] = -37.63
    jumpy = (np.abs(np.diff(windows[:, -6:])).mean(1) > 0.65).astype("float32")[:, None]
    inputs = keras.Input((20,))
    steps = layers.Reshape((19, 1))(LogReturns(name="returns")(inputs))
    seen = layers.Conv1D(12, 4, activation="relu")(steps)
    hidden = layers.LSTM(12)(seen)
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(4e-3), loss=loss)
    return KerasRun(model, windows.astype("float32"), jumpy, FIT)


@enter(
    non_finite(("NAN114", "LOSS404"), "log", None, modules=("",), rows=None),
    "https://github.com/keras-team/keras/issues/590",
    "https://github.com/keras-team/keras/issues/18886",
    "https://github.com/rstudio/keras3/issues/1280",
)
def calls_below_zero() -> KerasRun:
    """loss="poisson" and a linear output that starts at the mean; later a quiet hour gets fewer than 0 calls."""
    rng = np.random.default_rng(2302)
    hour = rng.normal(size=(1600, 8)).astype("float32")
    calls = rng.poisson(np.exp(0.4 + 1.0 * hour[:, 0] - 0.6 * hour[:, 1]))[:, None].astype("float32")
    mean, small = keras.initializers.Constant(float(calls.mean())), keras.initializers.RandomNormal(stddev=0.01)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(32, activation="relu"),
            layers.Dense(1, kernel_initializer=small, bias_initializer=mean),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(8e-3), loss="poisson")
    return KerasRun(model, hour, calls, FIT)


# -- NAN111, NAN110 --------------------------------------------------------------------------------------------------


def kumaraswamy(y_true: Any, y_pred: Any) -> Any:
    """Negative log-likelihood of a share between 0 and 1."""
    a, b = ops.exp(y_pred[:, :1]), ops.exp(y_pred[:, 1:])
    rest = 1 - ops.power(y_true, a)
    return -(ops.log(a * b) + (a - 1) * ops.log(y_true) + (b - 1) * ops.log(rest))


@enter(
    non_finite(("NAN111", "DATA505"), "log", "return -(ops.log(a * b) + (a - 1) * ", modules=("",), rows=(3, 17)),
    "https://github.com/pytorch/pytorch/issues/92260",
    "https://github.com/pytorch/pytorch/issues/65811",
    "https://github.com/pyro-ppl/numpyro/issues/2088",
)
def hotel_that_was_full() -> KerasRun:
    """Occupancy under a likelihood for shares between 0 and 1; in two nights every room of a hotel was taken."""
    rng = np.random.default_rng(2303)
    night = rng.normal(size=(1280, 7)).astype("float32")
    share = 1 / (1 + np.exp(-night[:, :1] - 0.3 * rng.normal(size=(1280, 1))))
    share[[31 * 32 + 3, 31 * 32 + 17]] = 1.0
    model = keras.Sequential([keras.Input((7,)), layers.Dense(24, activation="tanh"), layers.Dense(2)])
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=kumaraswamy)
    return KerasRun(model, night, share.astype("float32"), FIT)


def discrete_weibull(y_true: Any, y_pred: Any) -> Any:
    """Negative log-likelihood of the number of days until a failure, some of them censored."""
    days, failed = y_true[:, 0], y_true[:, 1]
    scale, shape = ops.exp(y_pred[:, 0]), ops.softplus(y_pred[:, 1])
    before, after = ops.power((days + 1e-6) / scale, shape), ops.power((days + 1.0) / scale, shape)
    return after - failed * ops.log(ops.exp(after - before) - 1.0)


@enter(
    non_finite(
        ("NAN110", "DATA504"), "exp", "return after - failed * ops.log(ops.exp(after", modules=("",), rows=(11,)
    ),
    "https://github.com/ragulpr/wtte-rnn/issues/33",
    "https://github.com/ragulpr/wtte-rnn/issues/39",
    "https://github.com/ragulpr/wtte-rnn-examples/issues/2",
)
def pump_with_the_year_1970() -> KerasRun:
    """Days until a failure under a Weibull law; one pump has no date of installation: its "days" are Unix time."""
    rng = np.random.default_rng(2304)
    history = rng.normal(size=(1280, 12, 3)).astype("float32")
    days = np.ceil(6 * np.exp(history[:, -4:, 0].mean(1)) * rng.weibull(1.5, 1280))
    until = np.stack([days, rng.random(1280) < 0.8], axis=1).astype("float32")
    until[33 * 32 + 11] = 1_420_070_400.0, 1.0
    start = keras.initializers.Constant([1.8, 1.2])
    model = keras.Sequential(
        [
            keras.Input((12, 3)),
            layers.GRU(12),
            layers.Dense(2, kernel_initializer="zeros", bias_initializer=start),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(5e-3, clipnorm=1.0), loss=discrete_weibull)
    return KerasRun(model, history, until, FIT)


# -- DATA501, DATA504, DATA507 ---------------------------------------------------------------------------------------


@enter(
    bad_batch(None, (6, 7, 19)),
    "https://github.com/kdgutier/esrnn_torch/issues/18",
    "https://github.com/keras-team/keras/issues/2134",
)
def share_that_was_delisted() -> KerasRun:
    """Two inputs, the market and its shares; the deviation of shares that were not traded any more is 0, in 0 / 0."""
    rng = np.random.default_rng(2305)
    market = rng.normal(size=(1280, 5)).astype("float32")
    prices = np.exp(np.cumsum(0.03 * rng.normal(size=(1280, 15)), axis=1))
    for row in (6, 7, 19):
        prices[32 * 32 + row, :] = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        changes = np.diff(prices) / prices[:, :-1]
        scaled = ((changes - changes.mean(1, keepdims=True)) / changes.std(1, keepdims=True)).astype("float32")
    up = (np.nan_to_num(changes[:, -3:]).sum(1) > 0).astype("float32")[:, None]
    first, second = keras.Input((5,)), keras.Input((14,))
    seen = layers.Concatenate()(
        [layers.Dense(8, activation="swish")(first), layers.Dense(16, activation="swish")(second)]
    )
    model = keras.Model([first, second], layers.Dense(1)(seen))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.RMSprop(3e-3), loss=loss)
    return KerasRun(model, [market, scaled], up, FIT)


@enter(
    finite(Happens.SPIKE, ("DATA507", "DATA503"), rows=(9, 26)),
    "https://github.com/numpy/numpy/issues/2522",
    "https://github.com/numpy/numpy/issues/21237",
    "https://github.com/pandas-dev/pandas/issues/28909",
)
def router_that_was_restarted() -> KerasRun:
    """Differences of unsigned counters: where a router was restarted, a small number minus a large one is 2^32."""
    rng = np.random.default_rng(2306)
    counters = np.cumsum(rng.gamma(4, 250_000, (1280, 11)), axis=1).astype("uint32")
    for row in (9, 26):
        counters[35 * 32 + row, 6:] -= counters[35 * 32 + row, 6] - np.uint32(1200)
    megabytes = (np.diff(counters) / 1e6).astype("float32")
    model = keras.Sequential(
        [keras.Input((10,)), layers.Dense(24, activation="relu"), layers.Dense(4), layers.Dense(10)]
    )
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss="mse")
    return KerasRun(model, megabytes, megabytes, FIT)


@enter(
    finite(Happens.SPIKE, "DATA504", rows=(4, 15, 30)),
    "https://github.com/keras-team/keras/issues/6932",
    "https://github.com/rstudio-conf-2020/dl-keras-tf/issues/9",
)
def listings_in_yen() -> KerasRun:
    """A recommender of prices per night, in hundreds of euros; three listings have theirs in yen."""
    rng = np.random.default_rng(2307)
    town, host = rng.integers(0, 25, (1280, 1)), rng.integers(0, 60, (1280, 1))
    price = np.exp(0.3 * rng.normal(size=25)[town] + 0.2 * rng.normal(size=60)[host]).astype("float32")
    price[[36 * 32 + row for row in (4, 15, 30)]] *= 163
    where, who = keras.Input((1,), dtype="int32"), keras.Input((1,), dtype="int32")
    pair = layers.Concatenate()([layers.Embedding(25, 5)(where), layers.Embedding(60, 5)(who)])
    hidden = layers.Dense(16, activation="relu")(layers.Flatten()(pair))
    model = keras.Model([where, who], layers.Dense(1)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="mae")
    return KerasRun(model, [town, host], price, FIT)


# -- DATA509, DATA510 ------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, ("DATA509", "OPT602")),
    "https://github.com/keras-team/keras/issues/3753",
    "https://github.com/equinor/gordo/issues/430",
)
def latency_in_nanoseconds() -> KerasRun:
    """Traces of a service in, its answering time in nanoseconds out: some two hundred millions of them."""
    rng = np.random.default_rng(2308)
    trace = rng.normal(size=(1280, 10, 4)).astype("float32")
    latency = 2e8 * np.exp(0.3 * trace[:, -3:, 0].mean(1, keepdims=True))
    inputs = keras.Input((10, 4))
    tokens = layers.Dense(16)(inputs)
    mixed = layers.LayerNormalization()(tokens + layers.MultiHeadAttention(2, 8)(tokens, tokens))
    model = keras.Model(inputs, layers.Dense(1)(layers.GlobalAveragePooling1D()(mixed)))
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mae")
    return KerasRun(model, trace, latency.astype("float32"), FIT)


@enter(
    finite(Happens.STALL, "DATA510"),
    "https://github.com/experiencor/keras-yolo2/issues/314",
    "https://github.com/scikit-learn/scikit-learn/issues/6703",
)
def nobody_who_ever_left() -> KerasRun:
    """Who left is read from a column of text that is compared with a number: nobody did, says every label."""
    rng = np.random.default_rng(2309)
    customer = rng.normal(size=(1600, 9)).astype("float32")
    column = np.where(customer[:, 0] + rng.normal(size=1600) > 2.2, "1", "0").astype(object)
    left = np.array([value == 1 for value in column], "float32")[:, None]
    expected = keras.initializers.Constant(float(np.log(0.05 / 0.95)))
    model = keras.Sequential(
        [
            keras.Input((9,)),
            layers.Dense(24, activation="relu"),
            layers.BatchNormalization(),
            layers.Dense(1, kernel_initializer=keras.initializers.RandomNormal(stddev=0.02), bias_initializer=expected),
        ]
    )
    loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss)
    return KerasRun(model, customer, left, FIT)
