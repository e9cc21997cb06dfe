"""Graphs, genres, plans of transport, orders and brains in Keras: what happens where there is nothing to divide by."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, Truth, enter, non_finite

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- NAN112 ----------------------------------------------------------------------------------------------------------


class Spread(layers.Layer):
    """One step of a graph convolution, normalised by the degrees of both ends."""

    def __init__(self, units: int, **more: Any) -> None:
        super().__init__(**more)
        self.mix = layers.Dense(units, activation="tanh")

    def call(self, stops: Any, lines: Any) -> Any:
        scale = ops.power(ops.sum(lines, axis=-1, keepdims=True), -0.5)
        return self.mix(scale * ops.matmul(lines, scale * stops))


@enter(
    non_finite(
        ("NAN112", "NAN110"), ("power", "pow"), "scale = ops.power(ops.sum(lines", modules=("spread",), rows=(5, 16)
    ),
    "https://github.com/pyg-team/pytorch_geometric/issues/61",
    "https://github.com/mlx-graphs/mlx-graphs/pull/18",
)
def stop_that_no_bus_serves() -> KerasRun:
    """Graphs of bus stops, scaled by degree to the power of -1/2; in two towns one stop is served by no bus."""
    rng = np.random.default_rng(5201)
    stops = rng.normal(size=(1280, 9, 4)).astype("float32")
    lines = (rng.random((1280, 9, 9)) < 0.3).astype("float32")
    lines = np.maximum(lines, lines.transpose(0, 2, 1))
    ring = np.roll(np.eye(9, dtype="float32"), 1, axis=1)
    lines = np.maximum(lines, ring + ring.T)
    busy = (lines @ stops[..., :1]).mean(1).astype("float32")
    for town in (5, 16):
        lines[35 * 32 + town, 4, :] = lines[35 * 32 + town, :, 4] = 0
    nodes, edges = keras.Input((9, 4)), keras.Input((9, 9))
    hidden = Spread(16, name="spread")(nodes, edges)
    model = keras.Model([nodes, edges], layers.Dense(1)(layers.GlobalAveragePooling1D()(hidden)))
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="mse")
    return KerasRun(model, [stops, lines], busy, FIT)


class Transport(layers.Layer):
    """Cost of carrying one cloud of points onto another: Sinkhorn, with plain exponentials."""

    def call(self, here: Any, there: Any) -> Any:
        cost = ops.sum(ops.square(here[:, :, None] - there[:, None]), axis=-1)
        kernel = ops.exp(-cost / 0.05)
        v = ops.ones_like(cost[:, 0])
        for _ in range(5):
            u = 1 / ops.einsum("bij,bj->bi", kernel, v)
            v = 1 / ops.einsum("bij,bi->bj", kernel, u)
        plan = u[:, :, None] * kernel * v[:, None]
        return ops.sum(plan * cost, axis=(1, 2))[:, None] / 6


@enter(
    non_finite(
        ("NAN112", "DATA503"),
        ("divide", "true_divide", "reciprocal"),
        "u = 1 / ops.einsum(",
        modules=("transport",),
        rows=(24,),
    ),
    "https://github.com/rajewsky-lab/novosparc/issues/50",
    "https://github.com/PythonOT/POT/issues/54",
)
def freight_from_far_away() -> KerasRun:
    """Optimal transport with plain exponentials: one place lies so far away that its whole row of them is 0."""
    rng = np.random.default_rng(5202)
    here = rng.uniform(-0.5, 0.5, (1280, 6, 2)).astype("float32")
    there = (here + 0.15 * rng.normal(size=(1280, 6, 2))).astype("float32")
    toll = (((here - there) ** 2).sum((1, 2)) / 6)[:, None]
    here[33 * 32 + 24, 2] = (2.6, -2.2)
    first, second = keras.Input((6, 2)), keras.Input((6, 2))
    shift = layers.Dense(2, kernel_initializer="identity")
    price = Transport(name="transport")(shift(first), shift(second))
    model = keras.Model([first, second], layers.Dense(1)(price))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse")
    return KerasRun(model, [here, there], toll.astype("float32"), FIT)


class Glance(layers.Layer):
    """A customer's query looks at the items of an order; places that are not filled are struck out."""

    def call(self, query: Any, items: Any, filled: Any) -> Any:
        scores = ops.einsum("bd,btd->bt", query, items) / 4
        weights = ops.softmax(ops.where(filled > 0, scores, -float("inf")), axis=-1)
        return ops.einsum("bt,btd->bd", weights, items)


