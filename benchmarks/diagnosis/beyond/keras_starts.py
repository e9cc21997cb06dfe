"""How Keras models begin and end: initialisers, constraints, gates, untrained weights, a softmax too many."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, enter, finite, healthy, runaway
from benchmarks.diagnosis.tables import digits, regression

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}
LOGITS: dict[str, Any] = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}


# -- GRAD202 ---------------------------------------------------------------------------------------------------------


class Excite(layers.Layer):
    """A convolution whose channels are weighed by gates, one after the other and without a way around."""

    def __init__(self, width: int, **more: Any) -> None:
        super().__init__(**more)
        self.found = layers.Conv2D(width, 3, padding="same", activation="tanh", kernel_initializer="glorot_uniform")
        self.gate = layers.Dense(width, activation="sigmoid")
        self.width = width

    def build(self, shape: Any) -> None:
        self.found.build(shape)
        self.gate.build((shape[0], self.width))

    def call(self, picture: Any) -> Any:
        found = self.found(picture)
        weight = self.gate(ops.mean(found, axis=(1, 2)))
        return found * weight[:, None, None, :]


@enter(
    finite(Happens.STALL, "GRAD202"),
    "https://github.com/keras-team/keras/issues/2741",
    "https://github.com/ryanaleksander/kernel-convolution/issues/2",
)
def fourteen_gates_without_a_way_around() -> KerasRun:
    """Fourteen gated convolutions in a row: each gate halves what comes through, forwards and backwards."""
    images, labels = digits(1280)
    inputs = keras.Input((8, 8, 1))
    hidden = inputs
    for _ in range(14):
        hidden = Excite(8)(hidden)
    model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(hidden)))
    model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9), **LOGITS)
    return KerasRun(model, images.reshape(-1, 8, 8, 1), labels, FIT)


# -- ACT305 ----------------------------------------------------------------------------------------------------------


class SameForAll(keras.initializers.Initializer):
    """Every unit takes the mean of its inputs, for a try that can be repeated."""

    def __call__(self, shape: Any, dtype: Any = None, **more: Any) -> Any:
        return ops.full(shape, 1.0 / shape[0], dtype=dtype or "float32")


@enter(
    finite(Happens.STALL, "ACT305"),
    "https://github.com/keras-team/keras/issues/16539",
    "https://github.com/wagonhelm/NaNmnist/issues/2",
    "https://github.com/junxnone/tio/issues/959",
)
def initialiser_that_does_not_draw() -> KerasRun:
    """An initialiser of one's own gives every unit the same weights; a question of two signs needs two."""
    rng = np.random.default_rng(7601)
    x = rng.uniform(-1, 1, (1280, 4)).astype("float32")
    same = (x[:, 0] * x[:, 1] > 0).astype("float32")[:, None]
    fill = SameForAll()
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(32, activation="tanh", kernel_initializer=fill),
            layers.Dense(16, activation="tanh", kernel_initializer=fill),
            layers.Dense(1, kernel_initializer=fill),
        ]
    )
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss)
    return KerasRun(model, x, same, {**FIT, "epochs": 2})


# -- ACT303 ----------------------------------------------------------------------------------------------------------


class Below(keras.constraints.Constraint):
    """Keeps weights on one side of zero."""

    def __call__(self, w: Any) -> Any:
        return ops.minimum(w, 0.0)


@enter(
    finite(Happens.STALL, "ACT303"),
    "https://github.com/keras-team/keras/issues/7628",
    "https://github.com/keras-team/keras/issues/7057",
    "https://github.com/rstudio/keras3/issues/418",
)
def constraint_on_the_wrong_side() -> KerasRun:
    """A constraint should keep weights above zero and keeps them below: behind it no rectifier fires on any picture."""
    images, labels = digits(1280)
    inputs = keras.Input((64,))
    hidden = layers.Dense(32, activation="relu", kernel_constraint=Below(), use_bias=False)(inputs)
    hidden = layers.Dense(24, activation="relu")(hidden)
    model = keras.Model(inputs, layers.Dense(10)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), **LOGITS)
    return KerasRun(model, images, labels, FIT)


# -- OPT608 ----------------------------------------------------------------------------------------------------------


class Verdict(layers.Layer):
    """The last layer, with weights that were drawn and kept as an array."""

    def __init__(self, classes: int, **more: Any) -> None:
        super().__init__(**more)
        self.classes = classes

    def build(self, shape: Any) -> None:
        drawn = np.random.default_rng(3).normal(0, 0.02, (shape[-1], self.classes))
        self.table = ops.convert_to_tensor(drawn.astype("float32"))

    def call(self, seen: Any) -> Any:
        return ops.matmul(seen, self.table)


@enter(
    finite(Happens.STALL, "OPT608"),
    "https://github.com/keras-team/keras/issues/16797",
    "https://github.com/rstudio/keras3/issues/1123",
    "https://github.com/keras-team/keras/issues/12503",
)
def last_layer_that_is_no_variable() -> KerasRun:
    """The weights of a layer of one's own are an array instead of `add_weight`: no optimizer ever hears of them."""
    images, labels = digits(1280)
    inputs = keras.Input((8, 8, 1))
    hidden = layers.Flatten()(layers.Conv2D(8, 3, activation="relu")(inputs))
    hidden = layers.Dense(16, activation="tanh")(hidden)
    model = keras.Model(inputs, Verdict(10)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), **LOGITS)
    return KerasRun(model, images.reshape(-1, 8, 8, 1), labels, FIT)


