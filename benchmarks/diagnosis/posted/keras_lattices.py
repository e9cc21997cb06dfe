"""Science in Keras: molecules, heat in a bar, deep kernels, sensors, oscillators, coordinates that become pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, Truth, enter, finite, non_finite, runaway

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- NAN113 ----------------------------------------------------------------------------------------------------------


class Relax(layers.Layer):
    """Moves the outer atoms of a triple along their bonds, by as much as the charges say."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.stretch = layers.Dense(2, activation="tanh")

    def call(self, places: Any, charges: Any) -> Any:
        factor = ops.expand_dims(1 + 0.3 * self.stretch(charges), -1)
        return (places[:, ::2] - places[:, 1:2]) * factor


class BondAngle(layers.Layer):
    """The angle between two bonds."""

    def call(self, bonds: Any) -> Any:
        length = ops.sqrt(ops.sum(ops.square(bonds), axis=-1))
        cosine = ops.sum(bonds[:, 0] * bonds[:, 1], axis=-1) / (length[:, 0] * length[:, 1])
        return ops.concatenate([length, ops.arccos(ops.clip(cosine, -1.0, 1.0))[:, None]], axis=-1)


@enter(
    non_finite(
        "NAN113",
        "acos",
        "return ops.concatenate([length, ops.arccos",
        phase="backward",
        modules=("angle",),
        rows=(1, 28),
    ),
    "https://github.com/atomistic-machine-learning/schnetpack/pull/87",
    "https://github.com/openmm/openmm/issues/1672",
    "https://github.com/espressomd/espresso/pull/5347",
)
def carbon_dioxide_among_the_waters() -> KerasRun:
    """Bond angles by arccos of a clipped cosine; in two molecules of the batch all three atoms lie on a line."""
    rng = np.random.default_rng(2401)
    places = rng.normal(size=(1280, 3, 3)).astype("float32")
    charges = rng.normal(size=(1280, 3)).astype("float32")
    for row in (1, 28):
        places[31 * 32 + row] = ((-1.0, 0, 0), (0, 0, 0), (1.0, 0, 0))
    bonds = places[:, ::2] - places[:, 1:2]
    cosine = (bonds[:, 0] * bonds[:, 1]).sum(-1) / np.prod(np.linalg.norm(bonds, axis=-1), axis=-1)
    energy = (np.arccos(cosine) - 1.9) ** 2 + 0.2 * charges.prod(-1)
    where, what = keras.Input((3, 3)), keras.Input((3,))
    seen = BondAngle(name="angle")(Relax(name="relax")(where, what))
    hidden = layers.Dense(24, activation="silu")(layers.Concatenate()([seen, what]))
    model = keras.Model([where, what], layers.Dense(1)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mae")
    return KerasRun(model, [places, charges], energy.astype("float32")[:, None], FIT)


class PerWindow(layers.Layer):
    """Standardises each channel of each window, with a learnt scale."""

    def build(self, input_shape: Any) -> None:
        self.gain = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="gain")

    def call(self, x: Any) -> Any:
        centred = x - ops.mean(x, axis=1, keepdims=True)
        deviation = ops.sqrt(ops.mean(ops.square(centred), axis=1, keepdims=True))
        return self.gain * centred / (deviation + 1e-5)


