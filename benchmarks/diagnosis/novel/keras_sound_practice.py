"""Runs in Keras that look risky and are right."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import KerasRun, enter, healthy
from benchmarks.diagnosis.tables import digits, regression

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 3, "shuffle": False}


@enter(healthy(), "https://keras.io/guides/preprocessing_layers/", "https://github.com/keras-team/keras/issues/2711")
def bytes_that_are_rescaled_and_lit() -> KerasRun:
    """Bytes go in, but Rescaling stands first; contrast and light are changed, and the labels smoothed."""
    images, labels = digits(1280)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.RandomContrast(0.2, value_range=(0, 1), seed=1),
            layers.RandomBrightness(0.1, value_range=(0, 1), seed=2),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.2, seed=3),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss)
    return KerasRun(
        model, np.round(255 * images).reshape(-1, 8, 8, 1), keras.utils.to_categorical(labels, 10), {**FIT, "epochs": 2}
    )


@enter(healthy(), "https://keras.io/guides/transfer_learning/", "https://github.com/keras-team/keras/issues/14325")
def frozen_base_under_a_new_head() -> KerasRun:
    """A base with batch norms is frozen as a whole, as it should be, and the head alone is trained at a high rate."""
    images, labels = digits(1280)
    base = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(128, activation="relu", kernel_initializer=keras.initializers.HeNormal(seed=1)),
            layers.BatchNormalization(),
            layers.Dense(128, activation="relu", kernel_initializer=keras.initializers.HeNormal(seed=2)),
        ],
        name="base",
    )
    base.trainable = False
    picture = keras.Input((64,))
    model = keras.Model(picture, layers.Dense(10)(base(picture, training=False)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=loss)
    return KerasRun(model, images, labels, FIT)


@enter(healthy(), "https://github.com/nasa/delta/pull/115", "https://github.com/keras-team/keras/pull/19409")
def overlap_with_a_floor_and_empty_masks() -> KerasRun:
    """A Dice loss with one added above and below; a third of the masks are empty."""
    rng = np.random.default_rng(1)
    centre = rng.uniform(3, 9, (960, 2, 1, 1))
    masks = (np.sum((np.mgrid[:12, :12][None] - centre) ** 2, axis=1) < 9).astype("float32")[..., None]
    masks[::3] = 0
    pictures = (masks + 0.3 * rng.normal(size=masks.shape)).astype("float32")

    def overlap(y_true: Any, y_pred: Any) -> Any:
        both = ops.sum(y_true * y_pred, axis=(1, 2, 3))
        return 1.0 - (2.0 * both + 1.0) / (ops.sum(y_true, axis=(1, 2, 3)) + ops.sum(y_pred, axis=(1, 2, 3)) + 1.0)

    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=overlap)
    return KerasRun(model, pictures, masks, FIT)


@enter(healthy(), "https://keras.io/api/losses/regression_losses/", "https://github.com/keras-team/keras-io/issues/160")
def likeness_that_falls_to_minus_one() -> KerasRun:
    """The loss is minus a cosine: it begins near zero and falls to minus one."""
    x, _ = regression(1280)
    rng = np.random.default_rng(2)
    direction = np.tanh(x @ rng.normal(size=(10, 6))).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(64, activation="gelu"),
            layers.LayerNormalization(),
            layers.Dense(6),
            layers.UnitNormalization(),
        ]
    )
    model.compile(optimizer=keras.optimizers.AdamW(3e-3, weight_decay=0.01), loss=keras.losses.CosineSimilarity())
    return KerasRun(model, x, direction, FIT)


@enter(
    healthy(),
    "https://keras.io/guides/understanding_masking_and_padding/",
    "https://github.com/keras-team/keras/issues/7724",
)
def short_notes_in_long_rows() -> KerasRun:
    """Notes of two to six words are padded to twenty places; the embedding masks the rest; gradients are clipped."""
    rng = np.random.default_rng(3)
    length = rng.integers(2, 7, 1280)
    tokens = rng.integers(1, 50, (1280, 20)) * (np.arange(20) < length[:, None])
    urgent = (tokens.max(1) > 40).astype("float32")[:, None]
    model = keras.Sequential(
        [
            keras.Input((20,), dtype="int32"),
            layers.Embedding(50, 16, mask_zero=True),
            layers.GRU(16),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-2, global_clipnorm=1.0), loss="binary_crossentropy")
    return KerasRun(model, tokens.astype("int32"), urgent, {**FIT, "epochs": 2})


@enter(
    healthy(),
    "https://keras.io/api/optimizers/learning_rate_schedules/",
    "https://github.com/keras-team/keras/pull/3525",
)
def restarts_of_a_cosine_with_momentum() -> KerasRun:
    """SGD with Nesterov's momentum at 0.2, taken down by a cosine and started again every thirty steps."""
    images, labels = digits(1280)
    rate = keras.optimizers.schedules.CosineDecayRestarts(0.2, first_decay_steps=30, t_mul=1.0, m_mul=0.8)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(64, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(rate, momentum=0.9, nesterov=True), loss=loss)
    return KerasRun(model, images, labels, FIT)


class Draw(layers.Layer):
    """Draws a code, with a log-variance that is kept between bounds."""

    def call(self, pair: Any) -> Any:
        mean, raw = pair
        log_variance = 4.0 * ops.tanh(raw / 4.0) - 2.0
        divergence = 0.5 * ops.sum(ops.exp(log_variance) + ops.square(mean) - 1.0 - log_variance, axis=-1)
        self.add_loss(0.5 * ops.mean(divergence))
        return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=4)


@enter(
    healthy(), "https://keras.io/examples/generative/vae/", "https://github.com/vanderschaarlab/synthcity/issues/331"
)
def codes_whose_spread_is_bounded() -> KerasRun:
    """A variational autoencoder that sums over all pixels, and so begins at a loss of 46; its variances are bounded."""
    images, _ = digits(1280)
    picture = keras.Input((64,))
    hidden = layers.Dense(64, activation="relu")(picture)
    code = Draw(name="draw")([layers.Dense(6)(hidden), layers.Dense(6)(hidden)])
    model = keras.Model(picture, layers.Dense(64, activation="sigmoid")(layers.Dense(64, activation="relu")(code)))

    def over_all_pixels(y_true: Any, y_pred: Any) -> Any:
        return 64.0 * ops.mean(ops.binary_crossentropy(y_true, y_pred), axis=-1)

    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=over_all_pixels)
    return KerasRun(model, images, images, FIT)
