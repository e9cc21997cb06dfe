"""Adversarial training in Keras on PyTorch, with a ``train_step`` of its own."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import KerasRun, enter, non_finite
from benchmarks.diagnosis.tables import digits


class BatchSpread(layers.Layer):
    """How much the pictures of a batch differ, beside each of them: a generator must not draw one picture only."""

    def call(self, pictures: Any) -> Any:
        centred = pictures - ops.mean(pictures, axis=0, keepdims=True)
        spread = ops.mean(ops.sqrt(ops.mean(ops.square(centred), axis=0)))
        return ops.concatenate([pictures, ops.ones_like(pictures[:, :1]) * spread], axis=-1)


class Adversaries(keras.Model):
    """A judge that learns alone for 25 steps, and a forger that joins afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.forger = keras.Sequential(
            [keras.Input((8,)), layers.Dense(32, activation="relu"), layers.Dense(64, kernel_initializer="zeros")],
            name="forger",
        )
        self.judge = keras.Sequential(
            [
                keras.Input((64,)),
                BatchSpread(name="batch_spread"),
                layers.Dense(32, activation="leaky_relu"),
                layers.Dense(1),
            ],
            name="judge",
        )
        self.judge_optimizer = keras.optimizers.Adam(1e-3, beta_1=0.5)
        self.tracker = keras.metrics.Mean(name="loss")
        self.noise = keras.random.SeedGenerator(1)
        self.batches = 0

    @property
    def metrics(self) -> list[Any]:
        return [self.tracker]

    def call(self, picture: Any) -> Any:
        return self.judge(picture)

    def train_step(self, data: Any) -> dict[str, Any]:
        import torch

        real = data[0] if isinstance(data, tuple) else data
        fake = self.forger(keras.random.normal((real.shape[0], 8), seed=self.noise))
        self.zero_grad()
        loss = ops.mean(ops.softplus(self.judge(fake.detach()))) + ops.mean(ops.softplus(-self.judge(real)))
        loss.backward()
        weights = self.judge.trainable_weights
        with torch.no_grad():
            self.judge_optimizer.apply([weight.value.grad for weight in weights], weights)
        self.batches += 1
        if self.batches > 25:
            self.zero_grad()
            fooled = ops.mean(ops.softplus(-self.judge(fake)))
            fooled.backward()
            weights = self.forger.trainable_weights
            with torch.no_grad():
                self.optimizer.apply([weight.value.grad for weight in weights], weights)
            loss = loss + fooled
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}


@enter(
    non_finite(
        "NAN113",
        "sqrt",
        "spread = ops.mean(ops.sqrt(ops.mean(ops.square(centred)",
        phase="backward",
        modules=("batch_spread",),
        rows=(),
    ),
    "https://github.com/keras-team/keras/issues/9097",
    "https://keras.io/guides/custom_train_step_in_torch/",
    backends=("torch",),
)
def forger_that_begins_with_one_picture() -> KerasRun:
    """The judge sees how much a batch differs; the forger's last layer begins at zero, so its pictures are alike."""
    images, _ = digits(1280)
    model = Adversaries()
    model.compile(optimizer=keras.optimizers.Adam(1e-3, beta_1=0.5))
    return KerasRun(model, (2 * images - 1).astype(np.float32), None, {"batch_size": 32, "epochs": 1, "shuffle": False})