@enter(
    non_finite(
        "NAN113", "sqrt", "deviation = ops.sqrt(ops.mean(", phase="backward", modules=("per_window",), rows=(7, 8, 24)
    ),
    "https://github.com/danieltan07/tensorflow-cycle-gan/issues/1",
    "https://github.com/facebookresearch/fastMRI/issues/139",
    "https://github.com/keras-team/keras/issues/2960",
    backends=("jax", "torch"),
)
def sensor_that_was_unplugged() -> KerasRun:
    """Windows are standardised behind a convolution; three are zero throughout, and a root of 0 has no slope."""
    rng = np.random.default_rng(2402)
    pace = rng.uniform(0.2, 1.5, (1280, 1))
    signal = np.sin(pace * np.arange(40) + rng.uniform(0, 6, (1280, 1))) + 0.1 * rng.normal(size=(1280, 40))
    signal[[34 * 32 + row for row in (7, 8, 24)]] = 0
    model = keras.Sequential(
        [
            keras.Input((40, 1)),
            layers.Conv1D(8, 5, use_bias=False),
            PerWindow(name="per_window"),
            layers.Conv1D(8, 5, activation="swish"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse")
    return KerasRun(model, signal.astype("float32")[:, :, None], pace.astype("float32"), FIT)


# -- Cholesky: NAN114 ------------------------------------------------------------------------------------------------


def kernel_likelihood(y_true: Any, y_pred: Any) -> Any:
    """Negative marginal likelihood of a batch under a squared exponential kernel of its features."""
    apart = ops.sum(ops.square(y_pred[:, None] - y_pred[None]), axis=-1)
    factor = ops.cholesky(ops.exp(-0.5 * apart))
    white = ops.solve_triangular(factor, y_true, lower=True)
    return 0.5 * ops.mean(ops.square(white)) + ops.mean(ops.log(ops.diagonal(factor)))


def soils() -> Iterator[Any]:
    """Batches of 12 samples of soil, and what was measured of each."""
    rng = np.random.default_rng(2403)
    for number in range(45):
        x = rng.normal(size=(12, 10)).astype("float32")
        if number == 33:
            x[1] = x[0]
        yield x, np.sin(2 * x[:, :1]) + 0.05 * rng.normal(size=(12, 1)).astype("float32")


def _no_factor(*errors: str) -> Truth:
    return Truth(happens=Happens.EXCEPTION, causes=("NAN114", "NAN112"), kind="exception", operations=errors, rows=None)


@enter(
    _no_factor("InvalidArgumentError"),
    "https://github.com/GPflow/GPflow/issues/900",
    "https://github.com/SheffieldML/GPy/issues/523",
    "https://github.com/meta-pytorch/botorch/issues/2828",
    by_backend={
        "torch": _no_factor("ValueError", "_LinAlgError", "LinAlgError"),
        "jax": non_finite(("NAN114", "NAN112"), "cholesky", "factor = ops.cholesky(ops.exp(", modules=("",), rows=None),
    },
)
def sample_that_was_entered_twice() -> KerasRun:
    """A deep kernel without any noise on its diagonal; two samples of one batch are the same."""
    model = keras.Sequential(
        [keras.Input((10,), batch_size=12), layers.Dense(24, activation="tanh"), layers.Dense(6, name="features")]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=kernel_likelihood)
    return KerasRun(model, soils(), None, {"steps_per_epoch": 45})


# -- DATA502, ACT304, GRAD203 ----------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, ("DATA502", "ACT302"), rows=None),
    "https://github.com/ehsanhaghighat/sciann/issues/73",
    "https://github.com/benmoseley/harmonic-oscillator-pinn/issues/6",
)
def bar_that_is_heated_since_1970() -> KerasRun:
    """A physics-informed network gets millimetres and Unix times of one day: every tanh is at the same stop."""
    rng = np.random.default_rng(2404)
    place, time = rng.uniform(0, 3000, (4800, 1)), rng.uniform(0, 86_400, (4800, 1))
    warmth = np.sin(np.pi * place / 3000) * np.exp(-time / 40_000) + 0.02 * rng.normal(size=place.shape)
    warmth, time = (warmth - warmth.mean()) / warmth.std(), time + 1_700_000_000
    network = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(24, activation="tanh"),
            layers.Dense(24, activation="tanh"),
            layers.Dense(1, kernel_initializer="zeros"),
        ]
    )
    x, t = keras.Input((1,)), keras.Input((1,))

    def at(dx: float, dt: float) -> Any:
        return network(layers.Concatenate()([x + dx, t + dt]))

    here = at(0, 0)
    flow = (at(0, 60.0) - here) / 60.0 - 22.8 * (at(30.0, 0) + at(-30.0, 0) - 2 * here) / 900.0
    model = keras.Model([x, t], [here, flow])
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=["mse", "mse"], loss_weights=[1.0, 100.0])
    inputs = [place.astype("float32"), time.astype("float32")]
    return KerasRun(
        model, inputs, [warmth.astype("float32"), np.zeros((4800, 1), "float32")], {**FIT, "batch_size": 96}
    )


class Sine(layers.Layer):
    """A dense layer under a fast sine."""

    def __init__(self, units: int, fast: float = 3.0, **more: Any) -> None:
        super().__init__(**more)
        self.fast = fast
        self.inner = layers.Dense(units, kernel_initializer=keras.initializers.RandomNormal(stddev=1.0))

    def call(self, x: Any) -> Any:
        return ops.sin(self.fast * self.inner(x))


@enter(
    finite(Happens.STALL, "ACT304"),
    "https://github.com/lucidrains/siren-pytorch/issues/1",
    "https://github.com/NVlabs/tiny-cuda-nn/issues/216",
    "https://github.com/vsitzmann/siren/issues/4",
)
def sines_from_a_standard_normal() -> KerasRun:
    """Coordinates to brightness by layers of fast sines whose weights have deviation 1: noise that fits nothing."""
    rng = np.random.default_rng(2405)
    where = rng.uniform(-1, 1, (3840, 2)).astype("float32")
    bright = np.sin(4 * where[:, :1]) * np.cos(3 * where[:, 1:]) + 0.5 * where[:, :1]
    model = keras.Sequential(
        [keras.Input((2,)), Sine(32), Sine(32), Sine(32), layers.Dense(1, kernel_initializer="zeros")]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
    return KerasRun(model, where, bright, {**FIT, "batch_size": 64})


class Resonators(layers.Layer):
    """The cell of a bank of linear recurrences, one factor for each channel."""

    def __init__(self, units: int, **more: Any) -> None:
        super().__init__(**more)
        self.state_size = self.output_size = units

    def build(self, input_shape: Any) -> None:
        around_one = keras.initializers.RandomUniform(0.9, 1.1, seed=4)
        self.factor = self.add_weight(shape=(self.state_size,), initializer=around_one, name="factor")

    def call(self, x: Any, states: Any) -> Any:
        state = self.factor * states[0] + x
        return state, [state]


def seismograms() -> Iterator[Any]:
    """Sixteen records in each batch: 12 or 16 moments, and from batch 30 on 160 of them."""
    rng = np.random.default_rng(2406)
    for number in range(40):
        length = (12, 16)[number % 2] if number < 30 else 160
        x = rng.normal(size=(16, length, 3)).astype("float32")
        yield x, x[:, -6:, 0].sum(1, keepdims=True) / 3


@enter(
    runaway(("GRAD203", "ACT304")),
    "https://github.com/Marcovaldong/lstmp.pytorch/issues/2",
    "https://github.com/dragen1860/Deep-Learning-with-TensorFlow-book/issues/165",
)
def records_ten_times_as_long() -> KerasRun:
    """Linear recurrences with factors up to 1.1, unclipped: harmless over 16 moments, a million-fold over 160."""
    model = keras.Sequential([layers.Dense(12), layers.RNN(Resonators(12)), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(2e-3), loss="mse")
    return KerasRun(model, seismograms(), None, {"steps_per_epoch": 40})
