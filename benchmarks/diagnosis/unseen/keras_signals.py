"""Sound, light and weather: scans, spectra, ratios in decibels, colours, and readings as they came."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, bad_batch, enter, finite, non_finite, runaway

FIT: dict[str, Any] = {"batch_size": 24, "epochs": 1, "shuffle": False}


# -- NAN110 ----------------------------------------------------------------------------------------------------------


class DecayingScan(layers.Layer):
    """An exponential memory over time, computed by two cumulative sums instead of a loop."""

    def build(self, input_shape: Any) -> None:
        self.pace = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="pace")

    def call(self, x: Any) -> Any:
        decay = ops.cumsum(-ops.softplus(self.pace) * ops.ones_like(x), axis=1)
        return ops.exp(decay) * ops.cumsum(x * ops.exp(-decay), axis=1)


def clips() -> Iterator[Any]:
    """Clips of about 40 samples, then of 200: which of two tones is louder at their end?"""
    rng = np.random.default_rng(601)
    for number in range(50):
        length = (40, 44)[number % 2] if number < 31 else 200
        x = rng.normal(size=(24, length, 4)).astype("float32")
        yield x, (x[:, -5:, 0].sum(1) > x[:, -5:, 1].sum(1)).astype("float32")[:, None]


@enter(
    non_finite("NAN110", "exp", "return ops.exp(decay) * ops.cumsum(x * ops.exp(-decay)", modules=("scan",)),
    "https://github.com/MzeroMiko/mamba-mini/issues/6",
    "https://github.com/johnma2006/mamba-minimal/issues/18",
    "https://github.com/vllm-project/vllm/pull/37501",
)
def memory_by_two_sums() -> KerasRun:
    """A scan as a quotient of cumulative sums: exp of the sum of all decays overflows as soon as a clip is long."""
    inputs = keras.Input((None, 4))
    remembered = DecayingScan(name="scan")(layers.Dense(12, activation="tanh")(inputs))
    model = keras.Model(inputs, layers.Dense(1)(remembered[:, -1]))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=loss)
    return KerasRun(model, clips(), None, {"steps_per_epoch": 50})


# -- NAN111 ----------------------------------------------------------------------------------------------------------


def negative_sdr(y_true: Any, y_pred: Any) -> Any:
    """Ratio of signal and distortion in decibels, to be made large."""
    signal = ops.sum(ops.square(y_true), axis=(1, 2))
    distortion = ops.sum(ops.square(y_true - y_pred), axis=(1, 2)) + 1e-7
    return -10 * ops.log10(signal / distortion)


@enter(
    non_finite("NAN111", ("log10", "log"), "return -10 * ops.log10(signal / distortion)", modules=("",), rows=(6,)),
    "https://github.com/csteinmetz1/auraloss/issues/25",
    "https://github.com/csteinmetz1/auraloss/issues/63",
)
def song_without_drums() -> KerasRun:
    """Separation of a drum under a ratio in decibels; in one clip there is no drum, and the ratio is 0."""
    rng = np.random.default_rng(602)
    time = np.arange(64)
    beat = np.exp(-((time - rng.uniform(5, 59, (1200, 1))) ** 2) / 8)
    tone = np.sin(rng.uniform(0.3, 1.2, (1200, 1)) * time + rng.uniform(0, 6, (1200, 1)))
    beat[33 * 24 + 6] = 0
    model = keras.Sequential(
        [
            keras.Input((64, 1)),
            layers.Conv1D(12, 9, padding="same", activation="relu"),
            layers.Conv1D(1, 9, padding="same"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=negative_sdr)
    mixture = (beat + 0.4 * tone).astype("float32")[:, :, None]
    return KerasRun(model, mixture, beat.astype("float32")[:, :, None], FIT)


# -- NAN113 ----------------------------------------------------------------------------------------------------------


class Magnitude(layers.Layer):
    """Length of a complex filter's answer, with learnt filters."""

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.real, self.imaginary = layers.Dense(filters, use_bias=False), layers.Dense(filters, use_bias=False)

    def build(self, input_shape: Any) -> None:
        self.real.build(input_shape)
        self.imaginary.build(input_shape)

    def call(self, x: Any) -> Any:
        return ops.sqrt(self.real(x) ** 2 + self.imaginary(x) ** 2)


