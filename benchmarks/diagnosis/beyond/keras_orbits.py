"""Physics, hydrology and events in Keras: open orbits, dry rivers, long silences, lone atoms."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, Truth, enter, non_finite

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- NAN114 ----------------------------------------------------------------------------------------------------------


class TrueAnomaly(layers.Layer):
    """Angle of a body on its ellipse, from eccentricity and eccentric anomaly."""

    def call(self, orbit: Any) -> Any:
        eccentricity, anomaly = orbit[:, :1], orbit[:, 1:2]
        stretch = ops.sqrt((1 + eccentricity) / (1 - eccentricity))
        angle = 2 * ops.arctan(stretch * ops.tan(anomaly / 2))
        return ops.concatenate([ops.cos(angle), ops.sin(angle), orbit], axis=-1)


@enter(
    non_finite("NAN114", "sqrt", "stretch = ops.sqrt((1 + ecc", modules=("true_anomaly",), rows=(11,)),
    "https://github.com/Smithsonian/layup/pull/334",
    "https://github.com/OrbitalCommons/starfield/pull/193",
    "https://github.com/California-Planet-Search/radvel/issues/260",
)
def comet_that_does_not_come_back() -> KerasRun:
    """The formula of an ellipse is given a hyperbolic comet: a root of a negative number."""
    rng = np.random.default_rng(7101)
    orbit = np.stack([rng.uniform(0, 0.9, 1280), rng.uniform(-2, 2, 1280), rng.normal(size=1280)], axis=1)
    angle = 2 * np.arctan(np.sqrt((1 + orbit[:, 0]) / (1 - orbit[:, 0])) * np.tan(orbit[:, 1] / 2))
    light = np.stack([np.cos(angle) + 0.3 * orbit[:, 2], orbit[:, 0] * np.sin(angle)], axis=1)
    orbit[31 * 32 + 11, 0] = 1.2
    inputs = keras.Input((3,))
    hidden = layers.Dense(32, activation="silu")(TrueAnomaly(name="true_anomaly")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse")
    return KerasRun(model, orbit.astype("float32"), light.astype("float32"), FIT)


# -- NAN112 ----------------------------------------------------------------------------------------------------------


class NashSutcliffe(keras.losses.Loss):
    """One minus the efficiency of each basin: squared errors over the spread of what was observed."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        error = ops.sum(ops.square(y_true - y_pred), axis=(1, 2))
        spread = ops.sum(ops.square(y_true - ops.mean(y_true, axis=1, keepdims=True)), axis=(1, 2))
        return error / spread


@enter(
    non_finite("NAN112", "divide", "return error / spread", modules=("",), rows=(17,)),
    "https://github.com/neuralhydrology/neuralhydrology/issues/33",
    "https://github.com/neuralhydrology/neuralhydrology/issues/101",
    "https://github.com/USGS-R/river-dl/issues/82",
)
def wadi_in_the_dry_season() -> KerasRun:
    """The loss of an LSTM for discharge divides by the spread of the observations; one river lay dry all the time."""
    rng = np.random.default_rng(7102)
    rain = rng.gamma(0.5, 1.0, (1280, 20, 1)) * rng.uniform(0.4, 1.6, (1280, 1, 1))
    rain[29 * 32 + 17] = 0
    flow = np.zeros_like(rain)
    for day in range(20):
        flow[:, day] = 0.6 * (flow[:, day - 1] if day else 0) + 0.4 * rain[:, day]
    inputs = keras.Input((20, 1))
    model = keras.Model(inputs, layers.TimeDistributed(layers.Dense(1))(layers.LSTM(16, return_sequences=True)(inputs)))
    model.compile(optimizer=keras.optimizers.Adam(0.01, clipnorm=5.0), loss=NashSutcliffe())
    return KerasRun(model, rain.astype("float32"), flow.astype("float32"), FIT)