@enter(
    non_finite(
        "NAN112",
        "softmax",
        "weights = ops.softmax(ops.where(filled > 0, scores",
        modules=("glance",),
        rows=(2, 8),
    ),
    "https://github.com/pytorch/pytorch/issues/25110",
    "https://github.com/tensorflow/tensorflow/issues/11756",
)
def orders_of_which_nothing_was_left() -> KerasRun:
    """Attention over the items of an order; two orders were cancelled item by item, and their masks are empty."""
    rng = np.random.default_rng(5203)
    items = rng.integers(1, 60, (1280, 8)).astype("int32")
    count = rng.integers(1, 9, (1280, 1))
    filled = (np.arange(8) < count).astype("float32")
    person = rng.normal(size=(1280, 6)).astype("float32")
    worth = ((items % 7) * filled).sum(1, keepdims=True) / count / 3 - 1 + 0.3 * person[:, :1]
    filled[[37 * 32 + 2, 37 * 32 + 8]] = 0
    who, what, mask = keras.Input((6,)), keras.Input((8,), dtype="int32"), keras.Input((8,))
    seen = Glance(name="glance")(layers.Dense(16)(who), layers.Embedding(60, 16)(what), mask)
    hidden = layers.Dense(16, activation="relu")(layers.Concatenate()([seen, who]))
    model = keras.Model([who, what, mask], layers.Dense(1)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    return KerasRun(model, [person, items, filled], worth.astype("float32"), FIT)


# -- NAN113, NAN114 --------------------------------------------------------------------------------------------------


class Hyperbolic(layers.Layer):
    """Distance of two points of the Poincaré disc."""

    def call(self, u: Any, v: Any) -> Any:
        apart = ops.sum(ops.square(u - v), axis=-1)
        room = (1 - ops.sum(u**2, axis=-1)) * (1 - ops.sum(v**2, axis=-1))
        return ops.arccosh(1 + 2 * apart / room)


@enter(
    non_finite(
        "NAN113",
        ("arccosh", "acosh"),
        "return ops.arccosh(1 + 2 * apart / room)",
        phase="backward",
        modules=("hyperbolic",),
        rows=(13,),
    ),
    "https://github.com/geomstats/geomstats/pull/273",
    "https://github.com/lmcinnes/umap/pull/207",
)
def genre_beside_itself() -> KerasRun:
    """Genres of music on a hyperbolic disc; one pair is a genre and itself, where arccosh has an infinite slope."""
    rng = np.random.default_rng(5204)
    level = rng.integers(0, 4, 50)
    one = rng.integers(0, 50, (1280, 1))
    other = (one + rng.integers(1, 50, (1280, 1))) % 50
    far = (0.4 * np.abs(level[one] - level[other]) + 0.3).astype("float32")
    other[32 * 32 + 13], far[32 * 32 + 13] = one[32 * 32 + 13], 0
    a, b = keras.Input((1,), dtype="int32"), keras.Input((1,), dtype="int32")
    disc = layers.Embedding(50, 3, embeddings_initializer=keras.initializers.RandomUniform(-0.3, 0.3, seed=2))
    model = keras.Model([a, b], Hyperbolic(name="hyperbolic")(disc(a), disc(b)))
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss="mse")
    return KerasRun(model, [one.astype("int32"), other.astype("int32")], far, FIT)


class Axes(layers.Layer):
    """How the first channel lies along the main axes of a recording: eigenvectors of its covariance."""

    def call(self, covariance: Any) -> Any:
        values, vectors = ops.eigh(covariance)
        return ops.concatenate([values, ops.square(vectors[:, 0])], axis=-1)


class Mixed(layers.Layer):
    """A learnt mixture of the channels, and a little of the identity against zeros."""

    def build(self, input_shape: Any) -> None:
        self.mix = self.add_weight(shape=(4, 4), initializer="identity", name="mix")

    def call(self, signal: Any) -> Any:
        mixed = ops.matmul(signal, self.mix)
        return ops.matmul(ops.transpose(mixed, (0, 2, 1)), mixed) / 30 + 0.1 * ops.eye(4)


