"""An autoencoder of baskets, a detector, and a network that teaches itself, in Keras: losses written by hand."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import KerasRun, enter, non_finite
from benchmarks.diagnosis.tables import digits

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


class Draw(layers.Layer):
    """Draws codes from the normal that the encoder gives, and charges for their distance from the standard one."""

    def call(self, pair: Any) -> Any:
        mean, log_variance = pair
        variance = ops.exp(log_variance)
        divergence = 0.5 * ops.sum(variance + ops.square(mean) - 1.0 - log_variance, axis=-1)
        self.add_loss(1e-3 * ops.mean(divergence))
        noise = keras.random.normal(ops.shape(mean), seed=1)
        return mean + ops.sqrt(variance) * noise


@enter(
    non_finite(("NAN110", "DATA503"), "exp", "variance = ops.exp(log_variance)", modules=("draw",), rows=(11,)),
    "https://github.com/vanderschaarlab/synthcity/issues/331",
    "https://github.com/keras-team/keras/issues/12371",
)
def basket_of_a_wholesaler() -> KerasRun:
    """A variational autoencoder of baskets exponentiates an unbounded log-variance; a wholesaler buys by the pallet."""
    rng = np.random.default_rng(1)
    kind = rng.integers(0, 5, 1280)
    rates = rng.gamma(0.5, 1.0, (5, 30))
    baskets = rng.poisson(rates[kind]).astype("float32")
    baskets[30 * 32 + 11] *= 400
    wanted = np.minimum(baskets, 1.0)
    picture = keras.Input((30,))
    hidden = layers.Dense(32, activation="relu")(picture)
    mean, log_variance = layers.Dense(4)(hidden), layers.Dense(4)(hidden)
    code = Draw(name="draw")([mean, log_variance])
    model = keras.Model(picture, layers.Dense(30)(layers.Dense(32, activation="relu")(code)))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss)
    return KerasRun(model, baskets, wanted, FIT)


def first_yolo(y_true: Any, y_pred: Any) -> Any:
    """Squared errors of centres, and of the roots of widths and heights, so that small boxes count as well."""
    centre = ops.sum(ops.square(y_true[:, :2] - y_pred[:, :2]), axis=-1)
    size = ops.sum(ops.square(ops.sqrt(y_true[:, 2:]) - ops.sqrt(y_pred[:, 2:])), axis=-1)
    return ops.mean(5.0 * centre + 5.0 * size)


@enter(
    non_finite(
        ("NAN114", "DATA503"), "sqrt", "size = ops.sum(ops.square(ops.sqrt(y_true[:, 2:])", modules=("",), rows=(27,)
    ),
    "https://github.com/DeepBaksuVision/You_Only_Look_Once/issues/7",
    "https://github.com/pjreddie/darknet/issues/1824",
)
def box_of_negative_width() -> KerasRun:
    """The first YOLO's loss takes the root of predicted widths; those of a picture that is too dark are negative."""
    rng = np.random.default_rng(2)
    low = rng.uniform(0, 10, (1280, 2))
    size = rng.uniform(0.3, 6, (1280, 2))
    grid = np.arange(12) + 0.5
    inside = [(grid > low[:, side, None]) & (grid < (low + size)[:, side, None]) for side in (0, 1)]
    image = (inside[0][:, :, None] & inside[1][:, None, :]).astype("float32")[..., None]
    high = np.minimum(low + size, 12)
    boxes = np.concatenate([(low + high) / 24, (high - low) / 12], axis=1).astype("float32")
    image += 0.1 * rng.normal(size=image.shape).astype("float32")
    image[32 * 32 + 27] -= 1.0
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(
                4,
                kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
                bias_initializer=keras.initializers.Constant(0.3),
            ),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=first_yolo)
    return KerasRun(model, image, boxes, FIT)


class SelfTaught(keras.Model):
    """Two noisy views of a picture: what is said of the one is the label of the other, sharpened by a temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.body = keras.Sequential([layers.Dense(64, activation="relu"), layers.Dense(12)])
        self.noise = layers.GaussianNoise(0.1, seed=1)

    def call(self, picture: Any, training: bool = False) -> Any:
        return self.body(self.noise(picture, training=training))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        label = ops.stop_gradient(ops.softmax(self(x, training=True) / 0.02))
        said = ops.softmax(y_pred / 0.04)
        own = -ops.mean(ops.sum(label * ops.log(said), axis=-1))
        return own + ops.mean(ops.sparse_categorical_crossentropy(y, y_pred, from_logits=True))


@enter(
    non_finite("NAN111", "log", "own = -ops.mean(ops.sum(label * ops.log(said)", modules=None, rows=None),
    "https://github.com/Xilinx/brevitas/pull/1388",
    "https://keras.io/guides/custom_train_step_in_torch/",
)
def lesson_that_was_sharpened_too_much() -> KerasRun:
    """Self-distillation takes the logarithm of a softmax at a temperature of 0.04: soon one of them is exactly zero."""
    images, labels = digits(1280)
    model = SelfTaught()
    model.compile(optimizer=keras.optimizers.Adam(5e-3))
    return KerasRun(model, images, labels, FIT)
