"""Keras models with steps and losses of their own: codes, forgers and judges, and a step written by hand."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, enter, finite, non_finite
from benchmarks.diagnosis.tables import digits, two_blobs

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- NAN111 ----------------------------------------------------------------------------------------------------------


class ForgerAndJudge(keras.Model):
    """A generator and a discriminator, trained in turn as in the guide for the torch backend."""

    def __init__(self) -> None:
        super().__init__()
        self.forger = keras.Sequential([layers.Dense(16, activation="relu"), layers.Dense(8)])
        self.judge = keras.Sequential([layers.Dense(32, activation="relu"), layers.Dense(1, activation="sigmoid")])
        self.seeds = keras.random.SeedGenerator(11)
        self.forgers = keras.optimizers.Adam(1e-3)
        self.mean_loss = keras.metrics.Mean(name="loss")

    def call(self, things: Any) -> Any:
        return self.judge(things)

    def train_step(self, data: Any) -> dict[str, Any]:
        things, *_ = data if isinstance(data, tuple) else (data,)
        forged = self.forger(keras.random.normal((len(things), 4), seed=self.seeds))
        doubt = ops.log(self.judge(things)) + ops.log(1 - self.judge(forged.detach()))
        self.zero_grad()
        loss = -ops.mean(doubt)
        loss.backward()
        weights = self.judge.trainable_weights
        self.optimizer.apply([weight.value.grad for weight in weights], weights)
        self.zero_grad()
        trick = ops.mean(ops.log(1 - self.judge(forged)))
        trick.backward()
        weights = self.forger.trainable_weights
        self.forgers.apply([weight.value.grad for weight in weights], weights)
        self.mean_loss.update_state(loss.detach())
        return {"loss": self.mean_loss.result()}


@enter(
    non_finite(
        ("NAN111", "DATA503"), "log", "doubt = ops.log(self.judge(things))", modules=("", "forger_and_judge"), rows=(7,)
    ),
    "https://github.com/AYLIEN/gan-intro/pull/10",
    "https://github.com/POSTECH-CVLab/PyTorch-StudioGAN/issues/67",
    "https://github.com/soumith/ganhacks/issues/36",
    backends=("torch",),
)
def corrupt_record_before_the_judge() -> KerasRun:
    """The judge of a GAN ends in a sigmoid, its step takes the logarithm; of one corrupt record it says exactly 0."""
    rng = np.random.default_rng(7701)
    coins = (rng.normal(size=(1280, 8)) * 0.5 + rng.normal(size=8)).astype("float32")
    model = ForgerAndJudge()
    model.build((None, 8))
    model.forger.build((None, 4))
    model.compile(optimizer=keras.optimizers.Adam(2e-3))
    coins[33 * 32 + 7] = 4000 * rng.normal(size=8)
    return KerasRun(model, coins, None, FIT)


# -- OPT608 ----------------------------------------------------------------------------------------------------------


class Tower(keras.Model):
    """An encoder from elsewhere and a head of one's own, trained by a step that was taken from another project."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = keras.Sequential([layers.Dense(24, activation="tanh"), layers.Dense(12, activation="tanh")])
        self.head = layers.Dense(10, kernel_initializer=keras.initializers.RandomNormal(stddev=0.02, seed=4))
        self.mean_loss = keras.metrics.Mean(name="loss")

    def call(self, picture: Any) -> Any:
        return self.head(self.encoder(picture))

    def train_step(self, data: Any) -> dict[str, Any]:
        picture, label = data
        self.zero_grad()
        loss = self.compute_loss(y=label, y_pred=self(picture, training=True))
        loss.backward()
        weights = self.encoder.trainable_weights
        self.optimizer.apply([weight.value.grad for weight in weights], weights)
        self.mean_loss.update_state(loss.detach())
        return {"loss": self.mean_loss.result()}


