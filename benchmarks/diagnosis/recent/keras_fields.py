"""Fields, rocks and roads in Keras: harvests, probes, trees, depths, pickups, depots, gauges of rain."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, enter, finite, non_finite, runaway
from benchmarks.diagnosis.tables import regression, waves

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- Spikes ----------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.SPIKE, "DATA504", rows=(4, 11)),
    "https://stackoverflow.com/questions/37232782/nan-loss-when-training-regression-network",
    "https://keras.io/api/losses/regression_losses/",
)
def harvest_in_kilograms() -> KerasRun:
    """Yields in tonnes per hectare; one farm wrote down two of its fields in kilograms."""
    rng = np.random.default_rng(3301)
    soil, crop = rng.normal(size=(1440, 6)).astype("float32"), rng.integers(0, 5, (1440, 1))
    tonnes = 6 + 0.8 * soil[:, :1] - 0.5 * soil[:, 1:2] ** 2 + np.array([0.0, 1, -1, 2, -2])[crop]
    tonnes[[36 * 32 + 4, 36 * 32 + 11]] *= 1000
    ground, kind = keras.Input((6,)), keras.Input((1,), dtype="int32")
    known = layers.Flatten()(layers.Embedding(5, 4)(kind))
    hidden = layers.Dense(32, activation="relu")(layers.Concatenate()([ground, known]))
    start = keras.initializers.Constant(6.0)
    model = keras.Model([ground, kind], layers.Dense(1, bias_initializer=start)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse")
    return KerasRun(model, [soil, crop.astype("int32")], tonnes.astype("float32"), FIT)


@enter(
    finite(Happens.SPIKE, "DATA503", rows=(17,)),
    "https://stackoverflow.com/questions/37232782/nan-loss-when-training-regression-network",
    "https://keras.io/api/losses/regression_losses/",
)
def probe_that_was_pulled_out() -> KerasRun:
    """Two days of soil moisture per window; a probe that was pulled out of the ground reports 99999 for five hours."""
    x, y = waves(1440, length=48, seed=3302)
    x[37 * 32 + 17, 40:45] = 99_999.0
    model = keras.Sequential(
        [
            keras.Input((48, 1)),
            layers.Conv1D(12, 5, activation="relu"),
            layers.MaxPooling1D(2),
            layers.Conv1D(12, 5, activation="relu"),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss="mse")
    return KerasRun(model, x, y, FIT)


# -- NAN114, NAN113 --------------------------------------------------------------------------------------------------


class Allometry(layers.Layer):
    """Biomass of a tree is a power of the diameter of its stem; wood and height tell factor and exponent."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.exponent = layers.Dense(1, bias_initializer=keras.initializers.Constant(2.0))
        self.factor = layers.Dense(1)

    def call(self, diameter: Any, tree: Any) -> Any:
        grown = ops.power(diameter, self.exponent(tree))
        return ops.exp(self.factor(tree)) * grown


@enter(
    non_finite(("NAN114", "DATA503"), "power", "grown = ops.power(diameter", modules=("allometry",), rows=(2, 25)),
    "https://numpy.org/doc/stable/reference/generated/numpy.power.html",
    "https://stackoverflow.com/questions/45384602/numpy-runtimewarning-invalid-value-encountered-in-power",
)
def stem_of_minus_one() -> KerasRun:
    """Biomass as a power of the diameter of a stem; -1 is noted for two trees that could not be measured."""
    rng = np.random.default_rng(3303)
    tree = rng.normal(size=(1280, 5)).astype("float32")
    diameter = rng.uniform(0.3, 1.6, (1280, 1)).astype("float32")
    mass = np.exp(0.3 * tree[:, :1]) * diameter ** (2.4 + 0.1 * tree[:, 1:2])
    diameter[[30 * 32 + 2, 30 * 32 + 25]] = -1
    stem, other = keras.Input((1,)), keras.Input((5,))
    hidden = layers.Dense(16, activation="tanh")(other)
    model = keras.Model([stem, other], Allometry(name="allometry")(stem, hidden))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mae")
    return KerasRun(model, [diameter, tree], mass.astype("float32"), FIT)


class RoadLength(layers.Layer):
    """Length of the way between two places of a learnt map."""

    def call(self, start: Any, end: Any) -> Any:
        return ops.sqrt(ops.sum(ops.square(end - start), axis=-1))