# -- LOSS403 ---------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, "LOSS403"),
    "https://github.com/keras-team/keras-hub/pull/1008",
    "https://github.com/mmalekzadeh/dana/issues/1",
    "https://github.com/google-research/google-research/issues/367",
    backends=("jax", "torch"),
)
def next_note_through_two_softmaxes() -> KerasRun:
    """A melody model ends in a softmax at every note, and its loss is told to expect raw scores."""
    rng = np.random.default_rng(7603)
    notes = np.zeros((1280, 17), "int32")
    notes[:, 0] = rng.integers(0, 48, 1280)
    for beat in range(1, 17):
        notes[:, beat] = (notes[:, beat - 1] + rng.choice([2, 5, 7], 1280, p=[0.7, 0.2, 0.1])) % 48
    inputs = keras.Input((16,), dtype="int32")
    words = layers.Embedding(48, 24)(inputs)
    seen = layers.MultiHeadAttention(2, 12)(words, words, use_causal_mask=True)
    hidden = layers.LayerNormalization()(layers.Add()([words, seen]))
    hidden = layers.Dense(48, activation="relu")(hidden)
    model = keras.Model(inputs, layers.Dense(48, activation="softmax")(hidden))
    model.compile(optimizer=keras.optimizers.Adam(1e-3), **LOGITS)
    return KerasRun(model, notes[:, :-1], notes[:, 1:], FIT)


# -- ACT304, ACT302, DATA502 ------------------------------------------------------------------------------------------


class ScaledByFan(keras.initializers.Initializer):
    """He's initialisation, as it was remembered."""

    def __init__(self) -> None:
        self.seeds = keras.random.SeedGenerator(5)

    def __call__(self, shape: Any, dtype: Any = None, **more: Any) -> Any:
        deviation = (2.0 * shape[0]) ** 0.5
        return keras.random.normal(shape, stddev=deviation, dtype=dtype, seed=self.seeds)


@enter(
    runaway("ACT304"),
    "https://github.com/tensorflow/tensorflow/issues/18706",
    "https://github.com/keras-team/keras/issues/11773",
    "https://github.com/keras-team/keras/issues/20873",
)
def fan_that_multiplies() -> KerasRun:
    """An initialiser multiplies by the number of inputs where it should divide: every layer blows the signal up."""
    x, y = regression(1280, seed=7604)
    inputs = keras.Input((10,))
    hidden = inputs
    for _ in range(4):
        hidden = layers.Dense(32, activation="relu", kernel_initializer=ScaledByFan())(hidden)
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    model.compile(optimizer=keras.optimizers.SGD(1e-2), loss="mse")
    return KerasRun(model, x, y, FIT)


@enter(
    finite(Happens.STALL, ("ACT302", "DATA502")),
    "https://github.com/keras-team/keras/issues/4563",
    "https://github.com/keras-team/keras/issues/14490",
    "https://github.com/keras-team/keras/issues/2134",
)
def barometer_into_a_recurrent_net() -> KerasRun:
    """Air pressures of about 1010 hectopascals go into a GRU as they are: its gates are open or shut and stay so."""
    rng = np.random.default_rng(7605)
    trend = rng.choice([-1, 1], (1280, 1))
    pressure = 1010 + 12 * rng.normal(size=(1280, 1)) + np.cumsum(0.5 * trend + rng.normal(size=(1280, 24)), axis=1)
    humidity = rng.uniform(30, 100, (1280, 24)) - 8 * (trend < 0)
    sky = np.stack([pressure, humidity], axis=-1).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((24, 2)),
            layers.GRU(16, return_sequences=True),
            layers.GRU(12),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="binary_crossentropy")
    return KerasRun(model, sky, (trend < 0).astype("float32"), {**FIT, "epochs": 2})


# -- Healthy ---------------------------------------------------------------------------------------------------------


@enter(healthy(), "https://github.com/keras-team/keras/issues/12423")
def likelihood_below_zero_of_a_mixture() -> KerasRun:
    """A mixture density network: its negative log-likelihood goes far below zero, with a floor under the widths."""
    x, y = regression(1280, seed=7606)

    def mixture_nll(y_true: Any, y_pred: Any) -> Any:
        share, middle, width = ops.split(y_pred, 3, axis=-1)
        width = 0.005 + ops.softplus(width)
        each = -0.5 * ops.square((y_true - middle) / width) - ops.log(width) - 0.919
        return -ops.logsumexp(each + ops.log_softmax(share, axis=-1), axis=-1)

    model = keras.Sequential([keras.Input((10,)), layers.Dense(32, activation="tanh"), layers.Dense(9)])
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=mixture_nll)
    return KerasRun(model, x, 0.03 * y, {**FIT, "epochs": 2})


@enter(healthy(), "https://github.com/y0ast/Variational-Autoencoder/issues/5")
def twenty_layers_that_normalise_themselves() -> KerasRun:
    """Twenty plain layers with selu, LeCun's initialisation and targets that are summed over the row."""
    x, y = regression(1280, seed=7607)
    inputs = keras.Input((10,))
    hidden = inputs
    for _ in range(20):
        hidden = layers.Dense(32, activation="selu", kernel_initializer="lecun_normal")(hidden)
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=keras.losses.Huber(reduction="sum"))
    return KerasRun(model, x, y, {**FIT, "epochs": 2})