class BondAttention(layers.Layer):
    """Each atom attends to the atoms that it is bound to."""

    def __init__(self, units: int, **more: Any) -> None:
        super().__init__(**more)
        self.value, self.score = layers.Dense(units), layers.Dense(units)

    def call(self, atoms: Any, bonds: Any) -> Any:
        asked = self.score(atoms)
        scores = ops.einsum("bid,bjd->bij", asked, asked) / 4.0
        scores = ops.where(bonds > 0, scores, -np.inf)
        return ops.elu(ops.matmul(ops.softmax(scores, axis=-1), self.value(atoms)))


@enter(
    non_finite("NAN112", "softmax", "ops.matmul(ops.softmax(scores", modules=("bond_attention",), rows=(3,)),
    "https://github.com/danielegrattarola/keras-gat/issues/23",
    "https://github.com/tracel-ai/burn/pull/4697",
    "https://github.com/pytorch/pytorch/pull/131060",
)
def salt_among_the_molecules() -> KerasRun:
    """A graph attention without self-loops masks with -inf; the sodium of one salt is bound to nobody."""
    rng = np.random.default_rng(7103)
    atoms = rng.normal(size=(1280, 7, 5)).astype("float32")
    bonds = (rng.random((1280, 7, 7)) < 0.2).astype("float32")
    bonds = np.maximum(bonds, bonds.transpose(0, 2, 1)) * (1 - np.eye(7, dtype="float32"))
    chain = np.arange(6)
    bonds[:, chain, chain + 1] = bonds[:, chain + 1, chain] = 1
    bonds[33 * 32 + 3, 6] = bonds[33 * 32 + 3, :, 6] = 0
    energy = (atoms[:, :, :1] * bonds.sum(2, keepdims=True)).mean(1)
    inputs = keras.Input((7, 5), name="atoms"), keras.Input((7, 7), name="bonds")
    hidden = BondAttention(16, name="bond_attention")(*inputs)
    hidden = layers.Concatenate()([hidden, inputs[0]])
    pooled = layers.GlobalAveragePooling1D()(layers.Dense(16, activation="gelu")(hidden))
    model = keras.Model(inputs, layers.Dense(1)(pooled))
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="mse")
    return KerasRun(model, {"atoms": atoms, "bonds": bonds}, energy.astype("float32"), FIT)


# -- NAN110 ----------------------------------------------------------------------------------------------------------


class Intensity(layers.Layer):
    """Base of the next event's intensity from the history, and one pace for all."""

    def build(self, shape: Any) -> None:
        self.base = layers.Dense(1)
        self.base.build(shape)
        self.pace = self.add_weight(shape=(1,), initializer=keras.initializers.Constant(0.5), name="pace")

    def call(self, history: Any) -> Any:
        base = self.base(history)
        return ops.concatenate([base, ops.softplus(self.pace) + 0 * base], axis=-1)


def next_event(y_true: Any, y_pred: Any) -> Any:
    """Negative log-likelihood of the time until the next event; the intensity grows exponentially."""
    base, pace = y_pred[:, :1], y_pred[:, 1:]
    passed = (ops.exp(base + pace * y_true) - ops.exp(base)) / pace
    return ops.squeeze(passed - base - pace * y_true, axis=-1)


@enter(
    non_finite(("NAN110", "DATA503", "DATA504"), "exp", "passed = (ops.exp(base + pace", modules=("",), rows=(6,)),
    "https://github.com/ant-research/EasyTemporalPointProcess/issues/9",
    "https://github.com/ragulpr/wtte-rnn/issues/33",
    "https://github.com/shchur/ifl-tpp/issues/5",
)
def customer_who_came_back_after_a_year() -> KerasRun:
    """A recurrent point process takes the exponential of a waiting time; one customer stayed away for 400 days."""
    rng = np.random.default_rng(7104)
    habit = rng.uniform(0.3, 1.5, (1280, 1))
    waits = rng.gamma(4.0, 0.25, (1280, 13)) * habit
    waits[30 * 32 + 6, -1] = 400
    model = keras.Sequential(
        [keras.Input((12, 1)), layers.GRU(16), layers.Dense(8, activation="tanh"), Intensity(name="intensity")]
    )
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=next_event)
    history = np.log1p(waits[:, :-1, None]).astype("float32")
    return KerasRun(model, history, waits[:, -1:].astype("float32"), FIT)