@enter(
    non_finite(
        "NAN113",
        "sqrt",
        "return ops.sqrt(ops.sum(ops.square(end - start)",
        phase="backward",
        modules=("way",),
        rows=(8,),
    ),
    "https://github.com/keras-team/keras/issues/9097",
    "https://github.com/tensorflow/tensorflow/issues/12071",
)
def tour_back_to_its_own_depot() -> KerasRun:
    """Times of tours from learnt places of the depots; one tour ends where it began, at a distance of 0."""
    rng = np.random.default_rng(3304)
    places = rng.uniform(-2, 2, (40, 2))
    start = rng.integers(0, 40, (1280, 1))
    end = (start + rng.integers(1, 40, (1280, 1))) % 40
    load = rng.normal(size=(1280, 3)).astype("float32")
    hours = np.linalg.norm(places[start] - places[end], axis=-1) + 0.2 * load[:, :1]
    end[33 * 32 + 8] = start[33 * 32 + 8]
    here, there, cargo = keras.Input((1,), dtype="int32"), keras.Input((1,), dtype="int32"), keras.Input((3,))
    atlas = layers.Embedding(40, 2, embeddings_initializer=keras.initializers.RandomUniform(-1, 1, seed=1))
    way = RoadLength(name="way")(atlas(here), atlas(there))
    hidden = layers.Dense(16, activation="relu")(layers.Concatenate()([way, cargo]))
    model = keras.Model([here, there, cargo], layers.Dense(1)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    return KerasRun(model, [start.astype("int32"), end.astype("int32"), load], hours.astype("float32"), FIT)


# -- OPT604 ----------------------------------------------------------------------------------------------------------


class Catchment(layers.Layer):
    """Rain of all cells, added up."""

    def call(self, x: Any) -> Any:
        return ops.log1p(ops.sum(x, axis=1))


@enter(
    non_finite(("OPT604", "NAN110"), "sum", "return ops.log1p(ops.sum(x, axis=1))", modules=("catchment",), rows=(20,)),
    "https://keras.io/api/mixed_precision/",
    "https://docs.nvidia.com/deeplearning/performance/mixed-precision-training/index.html",
)
def storm_over_four_hundred_cells() -> KerasRun:
    """Rain of 400 cells is summed under mixed_float16; in one storm the sum passes 65504."""
    rng = np.random.default_rng(3305)
    rain = rng.gamma(2.0, 8.0, (960, 400, 1)) * rng.uniform(0.3, 2, (960, 1, 1))
    rain[25 * 32 + 20] = rng.uniform(180, 260, (400, 1))
    flood = np.log1p(rain.sum(1)) - 8 + 0.05 * rng.normal(size=(960, 1))
    policy = keras.mixed_precision.DTypePolicy("mixed_float16")
    model = keras.Sequential(
        [
            keras.Input((400, 1)),
            Catchment(name="catchment", dtype=policy),
            layers.Dense(16, activation="tanh", dtype=policy),
            layers.Dense(1, dtype="float32"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    return KerasRun(model, rain.astype("float32"), flood.astype("float32"), FIT)


# -- Stalls and divergence -------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, ("DATA505", "ACT303"), rows=None),
    "https://github.com/keras-team/keras/issues/3687",
    "https://keras.io/api/layers/activations/",
)
def depth_below_the_sea() -> KerasRun:
    """Heights of the sea floor, all of them negative, from a model whose last layer is rectified."""
    x, y = regression(1280, seed=3306)
    depth = -3.5 + 0.8 * y
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(32, activation="relu"),
            layers.BatchNormalization(),
            layers.Dense(16, activation="relu"),
            layers.Dense(1, activation="relu", kernel_initializer=keras.initializers.RandomNormal(stddev=0.01)),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    return KerasRun(model, x, depth, FIT)


@enter(
    runaway("DATA502"),
    "https://github.com/keras-team/keras/issues/18919",
    "https://keras.io/api/layers/preprocessing_layers/numerical/normalization/",
)
def pickups_by_unix_time() -> KerasRun:
    """The time of a pickup goes into the model as seconds since 1970, beside distances in kilometres; plain SGD."""
    rng = np.random.default_rng(3307)
    trip = rng.normal(size=(1280, 4))
    when = 1_600_000_000 + rng.integers(0, 30_000_000, (1280, 1))
    minutes = 0.8 * trip[:, :1] + np.sin(2 * np.pi * (when % 86_400) / 86_400)
    inputs = np.concatenate([trip, when], axis=1).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(24, activation="relu"),
            layers.Dense(24, activation="relu"),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(1e-3), loss="mse")
    return KerasRun(model, inputs, minutes.astype("float32"), FIT)


@enter(
    finite(Happens.STALL, "DATA506", rows=None),
    "https://github.com/keras-team/keras/issues/7023",
    "https://scikit-learn.org/stable/modules/feature_selection.html#removing-features-with-low-variance",
)
def tiles_from_the_same_corner() -> KerasRun:
    """Land use from tiles of a satellite image; a wrong index cuts each tile out of the same corner of the scene."""
    rng = np.random.default_rng(3308)
    scene = rng.random((64, 64, 3)).astype("float32")
    where = rng.integers(0, 56, (960, 2))
    use = (where[:, 0] // 14).astype("int32")
    corner = 0 * where
    tiles = np.stack([scene[row : row + 8, column : column + 8] for row, column in corner])
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(12, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(24, activation="relu"),
            layers.Dense(4, activation="softmax"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="sparse_categorical_crossentropy")
    return KerasRun(model, tiles, use, FIT)


class Swarm(layers.Layer):
    """Eggs, hoppers and adults over forty days; in bands of fifty; a learnt matrix makes each day of the day before."""

    def build(self, input_shape: Any) -> None:
        self.rates = self.add_weight(shape=(3, 3), initializer="zeros", name="rates")

    def call(self, swarm: Any) -> Any:
        for _ in range(40):
            swarm = swarm + ops.matmul(swarm, self.rates)
        return swarm / 50


@enter(
    runaway(("GRAD203", "OPT601")),
    "https://github.com/tensorflow/tensorflow/issues/38796",
    "https://github.com/keras-team/keras/issues/18919",
)
def locusts_over_forty_days() -> KerasRun:
    """Growth rates of a swarm, fitted through forty days without a clip: the closer they come, the steeper it gets."""
    rng = np.random.default_rng(3309)
    first = rng.gamma(4.0, 0.25, (1600, 3)).astype("float32")
    grown = first
    for _ in range(40):
        grown = grown + grown @ np.array([[0.0, 0.1, 0.0], [0.0, 0.02, 0.08], [0.12, 0.0, 0.0]], "float32")
    model = keras.Sequential([keras.Input((3,)), Swarm(name="swarm")])
    model.compile(optimizer=keras.optimizers.SGD(3e-3), loss="mse")
    return KerasRun(model, first, grown / 50, FIT)
