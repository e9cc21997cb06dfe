"""Scans and photographs in Keras: small U-Nets, losses of overlap, crops, and a detector of vessels."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, bad_batch, enter, finite, healthy, non_finite
from benchmarks.diagnosis.tables import digits

FIT: dict[str, Any] = {"batch_size": 16, "epochs": 1, "shuffle": False}


def organs(count: int, seed: int, size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Slices with one bright square, of shape (count, size, size, 1), and their masks."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((count, size, size, 1), "float32")
    for picture, (row, column, side) in zip(mask, rng.integers(3, 8, (count, 3)), strict=True):
        picture[row : row + side, column : column + side] = 1
    scan = mask + 0.5 * rng.normal(size=mask.shape)
    return scan.astype("float32"), mask


def small_unet(inputs: Any, width: int = 6) -> Any:
    """Two levels, one connection across; the scores of a map with one channel."""
    first = layers.Conv2D(width, 3, padding="same", activation="relu")(inputs)
    low = layers.Conv2D(2 * width, 3, padding="same", activation="relu")(layers.MaxPooling2D()(first))
    merged = layers.Concatenate()([first, layers.UpSampling2D()(low)])
    return layers.Conv2D(width, 3, padding="same", activation="relu")(merged)


# -- NAN113 ----------------------------------------------------------------------------------------------------------


def focal_tversky(y_true: Any, y_pred: Any, alpha: float = 0.7, gamma: float = 0.75) -> Any:
    """One minus the Tversky index of each slice, to the power of gamma."""
    hit = ops.sum(y_true * y_pred, axis=(1, 2, 3))
    missed = ops.sum(y_true * (1 - y_pred), axis=(1, 2, 3))
    false_alarm = ops.sum((1 - y_true) * y_pred, axis=(1, 2, 3))
    index = (hit + 1.0) / (hit + alpha * missed + (1 - alpha) * false_alarm + 1.0)
    return ops.power(1 - index, gamma)


@enter(
    non_finite("NAN113", "power", "return ops.power(1 - index, gamma)", phase="backward", modules=("",), rows=(2, 13)),
    "https://github.com/kornia/kornia/issues/918",
    "https://github.com/nabsabraham/focal-tversky-unet/issues/10",
    "https://github.com/shruti-jadon/Semantic-Segmentation-Loss-Functions/issues/2",
)
def slice_above_the_head() -> KerasRun:
    """Predictions are multiplied by the body's outline; a slice beside the body is right to the last bit."""
    scan, mask = organs(720, 2101)
    body = np.ones_like(mask)
    for row in (2, 13):
        scan[33 * 16 + row] = mask[33 * 16 + row] = body[33 * 16 + row] = 0
    seen, outline = keras.Input((16, 16, 1)), keras.Input((16, 16, 1))
    share = layers.Conv2D(1, 1, activation="sigmoid")(small_unet(seen))
    model = keras.Model([seen, outline], layers.Multiply()([share, outline]))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=focal_tversky)
    return KerasRun(model, [scan, body], mask, FIT)


# -- LOSS404 ---------------------------------------------------------------------------------------------------------


def soft_dice(y_true: Any, y_pred: Any) -> Any:
    """One minus the overlap of a mask and a map of probabilities."""
    both = ops.sum(y_true * y_pred, axis=(1, 2, 3))
    return 1 - (2 * both + 1) / (ops.sum(y_true, axis=(1, 2, 3)) + ops.sum(y_pred, axis=(1, 2, 3)) + 1)


@enter(
    finite(Happens.SPIKE, ("LOSS404", "NAN112"), rows=None),
    "https://github.com/ScrollPrize/villa/pull/1644",
    "https://github.com/jakeret/tf_unet/issues/15",
    "https://github.com/jocpae/clDice/issues/32",
)
def overlap_of_raw_scores() -> KerasRun:
    """The U-Net ends without a sigmoid; sums of raw scores pass through zero, and the overlap has no bounds."""
    scan, mask = organs(1280, 2102)
    inputs = keras.Input((16, 16, 1))
    start = keras.initializers.Constant(3.0)
    model = keras.Model(inputs, layers.Conv2D(1, 1, bias_initializer=start)(small_unet(inputs)))
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss=soft_dice)
    return KerasRun(model, scan, mask, FIT)


