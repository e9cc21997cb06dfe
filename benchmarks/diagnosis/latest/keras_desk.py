"""Tables, ratings and distances in Keras: gaps, zero counts, percentages, pairs that are one and the same."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, bad_batch, enter, finite, non_finite, runaway
from benchmarks.diagnosis.tables import digits, regression

FIT: dict[str, Any] = {"batch_size": 30, "epochs": 1, "shuffle": False}


# -- DATA501, DATA502 ------------------------------------------------------------------------------------------------


@enter(
    bad_batch(None, (12,)),
    "https://github.com/Nixtla/neuralforecast/issues/186",
    "https://github.com/prs-eth/Marigold/issues/111",
    "https://github.com/danielegrattarola/keras-gat/issues/14",
)
def pulse_that_was_never_taken() -> KerasRun:
    """The target of one patient is NaN, in a model with two outputs."""
    x, y = regression(1200, seed=1501)
    pulse = (x[:, :1] - 0.5 * x[:, 1:2]).copy()
    pulse[25 * 30 + 12] = np.nan
    inputs = keras.Input((10,))
    hidden = layers.Dense(24, activation="gelu")(inputs)
    model = keras.Model(inputs, {"pressure": layers.Dense(1)(hidden), "pulse": layers.Dense(1)(hidden)})
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss={"pressure": "mse", "pulse": "mae"})
    return KerasRun(model, x, {"pressure": y, "pulse": pulse}, FIT)


@enter(
    bad_batch(None, (3, 17, 21)),
    "https://github.com/keras-team/keras/issues/6627",
    "https://github.com/keras-team/keras/issues/7917",
    "https://github.com/scikit-learn/scikit-learn/pull/32941",
)
def weight_per_visit() -> KerasRun:
    """Sample weights are purchases per visit; three customers never visited, and 0 / 0 is NaN."""
    rng = np.random.default_rng(1502)
    images, labels = digits(1200)
    visits = rng.integers(1, 20, 1200)
    bought = rng.binomial(visits, 0.6)
    for row in (3, 17, 21):
        visits[24 * 30 + row] = bought[24 * 30 + row] = 0
    with np.errstate(invalid="ignore"):
        weight = (bought / visits).astype("float32")
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, activation="relu"), layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
    return KerasRun(model, images, labels, {**FIT, "sample_weight": weight})


@enter(
    runaway(("DATA502", "OPT601")),
    "https://github.com/keras-team/keras/issues/3040",
    "https://github.com/hunkim/DeepLearningZeroToAll/pull/11",
)
def line_through_two_hundred_points() -> KerasRun:
    """A line y = 2x for x from 0 to 200, one neuron and SGD at 0.001: every step overshoots."""
    x = np.random.default_rng(1503).permutation(200).repeat(6).astype("float32")[:, None]
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(1e-3), loss="mean_squared_error")
    return KerasRun(model, x, 2 * x, FIT)


@enter(
    finite(Happens.STALL, ("DATA502", "ACT302"), rows=None),
    "https://github.com/keras-team/keras/issues/4784",
    "https://github.com/keras-team/keras/issues/2711",
    "https://github.com/irolaina/FCRN-DepthPrediction/issues/47",
)
def blood_values_as_measured() -> KerasRun:
    """Platelets by the hundred thousand beside sodium and a pH go into sigmoids: nothing is learnt."""
    rng = np.random.default_rng(1506)
    patient = rng.normal(size=(1200, 6))
    ill = (patient[:, 0] + patient[:, 1] - patient[:, 3] > 0).astype("float32")[:, None]
    usual = np.array([7.4, 140.0, 4.2, 90.0, 250_000.0, 6800.0])
    measured = usual * (1 + np.array([0.006, 0.03, 0.1, 0.2, 0.25, 0.3]) * patient)
    model = keras.Sequential([keras.Input((6,))])
    for units in (24, 16):
        model.add(layers.Dense(units, activation="sigmoid"))
    model.add(layers.Dense(1, activation="sigmoid"))
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="binary_crossentropy")
    return KerasRun(model, measured.astype("float32"), ill, {**FIT, "epochs": 3})


# -- NAN112 ----------------------------------------------------------------------------------------------------------


def percentage(y_true: Any, y_pred: Any) -> Any:
    """Mean absolute percentage error, without the epsilon of the library's."""
    return 100 * ops.mean(ops.abs((y_true - y_pred) / y_true), axis=-1)