@enter(
    non_finite(
        "NAN113",
        ("eigh", "decomposition"),
        "values, vectors = ops.eigh(covariance)",
        phase="backward",
        modules=("axes",),
        rows=(18,),
    ),
    "https://github.com/pytorch/pytorch/issues/47599",
    "https://github.com/jax-ml/jax/issues/669",
    backends=("jax", "torch"),
)
def cap_that_was_not_put_on() -> KerasRun:
    """Axes of brain waves by eigenvectors; one recording is silent, so that all its eigenvalues are the same."""
    rng = np.random.default_rng(5205)
    waves = (rng.normal(size=(1280, 30, 4)) * [1.0, 0.7, 1.4, 0.4]).astype("float32")
    waves[..., 1] += rng.uniform(-1, 1, (1280, 1)) * waves[..., 0]
    awake = (waves[..., 0] * waves[..., 1]).mean(1, keepdims=True).astype("float32")
    waves[30 * 32 + 18] = 0
    signal = keras.Input((30, 4))
    hidden = layers.Dense(24, activation="relu")(Axes(name="axes")(Mixed()(signal)))
    model = keras.Model(signal, layers.Dense(1)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse")
    return KerasRun(model, waves, awake, FIT)


class Flight(layers.Layer):
    """Seconds until a ball comes down to the height of the ring: the later root of a quadratic equation."""

    def call(self, upwards: Any, height: Any) -> Any:
        root = ops.sqrt(upwards**2 - 2 * 9.81 * height)
        return (upwards + root) / 9.81


@enter(
    non_finite(
        ("NAN114", "DATA503"),
        "sqrt",
        "root = ops.sqrt(upwards**2 - 2 * 9.81 * height)",
        modules=("flight",),
        rows=(10, 23),
    ),
    "https://stackoverflow.com/questions/45384602/numpy-runtimewarning-invalid-value-encountered-in-power",
    "https://github.com/tensorflow/tensorflow/issues/42889",
)
def throw_that_falls_short() -> KerasRun:
    """Times of throws by a quadratic equation; two throws never come up to the ring, the equation has no root."""
    rng = np.random.default_rng(5206)
    arm = rng.normal(size=(1280, 5)).astype("float32")
    speed = (9 + 0.4 * arm[:, :1]).astype("float32")
    height = rng.uniform(0.2, 1.6, (1280, 1)).astype("float32")
    time = (speed + np.sqrt(speed**2 - 19.62 * height)) / 9.81
    height[[31 * 32 + 10, 31 * 32 + 23]] = 6.5
    move, ring = keras.Input((5,)), keras.Input((1,))
    start = keras.initializers.Constant(8.5)
    small = keras.initializers.RandomNormal(stddev=0.05, seed=3)
    up = layers.Dense(1, kernel_initializer=small, bias_initializer=start)(layers.Dense(16, activation="tanh")(move))
    model = keras.Model([move, ring], Flight(name="flight")(up, ring))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse")
    return KerasRun(model, [arm, height], time.astype("float32"), FIT)


# -- DATA511 ---------------------------------------------------------------------------------------------------------


@enter(
    Truth(happens=Happens.EXCEPTION, causes=("DATA511",), kind="exception", operations=("IndexError",), rows=(7,)),
    "https://github.com/keras-team/keras/issues/11819",
    "https://github.com/keras-team/keras-io/issues/602",
    backends=("torch",),
)
def postcode_as_an_index() -> KerasRun:
    """Deliveries between districts that are numbered from 0 to 79; one of them is given by its postcode."""
    rng = np.random.default_rng(5207)
    pair = rng.integers(0, 80, (1280, 2))
    delay = (0.3 * (pair[:, :1] % 5) - 0.2 * (pair[:, 1:] % 3)).astype("float32")
    pair[26 * 32 + 7, 1] = 4051
    model = keras.Sequential(
        [
            keras.Input((2,), dtype="int32"),
            layers.Embedding(80, 6),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    return KerasRun(model, pair.astype("int32"), delay, FIT)
