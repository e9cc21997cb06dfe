"""Pictures, rates and half precision in Keras: raw bytes, confident detectors, a range test that was left on."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, Truth, enter, healthy, non_finite, runaway
from benchmarks.diagnosis.tables import digits, two_blobs, waves

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}
LOGITS: dict[str, Any] = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}


# -- DATA502, OPT601 -------------------------------------------------------------------------------------------------


@enter(
    runaway(("DATA502", "OPT601")),
    "https://github.com/keras-team/keras/issues/6260",
    "https://github.com/gabrieltseng/solar-panel-segmentation/issues/10",
    "https://github.com/piergiaj/pytorch-i3d/issues/84",
)
def bytes_without_rescaling() -> KerasRun:
    """Pixels from 0 to 255 go into a small network with a squared error, under SGD with momentum."""
    images, labels = digits(1280)
    one_hot = keras.utils.to_categorical(labels, 10)
    model = keras.Sequential(
        [keras.Input((64,)), layers.Dense(48, activation="leaky_relu"), layers.Dense(24), layers.Dense(10)]
    )
    model.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.9), loss="mse")
    return KerasRun(model, np.round(255 * images), one_hot, FIT)


class RangeTest(keras.callbacks.Callback):
    """Raises the rate with every batch, to find the one at which the loss explodes."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        optimizer = self.model.optimizer
        optimizer.learning_rate = float(optimizer.learning_rate) * 1.15


@enter(
    runaway("OPT601"),
    "https://github.com/pytorch/ignite/issues/1482",
    "https://github.com/titu1994/keras-one-cycle/issues/4",
    "https://github.com/surmenok/keras_lr_finder/pull/5",
)
def range_test_left_on() -> KerasRun:
    """The callback of the learning-rate range test is still in the list: the rate grows by 15 % with every batch."""
    images, labels = digits(1600)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, activation="elu"), layers.Dense(10)])
    model.compile(optimizer=keras.optimizers.SGD(1e-3, momentum=0.9), **LOGITS)
    return KerasRun(model, images, labels, {**FIT, "epochs": 2, "callbacks": [RangeTest()]})


# -- NAN110, NAN111, NAN112 ------------------------------------------------------------------------------------------