@enter(
    non_finite("NAN112", "divide", "return 100 * ops.mean(ops.abs((y_true", modules=("",), rows=(2, 28)),
    "https://github.com/keras-team/keras/pull/15604",
    "https://github.com/uber/causalml/pull/1049",
    "https://github.com/awslabs/gluonts/issues/1225",
)
def hours_without_a_passenger() -> KerasRun:
    """A percentage error written by hand; at two hours nobody took the bus, and the error is divided by 0."""
    x, y = regression(1200, seed=1504)
    riders = np.round(20 + 5 * y).clip(1)
    riders[26 * 30 + 2] = riders[26 * 30 + 28] = 0
    model = keras.Sequential([keras.Input((10,)), layers.Dense(32, activation="relu"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=percentage)
    return KerasRun(model, x, riders.astype("float32"), FIT)


class MaskedAttention(layers.Layer):
    """A weighted mean over the words that are there."""

    def build(self, shape: Any) -> None:
        self.question = self.add_weight(shape=(shape[-1], 1), initializer="glorot_uniform")

    def call(self, states: Any, present: Any) -> Any:
        weights = ops.exp(ops.tanh(ops.matmul(states, self.question))) * ops.expand_dims(present, -1)
        return ops.sum(states * weights, axis=1) / ops.sum(weights, axis=1)


@enter(
    non_finite(
        "NAN112", "divide", "return ops.sum(states * weights, axis=1) / ", modules=("masked_attention",), rows=(19,)
    ),
    "https://github.com/alexTsaptsinos/lyricsHAN/issues/3",
    "https://github.com/pytorch/pytorch/issues/41508",
)
def lyrics_of_an_instrumental() -> KerasRun:
    """Attention by hand divides by the sum of its weights; one song has no words, and its weights sum to 0."""
    rng = np.random.default_rng(1505)
    text = rng.integers(1, 40, (1200, 9)) * (np.arange(9) < rng.integers(2, 10, (1200, 1)))
    happy = ((text % 3 == 1).sum(1) > (text % 3 == 2).sum(1)).astype("float32")
    text[28 * 30 + 19] = 0
    words, present = keras.Input((9,), dtype="int32"), keras.Input((9,))
    pooled = MaskedAttention(name="masked_attention")(layers.Embedding(40, 12)(words), present)
    model = keras.Model([words, present], layers.Dense(1)(pooled))
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=keras.losses.BinaryCrossentropy(from_logits=True))
    return KerasRun(model, [text, (text > 0).astype("float32")], happy[:, None], FIT)


# -- NAN113 ----------------------------------------------------------------------------------------------------------


class OneShot(layers.Layer):
    """Distances of a picture to an example of each class, in the space of an encoder."""

    def __init__(self, examples: np.ndarray, **more: Any) -> None:
        super().__init__(**more)
        self.examples = ops.convert_to_tensor(examples)
        self.encoder = layers.Dense(16, activation="tanh")

    def call(self, x: Any) -> Any:
        apart = ops.expand_dims(self.encoder(x), 1) - ops.expand_dims(self.encoder(self.examples), 0)
        return -ops.sqrt(ops.sum(apart * apart, axis=-1))


@enter(
    non_finite(
        "NAN113",
        "sqrt",
        "return -ops.sqrt(ops.sum(apart * apart, axis=-1))",
        phase="backward",
        modules=("one_shot",),
        rows=(14,),
    ),
    "https://github.com/keras-team/keras/issues/9097",
    "https://github.com/tensorflow/tensorflow/issues/30199",
    "https://github.com/adambielski/siamese-triplet/issues/18",
)
def query_that_is_its_own_example() -> KerasRun:
    """One-shot classification by the root of a squared distance; one query is the example itself, at distance 0."""
    images, labels = digits(1200)
    late = images[22 * 30 + 14 :], labels[22 * 30 + 14 :]
    first = {int(late[1][0]): late[0][0]}
    examples = np.stack([first.get(kind, images[labels == kind].mean(0)) for kind in range(10)])
    model = keras.Sequential([keras.Input((64,)), OneShot(examples, name="one_shot")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss)
    return KerasRun(model, images, labels, FIT)