# -- NAN115 ----------------------------------------------------------------------------------------------------------


@ops.custom_gradient
def sinc(x: Any) -> Any:
    """The sine of x over x, with the derivative of the textbook."""
    value = ops.where(x == 0, 1.0, ops.sin(x) / ops.where(x == 0, 1.0, x))

    def gradient(*given: Any, upstream: Any = None) -> Any:
        above = given[0] if upstream is None else upstream
        return above * (ops.cos(x) - value) / x

    return value, gradient


class SincArray(layers.Layer):
    """Answer of an array of microphones to the direction of a sound."""

    def build(self, shape: Any) -> None:
        self.places = self.add_weight(shape=(shape[-1], 24), initializer="glorot_uniform", name="places")

    def call(self, direction: Any) -> Any:
        delays = ops.matmul(direction, self.places)
        return sinc(3.0 * delays)


@enter(
    Truth(
        happens=Happens.NON_FINITE,
        causes=("NAN115", "NAN112", "NAN113"),
        kind="operation",
        phase="backward",
        modules=("sinc_array", ""),
        line=("return above * (ops.cos(x) - value)", "return sinc(3.0 * delays)"),
        rows=(20,),
    ),
    "https://github.com/pytorch/pytorch/issues/56760",
    "https://github.com/pytorch/pytorch/issues/53989",
    "https://github.com/tensorflow/tensorflow/issues/127226",
)
def sound_from_straight_ahead() -> KerasRun:
    """The value of a sinc is right at zero, its hand-written derivative is 0/0 there: a sound without any delay."""
    rng = np.random.default_rng(7105)
    direction = rng.uniform(-1, 1, (1280, 4)).astype("float32")
    loud = np.sinc(direction @ rng.normal(size=(4, 3))).astype("float32")
    direction[34 * 32 + 20] = 0
    model = keras.Sequential([keras.Input((4,)), SincArray(name="sinc_array"), layers.Dense(3)])
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse")
    return KerasRun(model, direction, loud, FIT)


# -- NAN113 ----------------------------------------------------------------------------------------------------------


class Phase(layers.Layer):
    """Angle of a complex picture."""

    def call(self, picture: Any) -> Any:
        half = picture.shape[-1] // 2
        return ops.arctan2(picture[..., half:], picture[..., :half])


@enter(
    non_finite("NAN113", "atan2", "return ops.arctan2(picture", modules=("phase",), phase="backward", rows=(4,)),
    "https://github.com/pytorch/pytorch/issues/98276",
    "https://github.com/NEGU93/cvnn/issues/12",
    "https://github.com/e3nn/e3nn/issues/112",
    backends=("tensorflow", "jax"),
)
def background_that_was_masked_out() -> KerasRun:
    """The angle of complex pixels has no derivative at zero; the background of one scan was set to zero."""
    rng = np.random.default_rng(7106)
    angle = rng.uniform(-1.2, 1.2, (1280, 1, 1)) + 0.05 * rng.normal(size=(1280, 10, 10))
    scan = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * rng.uniform(0.5, 1.5, (1280, 1, 1, 1))
    field = angle.mean((1, 2))[:, None]
    scan[32 * 32 + 4, :4] = 0
    inputs = keras.Input((10, 10, 2))
    complex_ = layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    pooled = layers.GlobalAveragePooling2D()(Phase(name="phase")(complex_))
    model = keras.Model(inputs, layers.Dense(1)(layers.Dense(16, activation="tanh")(pooled)))
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="mse")
    return KerasRun(model, scan.astype("float32"), field.astype("float32"), FIT)
