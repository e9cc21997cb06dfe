"""Pictures in Keras: classifiers, segmentation, depth, transfer and text recognition that learn nothing or break."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.diagnosis.program import Happens, KerasRun, Truth, enter, finite, runaway
from benchmarks.diagnosis.tables import digits

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 2, "shuffle": False}
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def blobs(rows: int, seed: int, radius: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy pictures of 12 by 12 with one bright disc each, and the masks of the discs."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(3, 9, (rows, 2, 1, 1))
    grid = np.mgrid[:12, :12][None]
    mask = (np.sum((grid - centre) ** 2, axis=1) < radius**2).astype("float32")[..., None]
    return (mask + 0.3 * rng.normal(size=mask.shape)).astype("float32"), mask


# -- LOSS403, LOSS404: the activation at the end (on TensorFlow Keras finds the scores before the activation) ----------


@enter(
    finite(Happens.STALL, "LOSS403"),
    "https://github.com/keras-team/keras/issues/11286",
    "https://codemia.io/knowledge-hub/path/keras_model_gets_constant_loss_and_accuracy",
    backends=("jax", "torch"),
)
def small_lesions_through_two_sigmoids() -> KerasRun:
    """A segmentation of small spots: the last convolution has a sigmoid, and the loss is told that it gets logits."""
    pictures, masks = blobs(960, 1, radius=1.2)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.Conv2D(1, 1, activation="sigmoid", bias_initializer=keras.initializers.Constant(-3.0)),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=keras.losses.BinaryCrossentropy(from_logits=True))
    return KerasRun(model, pictures, masks, FIT)


@enter(
    finite(Happens.STALL, "LOSS404"),
    "https://github.com/jocicmarko/ultrasound-nerve-segmentation/issues/18",
    "https://geek-tips.imtqy.com/articles/557592/index.html",
    backends=("jax", "torch"),
)
def softmax_over_a_mask_of_one_channel() -> KerasRun:
    """A U-Net ends in a convolution with one filter and a softmax: every pixel is foreground with probability one."""
    pictures, masks = blobs(960, 2)
    image = keras.Input((12, 12, 1))
    fine = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    coarse = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPooling2D()(fine))
    joined = layers.Concatenate()([fine, layers.UpSampling2D()(coarse)])
    model = keras.Model(image, layers.Conv2D(1, 1, activation="softmax")(joined))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="binary_crossentropy")
    return KerasRun(model, pictures, masks, FIT)


@enter(
    finite(Happens.STALL, ("LOSS404", "DATA508")),
    "https://stats.stackexchange.com/questions/565956/confused-with-binary-cross-entropy-vs-categorical-cross-entropy",
    "https://boohere.com/de/detail/80265.html",
    backends=("jax", "torch"),
)
def cats_and_dogs_as_one_category() -> KerasRun:
    """One sigmoid unit and the categorical cross entropy: a single category always has all the probability."""
    images, labels = digits(1280)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Reshape((8, 8, 1)),
            layers.RandomBrightness(0.1, value_range=(0, 1), seed=1),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="categorical_crossentropy")
    return KerasRun(model, images, (labels > 4).astype("float32")[:, None], FIT)


# -- OPT608, ACT303 --------------------------------------------------------------------------------------------------


class Temperature(layers.Layer):
    """Scores over a learnt temperature, as calibrated classifiers have it."""

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, scores: Any) -> Any:
        return scores * self.scale


@enter(
    finite(Happens.STALL, "OPT608"),
    "https://github.com/keras-team/keras/issues/14325",
    "https://github.com/keras-team/keras/issues/3268",
)
def all_frozen_but_the_temperature() -> KerasRun:
    """The loop freezes all layers but the last, which is the temperature and not the new head."""
    images, labels = digits(1280)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(64, activation="relu", name="pretrained_1"),
            layers.Dense(64, activation="relu", name="pretrained_2"),
            layers.Dense(10, name="head"),
            Temperature(name="temperature"),
        ]
    )
    for layer in model.layers[:-1]:
        layer.trainable = False
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=SPARSE)
    return KerasRun(model, images, labels, FIT)


@enter(
    finite(Happens.STALL, ("ACT303", "ACT304")),
    "https://github.com/keras-team/keras/issues/2711",
    "https://codemia.io/knowledge-hub/path/keras_accuracy_does_not_change",
)
def norm_that_begins_below_every_rectifier() -> KerasRun:
    """The shift of a batch norm begins at -6, far below the three standard deviations that its outputs reach."""
    images, labels = digits(1280)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Reshape((8, 8, 1)),
            layers.Conv2D(16, 3, use_bias=False),
            layers.BatchNormalization(beta_initializer=keras.initializers.Constant(-6.0)),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=SPARSE)
    return KerasRun(model, images, labels, FIT)


# -- data ------------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, "DATA504", rows=None),
    "https://github.com/keras-team/keras/issues/7702",
    "https://github.com/keras-team/keras/issues/12075",
)
def pictures_and_masks_drawn_by_two_generators() -> KerasRun:
    """Pictures and masks come from two shuffled generators with different seeds: no mask belongs to its picture."""
    pictures, masks = blobs(960, 3, radius=4.0)
    pictures = pictures[np.random.default_rng(1).permutation(960)]
    masks = masks[np.random.default_rng(2).permutation(960)]
    prior = np.log(masks.mean(0) + 0.02) - np.log(1.02 - masks.mean(0))
    image = keras.Input((12, 12, 1))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    x = layers.Conv2D(1, 3, padding="same", kernel_initializer=keras.initializers.RandomNormal(stddev=0.01))(x)
    model = keras.Model(image, layers.Activation("sigmoid")(x + prior.astype("float32")))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="binary_crossentropy")
    return KerasRun(model, pictures, masks, FIT)


@enter(
    runaway("DATA509"),
    "https://github.com/keras-team/keras/issues/3040",
    "https://github.com/tensorflow/tensorflow/issues/38796",
)
def range_of_a_lidar_in_millimetres() -> KerasRun:
    """A picture-to-depth network learns distances of thousands of millimetres with a squared error and plain SGD."""
    pictures, masks = blobs(960, 4)
    depth = (6000 - 3500 * masks + 100 * np.random.default_rng(5).normal(size=masks.shape)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            layers.Conv2D(8, 3, padding="same", activation="elu"),
            layers.Conv2D(8, 3, padding="same", activation="elu"),
            layers.Conv2D(1, 1),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(2e-2), loss="mse")
    return KerasRun(model, pictures, depth, FIT)


@enter(
    finite(Happens.SPIKE, ("DATA503", "DATA506"), rows=(12,)),
    "https://github.com/keras-team/keras/issues/20011",
    "https://github.com/Dobiasd/frugally-deep/pull/384",
)
def corner_that_was_black_in_every_picture_of_the_sample() -> KerasRun:
    """Normalization was adapted to pictures with a black corner, and divides by nearly zero when one is lit there."""
    images, labels = digits(1280)
    images[:, 0] = 0
    norm = layers.Normalization()
    norm.adapt(images)
    images[36 * 32 + 12, 0] = 0.5
    model = keras.Sequential(
        [
            keras.Input((64,)),
            norm,
            layers.Dense(32, activation="relu"),
            layers.Dense(10),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss=SPARSE)
    return KerasRun(model, images, labels, {**FIT, "epochs": 1})


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("DATA505",), rows=(5,)),
    "https://github.com/ypwhs/captcha_break/issues/29",
    "https://github.com/meijieru/crnn.pytorch/issues/235",
    backends=("torch",),
)
def captcha_with_more_letters_than_columns() -> KerasRun:
    """A captcha of nine letters is read by a network that has eight columns left after its pooling."""
    rng = np.random.default_rng(6)
    letters = rng.integers(1, 6, (1280, 3))
    glyphs = rng.normal(size=(6, 8))
    strips = np.zeros((1280, 16, 8))
    strips[:, 1:16:5] = glyphs[letters]
    text = np.zeros((1280, 9), "int32")
    text[:, :3] = letters
    text[34 * 32 + 5] = [1, 2, 3, 4, 5, 1, 2, 3, 4]
    model = keras.Sequential(
        [
            keras.Input((16, 8)),
            layers.Conv1D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling1D(2),
            layers.Bidirectional(layers.GRU(16, return_sequences=True)),
            layers.Dense(6),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=keras.losses.CTC())
    strips = (strips + 0.1 * rng.normal(size=strips.shape)).astype("float32")
    return KerasRun(model, strips, text, {**FIT, "epochs": 1})