@enter(
    non_finite(
        "NAN113",
        "sqrt",
        "return ops.sqrt(self.real(x) ** 2 + self.imaginary(x) ** 2)",
        phase="backward",
        modules=("magnitude",),
        rows=(0, 15),
    ),
    "https://github.com/pytorch/audio/issues/993",
    "https://github.com/KinWaiCheuk/nnAudio/issues/138",
    "https://github.com/speechbrain/speechbrain/pull/184",
)
def clips_of_a_muted_microphone() -> KerasRun:
    """Magnitude of a learnt complex filterbank; two clips are silent, and the root has no slope at 0."""
    rng = np.random.default_rng(603)
    pitch = rng.uniform(0.2, 1.4, (1200, 1))
    sound = np.sin(pitch * np.arange(32) + rng.uniform(0, 6, (1200, 1))) + 0.1 * rng.normal(size=(1200, 32))
    sound[28 * 24] = sound[28 * 24 + 15] = 0
    inputs = keras.Input((32,))
    hidden = layers.Dense(16, activation="gelu")(Magnitude(20, name="magnitude")(inputs))
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    model.compile(optimizer=keras.optimizers.Nadam(2e-3), loss="mae")
    return KerasRun(model, sound.astype("float32"), pitch.astype("float32"), FIT)


class ScreenColour(layers.Layer):
    """Linear light to the values that a screen is sent (sRGB)."""

    def call(self, light: Any) -> Any:
        curve = 1.055 * ops.power(light, 1 / 2.4) - 0.055
        return ops.where(light <= 0.0031308, 12.92 * light, curve)


@enter(
    non_finite(
        ("NAN113", "NAN114"),
        "power",
        "curve = 1.055 * ops.power(light, 1 / 2.4) - 0.055",
        phase=None,
        modules=("screen",),
        rows=None,
    ),
    "https://github.com/kornia/kornia/pull/900",
    "https://github.com/hyprwm/Hyprland/pull/15793",
    "https://github.com/tensorflow/tensorflow/issues/2295",
)
def light_below_black() -> KerasRun:
    """The sRGB curve behind `where`: light below 0 takes the straight branch, and the NaN of the other comes back."""
    rng = np.random.default_rng(604)
    scene = rng.normal(size=(2400, 10)).astype("float32")
    light = np.clip(0.25 + 0.2 * np.tanh(scene @ rng.normal(size=(10, 3)) / 2), 0, 1)
    screen = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055).astype("float32")
    small = keras.initializers.RandomNormal(stddev=0.005)
    inputs = keras.Input((10,))
    predicted = layers.Dense(3, kernel_initializer=small, bias_initializer=keras.initializers.Constant(0.5))(inputs)
    model = keras.Model(inputs, ScreenColour(name="screen")(predicted))
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="mse")
    return KerasRun(model, scene, screen, FIT)


# -- OPT604 ----------------------------------------------------------------------------------------------------------


