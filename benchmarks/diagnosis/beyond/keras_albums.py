"""Pictures and sounds in Keras: capsules, boxes, waveforms, and tasks of a few examples."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import KerasRun, enter, healthy, non_finite
from benchmarks.diagnosis.tables import digits, waves

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- NAN113 ----------------------------------------------------------------------------------------------------------


class Squash(layers.Layer):
    """Shortens each capsule to a length below one and keeps its direction."""

    def call(self, capsules: Any) -> Any:
        squared = ops.sum(ops.square(capsules), axis=-1, keepdims=True)
        return ops.sqrt(squared) / (1 + squared) * capsules


@enter(
    non_finite("NAN113", "sqrt", "return ops.sqrt(squared)", modules=("squash",), phase="backward", rows=(13,)),
    "https://github.com/ageron/handson-ml/issues/173",
    "https://github.com/XifengGuo/CapsNet-Keras/pull/83",
    "https://github.com/jindongwang/Pytorch-CapsuleNet/issues/13",
    backends=("jax", "torch"),
)
def page_that_was_not_written_on() -> KerasRun:
    """A capsule of an empty page is the zero vector, at which the root in the squashing function has no slope."""
    images, labels = digits(1280)
    images = images + np.random.default_rng(7201).normal(0.05, 0.02, images.shape).astype("float32")
    images[30 * 32 + 13] = 0
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 4, strides=2, use_bias=False),
            layers.Reshape((-1, 8)),
            Squash(name="squash"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=loss)
    return KerasRun(model, images.reshape(-1, 8, 8, 1), labels, FIT)


# -- NAN112 ----------------------------------------------------------------------------------------------------------


class CompleteIoU(keras.losses.Loss):
    """Overlap, distance of the centres and difference of the slants of two boxes (centre, width, height)."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        centre, size = y_true[:, :2], y_true[:, 2:]
        found, extent = y_pred[:, :2], y_pred[:, 2:]
        left, right = (
            ops.maximum(centre - size / 2, found - extent / 2),
            ops.minimum(centre + size / 2, found + extent / 2),
        )
        common = ops.prod(ops.relu(right - left), axis=-1)
        union = ops.prod(size, axis=-1) + ops.prod(extent, axis=-1) - common
        distance = ops.sum(ops.square(centre - found), axis=-1)
        slant = ops.arctan(y_true[:, 2] / y_true[:, 3])
        guessed = ops.arctan(extent[:, 0] / (extent[:, 1] + 1e-6))
        return 1 - common / union + 4 * distance + 0.4 * ops.square(slant - guessed)


@enter(
    non_finite("NAN112", "divide", "slant = ops.arctan(y_true", modules=("",), rows=(21,)),
    "https://github.com/pythonlessons/TensorFlow-2.x-YOLOv3/issues/144",
    "https://github.com/tensorflow/addons/pull/914",
    "https://github.com/ultralytics/yolov5/issues/13416",
)
def box_that_is_only_a_click() -> KerasRun:
    """The slant in a box loss divides the width by the height; somebody clicked and did not drag: 0/0."""
    rng = np.random.default_rng(7202)
    low, size = rng.integers(0, 8, (1280, 2)), rng.integers(3, 9, (1280, 2))
    picture = rng.normal(0, 0.1, (1280, 16, 16, 1))
    for image, (x, y), (width, height) in zip(picture, low, size, strict=True):
        image[y : y + height, x : x + width] += 1
    box = np.concatenate([low + size / 2, size], axis=1) / 16
    box[28 * 32 + 21, 2:] = 0
    inputs = keras.Input((16, 16, 1))
    hidden = layers.Conv2D(8, 3, strides=2, activation="relu")(inputs)
    hidden = layers.Dense(32, activation="relu")(layers.Flatten()(hidden))
    boxes = layers.Concatenate()([layers.Dense(2)(hidden), layers.Dense(2, activation="softplus")(hidden)])
    model = keras.Model(inputs, boxes)
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss=CompleteIoU())
    return KerasRun(model, picture.astype("float32"), box.astype("float32"), FIT)


class Prototypes(layers.Layer):
    """Mean of the encoded examples of each class, and the distances of the question to them."""

    def __init__(self, encoder: Any, **more: Any) -> None:
        super().__init__(**more)
        self.encoder = encoder

    def call(self, examples: Any, member: Any, question: Any) -> Any:
        total = ops.einsum("bnk,bnd->bkd", member, self.encoder(examples))
        centres = total / ops.expand_dims(ops.sum(member, axis=1), axis=-1)
        away = self.encoder(ops.expand_dims(question, axis=1)) - centres
        return -ops.sum(ops.square(away), axis=-1)