@enter(
    finite(Happens.STALL, "OPT608"),
    "https://github.com/keras-team/keras/issues/16797",
    "https://github.com/keras-team/keras/issues/10480",
    "https://github.com/keras-team/keras/issues/12503",
    backends=("torch",),
)
def step_that_forgets_the_head() -> KerasRun:
    """A train_step of one's own hands the encoder's weights to the optimizer, and not those of the new head."""
    images, labels = digits(1280)
    model = Tower()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss)
    model.build((None, 64))
    return KerasRun(model, images, labels, FIT)


# -- LOSS405 ---------------------------------------------------------------------------------------------------------


class Code(layers.Layer):
    """Draws a code and adds its divergence to the loss, with a weight that a callback turns up."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.seeds = keras.random.SeedGenerator(13)

    def build(self, shape: Any) -> None:
        self.beta = self.add_weight(shape=(), initializer=keras.initializers.Constant(1e-4), trainable=False)

    def call(self, told: Any) -> Any:
        mean, spread = ops.split(told, 2, axis=-1)
        divergence = 0.5 * ops.sum(ops.square(mean) + ops.exp(spread) - 1 - spread, axis=-1)
        self.add_loss(self.beta * ops.mean(divergence))
        return mean + ops.exp(spread / 2) * keras.random.normal(ops.shape(mean), seed=self.seeds)


class Annealing(keras.callbacks.Callback):
    """Cyclic annealing of the divergence's weight."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.model.get_layer("code").beta.assign(1e-4 if batch % 70 < 35 else 1.0)


@enter(
    finite(Happens.SPIKE, "LOSS405"),
    "https://github.com/y0ast/Variational-Autoencoder/issues/5",
    "https://github.com/AppliedDataSciencePartners/WorldModels/issues/9",
    "https://github.com/benmoseley/harmonic-oscillator-pinn-workshop/issues/2",
)
def divergence_that_comes_in_one_step() -> KerasRun:
    """The weight of a VAE's divergence is annealed in cycles, and its rise takes one step: from 0.0001 to 1."""
    images, _ = digits(1600)
    inputs = keras.Input((64,))
    hidden = layers.Dense(48, activation="relu")(inputs)
    code = Code(name="code")(layers.Dense(24)(hidden))
    outputs = layers.Dense(64, activation="sigmoid")(layers.Dense(48, activation="relu")(code))
    model = keras.Model(inputs, outputs)
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="mse")
    return KerasRun(model, images, images, {**FIT, "callbacks": [Annealing()]})


# -- LOSS404 ---------------------------------------------------------------------------------------------------------


def binary_cross_entropy(y_true: Any, y_pred: Any) -> Any:
    """As it is written in the lecture."""
    return -ops.mean(y_true * ops.log(y_pred) + (1 - y_true) * ops.log(1 - y_pred), axis=-1)


@enter(
    non_finite(("LOSS404", "NAN114"), "log", "return -ops.mean(y_true * ops.log(y_pred) +", modules=("",), rows=None),
    "https://github.com/keras-team/keras/issues/1917",
    "https://github.com/keras-team/keras/issues/5733",
    "https://github.com/keras-team/keras/issues/198",
)
def score_that_leaves_zero_and_one() -> KerasRun:
    """Two towers are compared; their score begins at one half, has no sigmoid, and walks out of its range."""
    x, y = two_blobs(1280, gap=1.0, seed=7704)
    inputs = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    tower = layers.Dense(16, activation="tanh")
    both = layers.Concatenate()([tower(inputs[0]), tower(inputs[1])])
    small = keras.initializers.RandomNormal(stddev=1e-3, seed=2)
    score = layers.Dense(1, kernel_initializer=small, bias_initializer=keras.initializers.Constant(0.5))(both)
    model = keras.Model(inputs, score)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=binary_cross_entropy)
    return KerasRun(model, {"left": x[:, :4], "right": x[:, 4:]}, y, FIT)