class Neighbours(layers.Layer):
    """Weights stations by the inverse square of their distance."""

    def __init__(self, stations: np.ndarray, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stations = stations

    def build(self, input_shape: Any) -> None:
        self.reading = self.add_weight(shape=(len(self.stations), 8), initializer="glorot_uniform", name="reading")

    def call(self, place: Any) -> Any:
        stations = ops.cast(self.stations, place.dtype)
        squared = ops.sum(ops.square(ops.expand_dims(place, 1) - stations), axis=-1)
        weight = 1.0 / (squared + 1e-6)
        return ops.matmul(weight / ops.sum(weight, axis=-1, keepdims=True), self.reading)


@enter(
    non_finite(
        ("OPT604", "NAN110", "NAN112"),
        ("divide", "reciprocal"),
        "weight = 1.0 / (squared + 1e-6)",
        modules=("neighbours",),
        rows=(20,),
    ),
    "https://github.com/chainer/chainer/pull/7745",
    "https://github.com/pytorch/pytorch/issues/32137",
    "https://github.com/zju3dv/LoFTR/issues/285",
)
def house_beside_the_station() -> KerasRun:
    """Inverse distances under mixed_float16: one house stands at a station, and 1 / 0.000001 is beyond 65504."""
    rng = np.random.default_rng(605)
    stations = rng.uniform(-1, 1, (14, 2)).astype("float16").astype("float32")
    place = rng.uniform(-1, 1, (1200, 2)).astype("float32")
    rain = np.sin(2 * place[:, :1]) + place[:, 1:] ** 2
    near = np.square(place[:, None] - stations).sum(-1).min(1) < 1e-3
    place[near] += 0.06
    place[31 * 24 + 20] = stations[5]
    inputs = keras.Input((2,))
    hidden = Neighbours(stations, name="neighbours", dtype="mixed_float16")(inputs)
    model = keras.Model(inputs, layers.Dense(1, dtype="float32")(hidden))
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse")
    return KerasRun(model, place, rain.astype("float32"), FIT)


# -- DATA501, DATA502, DATA504 ---------------------------------------------------------------------------------------


@enter(
    bad_batch(None, (4, 18)),
    "https://github.com/DOI-USGS/ISIS3/pull/4107",
    "https://github.com/desihub/desispec/issues/1001",
)
def darker_than_the_dark_frame() -> KerasRun:
    """A dark frame is subtracted and the root taken; where a pixel was darker than the frame, that is NaN."""
    rng = np.random.default_rng(606)
    counts = rng.poisson(80, (1200, 36)).astype("float32")
    is_star = rng.random(1200) < 0.5
    counts[is_star, 14:18] += 40
    dark = np.full(36, 20.0, "float32")
    counts[26 * 24 + 4, 30] = counts[26 * 24 + 18, 2] = 12
    with np.errstate(invalid="ignore"):
        calibrated = np.sqrt(counts - dark) - np.sqrt(60)
    model = keras.Sequential([keras.Input((36,)), layers.Dense(16, activation="relu"), layers.Dense(1)])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    return KerasRun(model, calibrated.astype("float32"), is_star.astype("float32")[:, None], FIT)


@enter(
    runaway("DATA502"),
    "https://github.com/JusperLee/Dual-Path-RNN-Pytorch/issues/16",
    "https://github.com/dscripka/openWakeWord/issues/295",
)
def samples_of_sixteen_bits() -> KerasRun:
    """A recording as the file has it, from -32768 to 32767, into convolutions, at a rate that was cut often."""
    rng = np.random.default_rng(607)
    pitch = rng.uniform(0.1, 0.9, (1200, 1))
    sound = 9000 * np.sin(pitch * np.arange(80) + rng.uniform(0, 6, (1200, 1))) + 500 * rng.normal(size=(1200, 80))
    model = keras.Sequential(
        [
            keras.Input((80, 1)),
            layers.Conv1D(8, 7, activation="relu"),
            layers.Conv1D(8, 7, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(1e-7), loss="mse")
    return KerasRun(model, sound.astype("int16").astype("float32")[:, :, None], pitch.astype("float32"), FIT)


@enter(
    finite(Happens.SPIKE, "DATA504", rows=tuple(range(9, 15))),
    "https://github.com/Common-Longitudinal-ICU-data-Format/CLIF-MIMIC/issues/30",
    "https://github.com/MIT-LCP/eicu-code/issues/144",
)
def six_temperatures_in_kelvin() -> KerasRun:
    """Temperatures in degrees Celsius; those of one station are in kelvin."""
    rng = np.random.default_rng(608)
    weather = rng.normal(size=(1440, 8)).astype("float32")
    celsius = (6 * weather[:, :1] - 4 * weather[:, 1:2] * weather[:, 2:3] + 3).astype("float32")
    celsius[40 * 24 + 9 : 40 * 24 + 15] += 273.15
    inputs = keras.Input((8,))
    hidden = layers.Dense(32, activation="elu")(inputs)
    outputs = layers.Dense(1)(layers.Dense(32, activation="elu")(hidden))
    model = keras.Model(inputs, outputs)
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse")
    return KerasRun(model, weather, celsius, FIT)