class Sampling(layers.Layer):
    """Draws a code, and adds the divergence to the loss."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.seeds = keras.random.SeedGenerator(7)

    def call(self, told: Any) -> Any:
        mean, log_variance = told
        self.add_loss(-1e-3 * ops.mean(1 + log_variance - ops.square(mean) - ops.exp(log_variance)))
        noise = keras.random.normal(ops.shape(mean), seed=self.seeds)
        return mean + ops.exp(log_variance / 2) * noise


@enter(
    non_finite(
        ("NAN110", "DATA503"),
        "exp",
        "self.add_loss(-1e-3 * ops.mean(1 + log_variance",
        modules=("sampling",),
        rows=(9,),
    ),
    "https://github.com/AppliedDataSciencePartners/WorldModels/issues/9",
    "https://github.com/y0ast/Variational-Autoencoder/issues/5",
    "https://github.com/vanderschaarlab/synthcity/issues/331",
)
def spectrum_in_other_units() -> KerasRun:
    """The exponential of an unbounded log-variance overflows for one spectrum that was stored in other units."""
    rng = np.random.default_rng(1601)
    peak = rng.uniform(4, 20, (1280, 1))
    spectrum = np.exp(-0.5 * (np.arange(24) - peak) ** 2 / 4) + 0.05 * rng.random((1280, 24))
    spectrum[27 * 32 + 9] *= 20_000
    inputs = keras.Input((24,))
    hidden = layers.Dense(24, activation="gelu")(inputs)
    told = layers.Dense(12, name="mean")(hidden), layers.Dense(12, name="log_variance")(hidden)
    model = keras.Model(inputs, layers.Dense(24)(Sampling(name="sampling")(told)))
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss="mae")
    return KerasRun(model, spectrum.astype("float32"), spectrum.astype("float32"), FIT)


def focal(y_true: Any, y_pred: Any) -> Any:
    """Binary focal loss with gamma 2, straight from the formula."""
    hit = y_true * ops.square(1 - y_pred) * ops.log(y_pred)
    return -ops.mean(hit + (1 - y_true) * ops.square(y_pred) * ops.log(1 - y_pred), axis=-1)


@enter(
    non_finite(
        "NAN111",
        "log",
        "return -ops.mean(hit + (1 - y_true) * ",
        modules=("",),
        rows=None,
    ),
    "https://github.com/mkocabas/focal-loss-keras/issues/17",
    "https://github.com/fudannlp16/focal-loss/issues/4",
    "https://github.com/keras-team/keras/issues/198",
)
def detector_that_is_sure() -> KerasRun:
    """A focal loss without epsilon; two clouds are far apart, the sigmoid becomes exactly 1, and log(1 - p) is -inf."""
    x, y = two_blobs(1920, gap=8.0, seed=1602)
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, activation="relu"), layers.Dense(1, activation="sigmoid")]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.03), loss=focal)
    return KerasRun(model, x, y, {**FIT, "epochs": 2})


def missed_share(y_true: Any, y_pred: Any) -> Any:
    """One minus the soft recall of each picture."""
    return 1 - ops.sum(y_true * y_pred, axis=(1, 2, 3)) / ops.sum(y_true, axis=(1, 2, 3))


def recall_and_crossentropy(y_true: Any, y_pred: Any) -> Any:
    """Two losses, summed."""
    return missed_share(y_true, y_pred) + ops.mean(keras.losses.binary_crossentropy(y_true, y_pred), axis=(1, 2))


@enter(
    non_finite(
        "NAN112", "divide", "return 1 - ops.sum(y_true * y_pred, axis=(1, 2, 3)) /", modules=("",), rows=(0, 16)
    ),
    "https://github.com/nasa/delta/pull/115",
    "https://github.com/Deci-AI/super-gradients/pull/982",
    "https://github.com/open-mmlab/mmocr/pull/408",
)
def patches_without_a_lesion() -> KerasRun:
    """The soft recall of a segmentation, without smoothing; two patches have nothing to be recalled."""
    rng = np.random.default_rng(1603)
    mask = np.zeros((1280, 10, 10, 1), "float32")
    for patch, (row, column) in zip(mask, rng.integers(0, 7, (1280, 2)), strict=True):
        patch[row : row + 3, column : column + 3] = 1
    mask[29 * 32] = mask[29 * 32 + 16] = 0
    scan = (mask + 0.4 * rng.normal(size=mask.shape)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((10, 10, 1)),
            layers.Conv2D(8, 3, padding="same", activation="swish"),
            layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
        ]
    )
    model.compile(optimizer="adam", loss=recall_and_crossentropy)
    return KerasRun(model, scan, mask, FIT)


# -- OPT604 ----------------------------------------------------------------------------------------------------------


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("OPT604", "DATA502"), rows=(23,)),
    "https://github.com/keras-team/keras/issues/16552",
    "https://github.com/keras-team/keras/issues/11832",
    "https://github.com/matterport/Mask_RCNN/issues/1482",
)
def income_above_sixty_five_thousand() -> KerasRun:
    """Incomes as they are, under mixed_float16: what is above 65504 is infinite as soon as the first layer casts it."""
    rng = np.random.default_rng(1604)
    person = rng.normal(size=(1280, 6)).astype("float32")
    income = 28_000 * np.exp(0.25 * person[:, 0])
    person[:, 5] = np.minimum(income, 60_000)
    person[26 * 32 + 23, 5] = 71_000
    votes = (person[:, 1] + person[:, 2] > 0).astype("float32")[:, None]
    inputs = keras.Input((6,))
    hidden = layers.Dense(24, activation="tanh", dtype="mixed_float16")(inputs)
    model = keras.Model(inputs, layers.Dense(1, dtype="float32")(hidden))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss)
    return KerasRun(model, person, votes, FIT)


# -- Healthy ---------------------------------------------------------------------------------------------------------


@enter(healthy(), "https://github.com/keras-team/keras/issues/16552")
def bytes_under_bfloat16() -> KerasRun:
    """Bytes behind a Rescaling layer, mixed_bfloat16, a last layer in float32, and class weights."""
    images, labels = digits(1280)
    half = "mixed_bfloat16"
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(12, 3, activation="relu", dtype=half),
            layers.Flatten(),
            layers.Dense(32, activation="relu", dtype=half),
            layers.Dense(10, dtype="float32"),
        ]
    )
    model.compile(optimizer=keras.optimizers.AdamW(5e-3), **LOGITS)
    raw = np.round(255 * images).reshape(-1, 8, 8, 1).astype("float32")
    weight = {kind: 0.5 + 0.1 * kind for kind in range(10)}
    return KerasRun(model, raw, labels, {**FIT, "epochs": 2, "class_weight": weight})


@enter(healthy(), "https://github.com/keras-team/keras/issues/3425")
def gru_behind_a_mask() -> KerasRun:
    """Sequences of many lengths behind a Masking layer, a GRU, and clipped gradients."""
    series, following = waves(1280, seed=1606)
    length = np.random.default_rng(1606).integers(10, 41, 1280)
    series[np.arange(40) < 40 - length[:, None]] = -9
    model = keras.Sequential([keras.Input((40, 1)), layers.Masking(-9.0), layers.GRU(16), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(0.01, global_clipnorm=1.0), loss="huber")
    return KerasRun(model, series, following, FIT)


@enter(healthy(), "https://github.com/mkocabas/focal-loss-keras/issues/17")
def focal_loss_of_the_library() -> KerasRun:
    """The library's focal loss on clouds far apart: the sigmoid becomes exactly 1, and nothing happens."""
    x, y = two_blobs(1920, gap=6.0, seed=1607)
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, activation="relu"), layers.Dense(1, activation="sigmoid")]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.02), loss=keras.losses.BinaryFocalCrossentropy())
    return KerasRun(model, x, y, FIT)
