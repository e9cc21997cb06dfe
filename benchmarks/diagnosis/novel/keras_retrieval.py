"""Recommenders, texts and capsules in Keras, of which one operation leaves the numbers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import KerasRun, enter, non_finite
from benchmarks.diagnosis.tables import digits

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


# -- NAN110: overflow ------------------------------------------------------------------------------------------------


class InBatchSoftmax(layers.Layer):
    """Every user of the batch chooses among the items of the batch; returns the cost of each choice."""

    def call(self, pair: Any) -> Any:
        users, items = pair
        weight = ops.exp(ops.matmul(users, ops.transpose(items)) / 0.1)
        return -ops.log(ops.diagonal(weight) / ops.sum(weight, axis=1))


def tower(inputs: int, name: str) -> keras.Model:
    return keras.Sequential([keras.Input((inputs,)), layers.Dense(32, activation="relu"), layers.Dense(16)], name=name)


def what_came_out(y_true: Any, y_pred: Any) -> Any:
    return ops.mean(y_pred)


@enter(
    non_finite(
        ("NAN110", "DATA503"), "exp", "weight = ops.exp(ops.matmul(users", modules=("in_batch_softmax",), rows=(13,)
    ),
    "https://github.com/huggingface/sentence-transformers/issues/2774",
    "https://github.com/tfzhou/ContrastiveSeg/issues/20",
)
def towers_that_are_never_brought_to_length_one() -> KerasRun:
    """A two-tower recommender: dot products over a temperature of 0.1 are exponentiated, also a crawler's."""
    rng = np.random.default_rng(1)
    taste = rng.normal(size=(1280, 6))
    user = (taste @ rng.normal(size=(6, 12)) / 6 + 0.05 * rng.normal(size=(1280, 12))).astype("float32")
    item = (taste @ rng.normal(size=(6, 10)) / 6 + 0.05 * rng.normal(size=(1280, 10))).astype("float32")
    user[34 * 32 + 13] *= 200
    left, right = keras.Input((12,)), keras.Input((10,))
    cost = InBatchSoftmax(name="in_batch_softmax")([tower(12, "users")(left), tower(10, "items")(right)])
    model = keras.Model([left, right], cost)
    model.compile(optimizer=keras.optimizers.Adam(4e-3), loss=what_came_out)
    return KerasRun(model, [user, item], np.zeros((1280,), "float32"), FIT)


class GeometricMean(layers.Layer):
    """Geometric mean of the counts of each shelf, beside the counts."""

    def call(self, counts: Any) -> Any:
        mean = ops.power(ops.prod(counts, axis=-1, keepdims=True), 1.0 / counts.shape[-1])
        return ops.concatenate([ops.log(counts), mean / 10.0], axis=-1)


@enter(
    non_finite(
        "NAN110", ("prod", "product"), "mean = ops.power(ops.prod(counts", modules=("geometric_mean",), rows=(6, 17)
    ),
    "https://github.com/simple-statistics/simple-statistics/issues/171",
    "https://github.com/jstat/jstat/issues/280",
)
def geometric_mean_as_a_product() -> KerasRun:
    """The geometric mean of forty counts is taken as the root of their product; in two large shops that overflows."""
    rng = np.random.default_rng(2)
    size = rng.normal(size=(1280, 1)).clip(-1.5, 0.9)
    for row in (6, 17):
        size[30 * 32 + row] = 2.8
    counts = np.ceil(np.exp(1.4 + 0.4 * size + 0.3 * rng.normal(size=(1280, 40)).clip(-2, 2))).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((40,)),
            GeometricMean(name="geometric_mean"),
            layers.Dense(16, activation="relu"),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse")
    return KerasRun(model, counts, size.astype("float32"), FIT)


# -- NAN111: logarithm of zero ---------------------------------------------------------------------------------------


class SharpAttention(layers.Layer):
    """Pools the words of a sentence; a penalty on the entropy makes the attention sharp."""

    def build(self, input_shape: Any) -> None:
        self.score = layers.Dense(1)
        self.score.build((*input_shape[:2], 24))

    def call(self, words: Any, tokens: Any) -> Any:
        score = ops.squeeze(self.score(ops.tanh(words)), -1)
        weight = ops.softmax(ops.where(tokens > 0, score, -1e9), axis=-1)
        entropy = -ops.sum(weight * ops.log(weight), axis=-1)
        self.add_loss(1e-2 * ops.mean(entropy))
        return ops.sum(weight[..., None] * words, axis=1)


