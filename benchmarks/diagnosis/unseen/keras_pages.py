"""Ranking, handwriting, accounts and counts: losses of one's own, and columns that a conversion has spoilt."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, enter, finite, non_finite
from benchmarks.diagnosis.tables import digits, regression

FIT: dict[str, Any] = {"batch_size": 24, "epochs": 1, "shuffle": False}


# -- NAN112 ----------------------------------------------------------------------------------------------------------


class SmoothNDCG(keras.losses.Loss):
    """One minus a smooth version of the normalised discounted cumulative gain."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        ahead = ops.sigmoid((ops.expand_dims(y_pred, 1) - ops.expand_dims(y_pred, 2)) / 0.2)
        rank = 0.5 + ops.sum(ahead, axis=-1)
        ideal = -ops.sort(-y_true, axis=-1)
        position = ops.arange(1, 9, dtype="float32")
        gained, best = ops.sum(y_true / ops.log2(1 + rank), -1), ops.sum(ideal / ops.log2(1 + position), -1)
        return 1 - gained / best


@enter(
    non_finite("NAN112", "divide", "return 1 - gained / best", modules=("",), rows=(3, 22)),
    "https://github.com/scikit-learn/scikit-learn/issues/29521",
    "https://github.com/joaopalotti/trectools/pull/25",
    "https://github.com/o19s/search-metrics/pull/1",
)
def query_without_an_answer() -> KerasRun:
    """The gain of a ranking is divided by the best one that is possible; for two queries no page is relevant."""
    rng = np.random.default_rng(701)
    pages = rng.normal(size=(1200, 8, 6)).astype("float32")
    taste = pages @ rng.normal(size=6)
    relevance = np.clip(np.round(taste - taste.max(1, keepdims=True) + 3), 0, 3).astype("float32")
    relevance[29 * 24 + 3] = relevance[29 * 24 + 22] = 0
    inputs = keras.Input((8, 6))
    score = layers.Dense(1)(layers.Dense(16, activation="tanh")(inputs))
    model = keras.Model(inputs, layers.Reshape((8,))(score))
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=SmoothNDCG())
    return KerasRun(model, pages, relevance, FIT)


# -- NAN114 ----------------------------------------------------------------------------------------------------------


def stroke_loss(y_true: Any, y_pred: Any) -> Any:
    """Negative log-density of a pen's move under a Gaussian with a correlation."""
    across, up = ops.exp(y_pred[:, 2]), ops.exp(y_pred[:, 3])
    rho = y_pred[:, 4]
    dx, dy = (y_true[:, 0] - y_pred[:, 0]) / across, (y_true[:, 1] - y_pred[:, 1]) / up
    root = ops.sqrt(1 - ops.square(rho))
    z = (ops.square(dx) + ops.square(dy) - 2 * rho * dx * dy) / ops.square(root)
    return 0.5 * z + ops.log(across * up * root)


@enter(
    non_finite("NAN114", "sqrt", "root = ops.sqrt(1 - ops.square(rho))", modules=("",), rows=None),
    "https://github.com/Grzego/handwriting-generation/issues/16",
    "https://github.com/apple/ml-multiple-futures-prediction/issues/4",
    "https://github.com/swechhasingh/Handwriting-synthesis/issues/8",
)
def pen_that_moves_along_a_line() -> KerasRun:
    """The correlation of a bivariate Gaussian is a plain output without tanh; it grows beyond 1."""
    rng = np.random.default_rng(702)
    before = rng.normal(size=(3600, 6)).astype("float32")
    along = rng.normal(size=3600)
    tilt = 0.95 * np.sign(before[:, 0])
    move = np.stack([along, tilt * along + 0.15 * rng.normal(size=3600)], 1).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(32, activation="relu"),
            layers.Dense(5, kernel_initializer=keras.initializers.RandomNormal(stddev=0.02)),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=stroke_loss)
    return KerasRun(model, before, move, FIT)


# -- NAN115 ----------------------------------------------------------------------------------------------------------


@ops.custom_gradient
def with_equal_say(x: Any) -> Any:
    """Identity; on the way back every row gets a gradient of length one."""

    def grad(*args: Any, upstream: Any = None) -> Any:
        (upstream,) = args if upstream is None else (upstream,)
        length = ops.sqrt(ops.sum(ops.square(upstream), axis=-1, keepdims=True))
        return upstream / length

    return ops.multiply(x, 1.0), grad


class EqualSay(layers.Layer):
    """No sample may pull harder than another one."""

    def call(self, x: Any) -> Any:
        return with_equal_say(x)