# -- DATA501, DATA506, DATA508 ---------------------------------------------------------------------------------------


@enter(
    bad_batch(None, (1, 10)),
    "https://github.com/keras-team/keras/issues/2001",
    "https://github.com/keras-team/keras/issues/2134",
    "https://github.com/prs-eth/Marigold/issues/111",
    backends=("tensorflow",),
)
def thumbnails_of_one_colour() -> KerasRun:
    """A pipeline of tf.data standardises each picture by its own deviation; two thumbnails have none: 0 / 0."""
    import tensorflow as tf

    figures, labels = digits(1280)
    figures[[38 * 16 + 1, 38 * 16 + 10]] = 0.5

    def standardise(picture: Any, label: Any) -> Any:
        centred = picture - tf.reduce_mean(picture)
        return centred / tf.math.reduce_std(picture), label

    pairs = tf.data.Dataset.from_tensor_slices((figures.reshape(-1, 8, 8, 1), labels))
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(12, 3, activation="swish"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=loss)
    return KerasRun(model, pairs.map(standardise).batch(16).prefetch(2), None, {"epochs": 1})


def crop(pictures: np.ndarray, corner: tuple[int, int], side: int) -> np.ndarray:
    """Squares of the pictures; the corner is (x, y)."""
    x, y = corner
    return pictures[:, x : x + side, y : y + side]


@enter(
    finite(Happens.STALL, "DATA506"),
    "https://github.com/keras-team/keras/issues/255",
    "https://github.com/tensorflow/tensorflow/issues/47586",
)
def plate_that_is_cut_beside() -> KerasRun:
    """Figures of a meter are cut out of large photographs with x and y exchanged: every crop is the black border."""
    figures, labels = digits(1280)
    photographs = np.zeros((1280, 24, 48), "float32")
    photographs[:, 10:18, 36:44] = figures.reshape(-1, 8, 8)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(24, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss="sparse_categorical_crossentropy")
    cut = crop(photographs, (10, 20), 8)[..., None]
    return KerasRun(model, cut, labels, {**FIT, "batch_size": 32})


class WeightedSquares(keras.losses.Loss):
    """Squared errors, with more weight for what belongs to a vessel."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean((1 + 2 * y_true) * ops.square(y_true - y_pred))


@enter(
    finite(Happens.STALL, "DATA508"),
    "https://github.com/tensorflow/tensorflow/pull/30053",
    "https://github.com/kuza55/keras-extras/issues/28",
    "https://github.com/keras-team/keras/pull/8514",
)
def masks_without_a_channel() -> KerasRun:
    """16 masks of 16 by 16 without a channel beside 16 maps with one: the loss compares each row with each picture."""
    scan, mask = organs(800, 2103)
    inputs = keras.Input((16, 16, 1))
    start = keras.initializers.Constant(-1.0)
    share = layers.Conv2D(1, 1, activation="sigmoid", bias_initializer=start)(small_unet(inputs))
    model = keras.Model(inputs, share)
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss=WeightedSquares())
    return KerasRun(model, scan, mask[..., 0], FIT)


# -- Healthy ---------------------------------------------------------------------------------------------------------


def dice_and_crossentropy(y_true: Any, y_pred: Any) -> Any:
    """Cross entropy of scores, and the overlap of their probabilities, with one pixel added to each sum."""
    crossentropy = keras.losses.binary_crossentropy(y_true, y_pred, from_logits=True)
    return ops.mean(crossentropy, axis=(1, 2)) + soft_dice(y_true, ops.sigmoid(y_pred))


@enter(
    healthy(), "https://github.com/Deci-AI/super-gradients/pull/982", "https://github.com/ivadomed/ivadomed/pull/256"
)
def half_of_the_slices_are_empty() -> KerasRun:
    """Every second slice has no organ, and some batches none at all: the overlap is smoothed, and it trains."""
    scan, mask = organs(800, 2104)
    empty = np.arange(800) % 2 == 0
    empty[20 * 16 : 21 * 16] = empty[35 * 16 : 36 * 16] = True
    scan[empty] -= mask[empty]
    mask[empty] = 0
    inputs = keras.Input((16, 16, 1))
    model = keras.Model(inputs, layers.Conv2D(1, 1)(small_unet(inputs)))
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=dice_and_crossentropy)
    return KerasRun(model, scan, mask, FIT)
