"""Pictures in Keras: curves of light, thumbnails, decoders, tags of photographs, small recognisers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, enter, finite, non_finite, runaway
from benchmarks.diagnosis.tables import digits

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- NAN113 --------------------------------------------------------------------------------------------------


class Gamma(layers.Layer):
    """The curve of a screen."""

    def call(self, x: Any) -> Any:
        return ops.power(x, 0.45)


@enter(
    non_finite("NAN113", "power", "return ops.power(x, 0.45)", phase="backward", modules=("gamma",), rows=(15,)),
    "https://docs.jax.dev/en/latest/faq.html#gradients-contain-nan-where-using-where",
    "https://stackoverflow.com/questions/33712178/tensorflow-nan-bug",
)
def gamma_of_a_black_frame() -> KerasRun:
    """A gamma curve behind a convolution with positive weights; one frame is black, and 0 ** 0.45 has no slope."""
    images, labels = digits(1280)
    images = 0.9 * images + 0.1
    images[34 * 32 + 15] = 0
    positive = keras.initializers.RandomUniform(0.05, 0.3, seed=2)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(
                8, 3, use_bias=False, kernel_initializer=positive, kernel_constraint=keras.constraints.NonNeg()
            ),
            Gamma(name="gamma"),
            layers.Conv2D(12, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="sparse_categorical_crossentropy")
    return KerasRun(model, images.reshape(-1, 8, 8, 1), labels, FIT)


# -- Labels and losses -----------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, ("DATA505", "DATA509", "ACT302"), rows=None),
    "https://blog.keras.io/building-autoencoders-in-keras.html",
    "https://keras.io/api/layers/preprocessing_layers/image_preprocessing/rescaling/",
)
def decoder_that_owes_bytes() -> KerasRun:
    """An autoencoder divides its inputs by 255 and not its targets; a sigmoid is to come up to 255."""
    images = digits(1280)[0].reshape(-1, 8, 8, 1)
    bytes_of_pixels = np.round(255 * images).astype("float32")
    inputs = keras.Input((8, 8, 1))
    code = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(layers.Rescaling(1 / 255)(inputs))
    code = layers.Dense(16, activation="relu")(layers.Flatten()(code))
    grown = layers.Reshape((4, 4, 8))(layers.Dense(128, activation="relu")(code))
    shown = layers.Conv2DTranspose(1, 3, strides=2, padding="same", activation="sigmoid")(grown)
    model = keras.Model(inputs, shown)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
    return KerasRun(model, bytes_of_pixels, bytes_of_pixels, FIT)


@enter(
    finite(Happens.STALL, "LOSS404", rows=None),
    "https://keras.io/api/losses/probabilistic_losses/",
    "https://stackoverflow.com/questions/57253841/from-logits-true-and-from-logits-false-get-different-training-result",
)
def tags_of_photographs_without_a_sigmoid() -> KerasRun:
    """Tags of photographs without a sigmoid; the bias starts at their log-odds, below 0, where nothing has a slope."""
    rng = np.random.default_rng(3604)
    photos = rng.normal(size=(1280, 8, 8, 3)).astype("float32")
    tags = (photos[:, 2:5, 2:5].mean((1, 2)) @ rng.normal(size=(3, 6)) > 0.35).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(12, 3, activation="relu"),
            layers.Conv2D(12, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(6, bias_initializer=keras.initializers.Constant(-1.2)),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(1e-2), loss="binary_crossentropy")
    return KerasRun(model, photos, tags, FIT)


# -- Activations and rates -------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, ("OPT601", "ACT303"), rows=None),
    "https://keras.io/api/optimizers/adam/",
    "https://stackoverflow.com/questions/40050397/deep-learning-nan-loss-reasons",
)
def rate_of_sgd_given_to_adam() -> KerasRun:
    """The optimizer was changed from SGD to Adam and the rate of 0.3 was kept: a recogniser of digits guesses."""
    images, labels = digits(1600)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 2, activation="relu"),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(10, activation="softmax", kernel_initializer="zeros"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.3), loss="sparse_categorical_crossentropy")
    return KerasRun(model, images.reshape(-1, 8, 8, 1), labels, {**FIT, "batch_size": 16})


@enter(
    runaway(("DATA502",)),
    "https://github.com/keras-team/keras/issues/2134",
    "https://keras.io/api/layers/preprocessing_layers/image_preprocessing/rescaling/",
)
def angle_of_a_hand_from_bytes() -> KerasRun:
    """The angle of a hand from a picture whose bytes nobody divided by 255, by SGD at an ordinary rate."""
    rng = np.random.default_rng(3606)
    angle = rng.uniform(-1.2, 1.2, (1280, 1))
    grid = np.arange(8) - 3.5
    across = grid[None, :, None] * np.cos(angle)[..., None] - grid[None, None] * np.sin(angle)[..., None]
    pictures = np.round(255 * np.exp(-np.square(across))).astype("float32")[..., None]
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(24, activation="relu"),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(1e-2), loss="mse")
    return KerasRun(model, pictures, angle.astype("float32"), FIT)


class Variational(keras.Model):
    """A variational autoencoder with its loss inside."""

    def __init__(self) -> None:
        super().__init__()
        start, small = keras.initializers.Constant([0.0] * 4 + [1.0] * 4), keras.initializers.RandomNormal(stddev=0.02)
        moments = layers.Dense(8, kernel_initializer=small, bias_initializer=start)
        self.encoder = keras.Sequential([layers.Dense(48, activation="relu"), moments])
        self.decoder = keras.Sequential([layers.Dense(48, activation="relu"), layers.Dense(64, activation="sigmoid")])
        self.seeds = keras.random.SeedGenerator(5)

    def call(self, x: Any) -> Any:
        mean, variance = ops.split(self.encoder(x), 2, axis=-1)
        surprise = ops.square(mean) + variance - 1 - ops.log(variance)
        self.add_loss(1e-4 * ops.mean(ops.sum(surprise, axis=-1)))
        noise = keras.random.normal(ops.shape(mean), seed=self.seeds)
        return self.decoder(mean + noise * ops.sqrt(variance))


@enter(
    non_finite(
        "NAN114",
        ("log", "sqrt"),
        ("surprise = ops.square(mean) + variance", "return self.decoder(mean + noise"),
        modules=None,
        rows=None,
    ),
    "https://keras.io/examples/generative/vae/",
    "https://github.com/keras-team/keras/issues/2134",
)
def variance_in_place_of_its_logarithm() -> KerasRun:
    """A variational autoencoder whose encoder tells the variance and not its logarithm; nothing keeps it positive."""
    images, _ = digits(1600)
    model = Variational()
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    return KerasRun(model, images, images, FIT)


@enter(
    finite(Happens.STALL, ("OPT608", "OPT602", "GRAD202"), rows=None),
    "https://keras.io/guides/transfer_learning/",
    "https://github.com/keras-team/keras/issues/7023",
)
def head_frozen_along_with_its_base() -> KerasRun:
    """Not the base was frozen but the model around it, with the new head; only a scale in front of it still learns."""
    images, labels = digits(1280)
    base = keras.Sequential(
        [layers.Conv2D(12, 3, activation="relu"), layers.Flatten(), layers.Dense(32, activation="relu")], name="base"
    )
    head = layers.Dense(10, activation="softmax", name="head")
    top = keras.Sequential([base, head], name="top")
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, top(layers.BatchNormalization(center=False, scale=True)(inputs)))
    top.trainable = False
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="sparse_categorical_crossentropy")
    return KerasRun(model, images.reshape(-1, 8, 8, 1), labels, FIT)