@enter(
    non_finite("NAN112", "divide", "centres = total / ops.expand", modules=("prototypes",), rows=(25,)),
    "https://github.com/learnables/learn2learn/issues/19",
    "https://github.com/phlippe/uvadlc_notebooks/issues/103",
    "https://github.com/oarriaga/paz/pull/247",
)
def task_without_an_example_of_one_class() -> KerasRun:
    """A prototype is a mean of examples; the draw of one task gave no example of the third class: 0/0."""
    rng = np.random.default_rng(7203)
    member = np.eye(3)[np.concatenate([np.tile([0, 1, 2], (1280, 1)), rng.integers(0, 3, (1280, 6))], axis=1)]
    member[27 * 32 + 25] = np.eye(3)[[0, 1, 1, 0, 0, 1, 0, 1, 0]]
    centre = 2 * rng.normal(size=(1280, 3, 6))
    examples = np.einsum("bnk,bkd->bnd", member, centre) + rng.normal(size=(1280, 9, 6))
    asked = rng.integers(0, 2, 1280)
    question = centre[np.arange(1280), asked] + rng.normal(size=(1280, 6))
    encoder = keras.Sequential([layers.Dense(16, activation="relu"), layers.Dense(8)])
    inputs = keras.Input((9, 6), name="examples"), keras.Input((9, 3), name="member"), keras.Input((6,), name="asks")
    model = keras.Model(inputs, Prototypes(encoder, name="prototypes")(*inputs))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss)
    told = {"examples": examples, "member": member, "asks": question}
    return KerasRun(model, {name: array.astype("float32") for name, array in told.items()}, asked, FIT)


# -- NAN111 ----------------------------------------------------------------------------------------------------------


def discretised_logistic(y_true: Any, y_pred: Any) -> Any:
    """Minus the logarithm of the probability of each level of a waveform."""
    middle, scale = y_pred[..., :1], 0.05 + ops.exp(y_pred[..., 1:])
    upper = ops.sigmoid((y_true + 0.01 - middle) / scale)
    lower = ops.sigmoid((y_true - 0.01 - middle) / scale)
    return ops.mean(-ops.log(upper - lower), axis=(1, 2))


@enter(
    non_finite(("NAN111", "DATA503"), "log", "return ops.mean(-ops.log(upper", modules=("",), rows=(8,)),
    "https://github.com/r9y9/wavenet_vocoder/issues/23",
    "https://github.com/r9y9/wavenet_vocoder/issues/1",
    "https://github.com/Rayhane-mamah/Tacotron-2/issues/155",
)
def pop_of_a_microphone() -> KerasRun:
    """Both ends of a level far from the mean have probability 1 in float32: the log of their difference is -inf."""
    sound, _ = waves(1280, length=33, seed=7204)
    sound[38 * 32 + 8, 20] = 12
    inputs = keras.Input((32, 1))
    hidden = layers.Conv1D(16, 2, padding="causal", activation="tanh")(inputs)
    hidden = layers.Conv1D(16, 2, padding="causal", dilation_rate=2, activation="tanh")(hidden)
    model = keras.Model(inputs, layers.Conv1D(2, 1)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=discretised_logistic)
    return KerasRun(model, sound[:, :-1], sound[:, 1:], FIT)


# -- Healthy ---------------------------------------------------------------------------------------------------------


@enter(healthy(), "https://github.com/keras-team/keras/issues/16552")
def small_unet_in_half_precision() -> KerasRun:
    """A U-Net in mixed_float16 with a smoothed Dice loss in float32; some of the masks are empty."""
    rng = np.random.default_rng(7206)
    mask = np.zeros((1024, 16, 16, 1), "float32")
    for number, (row, column) in enumerate(rng.integers(0, 11, (1024, 2))):
        if number % 9:
            mask[number, row : row + 5, column : column + 5] = 1
    scan = (mask + 0.5 * rng.normal(size=mask.shape)).astype("float32")
    half: dict[str, Any] = {"padding": "same", "activation": "relu", "dtype": "mixed_float16"}
    inputs = keras.Input((16, 16, 1))
    fine = layers.Conv2D(8, 3, **half)(inputs)
    coarse = layers.Conv2D(12, 3, **half)(layers.MaxPooling2D(dtype="mixed_float16")(fine))
    joined = layers.Concatenate(dtype="mixed_float16")([fine, layers.UpSampling2D(dtype="mixed_float16")(coarse)])
    outputs = layers.Conv2D(1, 1, activation="sigmoid", dtype="float32")(layers.Conv2D(8, 3, **half)(joined))
    model = keras.Model(inputs, outputs)

    def dice(y_true: Any, y_pred: Any) -> Any:
        common = ops.sum(y_true * y_pred, axis=(1, 2, 3))
        whole = ops.sum(y_true + y_pred, axis=(1, 2, 3))
        return 1 - (2 * common + 1) / (whole + 1)

    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=dice)
    return KerasRun(model, scan, mask, FIT)