@enter(
    non_finite("NAN111", "log", "entropy = -ops.sum(weight * ops.log(weight)", modules=("pooling",), rows=(19,)),
    "https://github.com/stevezheng23/reading_comprehension_tf/pull/69",
    "https://github.com/hwalsuklee/tensorflow-mnist-VAE/issues/4",
)
def entropy_of_an_attention_over_padding() -> KerasRun:
    """The entropy of attention weights takes the logarithm of each; padding has a weight of exactly zero."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(1, 60, (1280, 12))
    topic = (np.sum(tokens < 25, axis=1) > 5).astype("int32")
    tokens[29 * 32 + 19, 8:] = 0
    ids = keras.Input((12,), dtype="int32")
    words = layers.Embedding(60, 24)(ids)
    pooled = SharpAttention(name="pooling")(words, ids)
    model = keras.Model(ids, layers.Dense(2)(layers.Dense(16, activation="relu")(pooled)))
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=SPARSE)
    return KerasRun(model, tokens.astype("int32"), topic, FIT)


# -- NAN112: division by zero ----------------------------------------------------------------------------------------


class LinearAttention(layers.Layer):
    """Attention without a softmax: rectified queries and keys, in time linear in the length."""

    def build(self, input_shape: Any) -> None:
        units = input_shape[-1]
        self.query, self.key, self.value = (
            self.add_weight(shape=(units, units), initializer="glorot_uniform", name=name) for name in "qkv"
        )

    def call(self, x: Any) -> Any:
        query, key = ops.relu(ops.matmul(x, self.query)), ops.relu(ops.matmul(x, self.key))
        memory = ops.einsum("btd,bte->bde", key, ops.matmul(x, self.value))
        share = ops.einsum("btd,bd->bt", query, ops.sum(key, axis=1))
        return x + ops.einsum("btd,bde->bte", query, memory) / share[..., None]


@enter(
    non_finite("NAN112", "divide", "query, memory) / share[..., None]", modules=("linear_attention",), rows=(3,)),
    "https://github.com/lucidrains/performer-pytorch/issues/9",
    "https://github.com/cpcp1998/PermuteFormer/issues/2",
)
def linear_attention_over_a_frame_of_silence() -> KerasRun:
    """Linear attention divides by the sum of rectified products; a frame of zeros has nothing to divide by."""
    rng = np.random.default_rng(4)
    kind = rng.integers(0, 3, 1280)
    centre = rng.normal(size=(3, 32))
    frames = (centre[kind][:, None] + 1.5 * rng.normal(size=(1280, 10, 32))).astype("float32")
    frames[33 * 32 + 3, 6] = 0
    model = keras.Sequential(
        [
            keras.Input((10, 32)),
            LinearAttention(name="linear_attention"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss=SPARSE)
    return KerasRun(model, frames, kind, FIT)


class Capsules(layers.Layer):
    """Eight capsules of six values each, squashed to lengths below one."""

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(shape=(input_shape[-1], 48), initializer="glorot_uniform", name="kernel")

    def call(self, x: Any) -> Any:
        pose = ops.reshape(ops.matmul(x, self.kernel), (-1, 8, 6))
        squared = ops.sum(ops.square(pose), axis=-1, keepdims=True)
        return squared / (1.0 + squared) * (pose / ops.sqrt(squared))


@enter(
    non_finite(
        "NAN112", "divide", "return squared / (1.0 + squared) * (pose / ops.sqrt", modules=("capsules",), rows=(25,)
    ),
    "https://github.com/jindongwang/Pytorch-CapsuleNet/issues/7",
    "https://github.com/ageron/handson-ml/issues/173",
)
def capsules_that_see_an_empty_field() -> KerasRun:
    """A capsule's pose is divided by its own length; for an empty picture all poses are zero."""
    images, labels = digits(1280)
    images[26 * 32 + 25] = 0
    model = keras.Sequential([keras.Input((64,)), Capsules(name="capsules"), layers.Flatten(), layers.Dense(10)])
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=SPARSE)
    return KerasRun(model, images, labels, FIT)
