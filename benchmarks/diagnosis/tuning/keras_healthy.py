"""Healthy and borderline runs in Keras: what looks wrong in them is meant, or harmless."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.diagnosis.program import KerasRun, enter, healthy
from benchmarks.diagnosis.tables import digits, regression, two_blobs

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 2, "shuffle": False}


def classifier(*hidden: Any, optimizer: Any = None) -> keras.Model:
    model = keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10, dtype="float32")])
    model.compile(
        optimizer=optimizer or keras.optimizers.Adam(3e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


@enter(healthy(), "https://github.com/tensorflow/tensorflow/pull/59657")
def keras_causal_attention() -> KerasRun:
    """Multi-head attention with a causal mask."""
    inputs = keras.Input((64,))
    rows = layers.Reshape((8, 8))(inputs)
    mixed = layers.MultiHeadAttention(2, 8)(rows, rows, use_causal_mask=True)
    outputs = layers.Dense(10)(layers.Flatten()(mixed))
    model = keras.Model(inputs, outputs)
    model.compile(
        optimizer=keras.optimizers.Adam(3e-3), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return KerasRun(model, *digits(), FIT)


@enter(healthy(), "https://github.com/udlbook/udlbook/issues/87")
def keras_large_inputs_into_a_norm() -> KerasRun:
    """Inputs of a hundred thousand, normalised by the first layer."""
    images, labels = digits()
    model = classifier(layers.BatchNormalization(), layers.Dense(64, activation="relu"))
    return KerasRun(model, 1e5 * images, labels, FIT)


@enter(healthy(), "https://github.com/tensorflow/tensorflow/issues/38495")
def keras_mixed_float16() -> KerasRun:
    """mixed_float16 with its loss scaling, nothing else."""
    policy = keras.DTypePolicy("mixed_float16")
    return KerasRun(classifier(layers.Dense(64, activation="relu", dtype=policy)), *digits(), FIT)


@enter(healthy(), "https://github.com/NVIDIA/apex/issues/358")
def keras_sure_classifier() -> KerasRun:
    """A classifier so sure that its loss underflows."""
    x, y = two_blobs(gap=6.0)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(16, activation="relu"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(5e-2), loss=keras.losses.BinaryCrossentropy(from_logits=True))
    return KerasRun(model, x, y, FIT)


@enter(healthy(), "https://github.com/vitoralbiero/img2pose/issues/46")
def keras_heavy_tails_under_huber() -> KerasRun:
    """Heavy-tailed targets under a Huber loss."""
    x, y = regression()
    y = y + 0.3 * np.random.default_rng(4).standard_t(2, y.shape).astype("float32")
    model = keras.Sequential([keras.Input((10,)), layers.Dense(64, activation="relu"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=keras.losses.Huber())
    return KerasRun(model, x, y, FIT)


@enter(
    healthy(),
    "https://datascience.stackexchange.com/questions/15962/why-is-learning-rate-causing-my-neural-networks-weights-to-skyrocket",
)
def keras_high_but_workable_rate() -> KerasRun:
    """A learning rate close to the edge."""
    return KerasRun(
        classifier(layers.Dense(64, activation="relu"), optimizer=keras.optimizers.SGD(0.7)), *digits(), FIT
    )