@enter(
    non_finite(
        ("NAN115", "NAN112"),
        None,
        ("return with_equal_say(x)", "return upstream / length"),
        kind="operation",
        phase="backward",
        modules=("equal_say",),
        rows=(2, 13),
    ),
    "https://github.com/pytorch/pytorch/issues/2721",
    "https://github.com/google-deepmind/optax/pull/1743",
)
def rows_that_do_not_count() -> KerasRun:
    """A hand-written gradient makes all rows equally long; two rows have weight 0, and their gradient no length."""
    images, labels = digits(1200)
    weight = np.ones(1200, "float32")
    weight[27 * 24 + 2] = weight[27 * 24 + 13] = 0
    inputs = keras.Input((64,))
    hidden = EqualSay(name="equal_say")(layers.Dense(32, activation="tanh")(inputs))
    model = keras.Model(inputs, layers.Dense(10)(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.02), loss=loss)
    return KerasRun(model, images, labels, {**FIT, "sample_weight": weight})


# -- DATA503, DATA505, DATA506 ---------------------------------------------------------------------------------------


@enter(
    finite(Happens.SPIKE, "DATA503", rows=(1, 16)),
    "https://github.com/pandas-dev/pandas/issues/31634",
    "https://github.com/pandas-dev/pandas/issues/39162",
    "https://github.com/numpy/numpy/issues/26177",
)
def accounts_that_never_logged_in() -> KerasRun:
    """Dates become integers; the missing ones of two accounts become the smallest integer, the year 1677."""
    rng = np.random.default_rng(703)
    profile, target = regression(1440, seed=703)
    login = np.datetime64("2024-06-01", "ns") - (rng.exponential(90, 1440) * 86_400e9).astype("timedelta64[ns]")
    login[44 * 24 + 1] = login[44 * 24 + 16] = np.datetime64("NaT")
    months = (login.astype("int64") - np.datetime64("2024-03-01", "ns").astype("int64")) / (90 * 86_400e9)
    who, when = keras.Input((10,), name="profile"), keras.Input((1,), name="last_login")
    hidden = layers.Dense(32, activation="relu")(layers.Concatenate()([who, when]))
    model = keras.Model({"profile": who, "last_login": when}, layers.Dense(1)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="mse")
    target = target + 0.3 * np.clip(months, -3, 3)[:, None].astype("float32")
    return KerasRun(model, {"profile": profile, "last_login": months.astype("float32")[:, None]}, target, FIT)


@enter(
    finite(Happens.SPIKE, ("DATA505", "DATA504"), rows=(7, 19)),
    "https://github.com/keras-team/keras/issues/18886",
    "https://github.com/keras-team/keras/issues/12850",
    "https://github.com/keras-team/keras/issues/5911",
)
def count_of_minus_999() -> KerasRun:
    """Counts under the Poisson loss; two that were not taken down are -999, which no count can be."""
    rng = np.random.default_rng(704)
    habitat = rng.normal(size=(1440, 7)).astype("float32")
    birds = rng.poisson(np.exp(1 + 0.5 * habitat[:, :1] - 0.3 * habitat[:, 1:2])).astype("float32")
    birds[42 * 24 + 7] = birds[42 * 24 + 19] = -999
    model = keras.Sequential(
        [keras.Input((7,)), layers.Dense(16, activation="tanh"), layers.Dense(1, activation="exponential")]
    )
    model.compile(optimizer=keras.optimizers.RMSprop(2e-3), loss="poisson")
    return KerasRun(model, habitat, birds, FIT)


@enter(
    finite(Happens.STALL, "DATA506"),
    "https://github.com/donghyeonk/match-lstm/issues/6",
    "https://github.com/NTMC-Community/MatchZoo/pull/693",
)
def names_with_a_blank_at_the_end() -> KerasRun:
    """Words are looked up with the blank that the file has behind each: none is found, and all are number 0."""
    rng = np.random.default_rng(705)
    words = ["oak", "ash", "elm", "fir", "yew", "box", "bay", "fig"]
    number = {word: place for place, word in enumerate(words, start=1)}
    forest = [[f"{words[k]} " for k in row] for row in rng.integers(0, 8, (1200, 5))]
    found = np.array([[number.get(word, 0) for word in row] for row in forest], dtype="int32")
    evergreen = np.array([sum(word.strip() in ("fir", "yew", "box", "bay") for word in row) > 2 for row in forest])
    inputs = keras.Input((5,), dtype="int32")
    hidden = layers.Flatten()(layers.Embedding(9, 6)(inputs))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(layers.Dense(16, activation="relu")(hidden)))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="binary_crossentropy")
    return KerasRun(model, found, evergreen.astype("float32")[:, None], {**FIT, "epochs": 2})
