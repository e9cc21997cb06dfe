"""First models in Keras that do not learn, as their owners describe them: pictures, tunes, tags, prices, parcels."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, enter, finite
from benchmarks.diagnosis.tables import digits, regression, two_blobs

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- LOSS403, LOSS404 ------------------------------------------------------------------------------------------------


class Pairs(keras.Model):
    """Pictures and their captions, each to find the other within its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.picture, self.caption = layers.Dense(16), layers.Dense(16)
        self.entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def call(self, inputs: Any) -> Any:
        picture, caption = inputs
        a = ops.normalize(self.picture(picture), axis=-1)
        b = ops.normalize(self.caption(caption), axis=-1)
        return ops.softmax(10 * ops.matmul(a, ops.transpose(b)), axis=-1)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *_: Any, **__: Any) -> Any:
        return self.entropy(ops.arange(64), y_pred)


@enter(
    finite(Happens.STALL, "LOSS403", rows=None),
    "https://github.com/keras-team/keras/issues/15271",
    "https://github.com/keras-team/keras/issues/6143",
    backends=("jax", "torch"),
)
def captions_through_two_softmaxes() -> KerasRun:
    """Pictures and captions in a contrastive loss of logits; the model hands over probabilities."""
    rng = np.random.default_rng(5401)
    meaning = rng.normal(size=(64 * 24, 10))
    picture = (meaning @ rng.normal(size=(10, 20)) / 3 + 0.3 * rng.normal(size=(64 * 24, 20))).astype("float32")
    caption = (meaning @ rng.normal(size=(10, 12)) / 3 + 0.3 * rng.normal(size=(64 * 24, 12))).astype("float32")
    model = Pairs()
    model.compile(optimizer=keras.optimizers.Adam(5e-3))
    return KerasRun(model, (picture, caption), np.zeros(64 * 24, "int32"), {**FIT, "batch_size": 64})


@enter(
    finite(Happens.STALL, "LOSS404", rows=None),
    "https://github.com/tensorflow/tensorflow/issues/28718",
    "https://keras.io/api/losses/probabilistic_losses/",
    backends=("jax", "torch"),
)
def chords_without_a_softmax() -> KerasRun:
    """The chord that follows eight others, from a GRU under a cross-entropy of probabilities; no softmax anywhere."""
    rng = np.random.default_rng(5402)
    chords = np.zeros((1440, 9), "int32")
    chords[:, 0] = rng.integers(0, 12, 1440)
    for beat in range(1, 9):
        jump = np.where(rng.random(1440) < 0.8, 7, rng.integers(0, 12, 1440))
        chords[:, beat] = (chords[:, beat - 1] + jump) % 12
    model = keras.Sequential(
        [
            keras.Input((8,), dtype="int32"),
            layers.Embedding(12, 12),
            layers.GRU(24),
            layers.Dense(24, activation="relu"),
            layers.Dense(12),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="sparse_categorical_crossentropy")
    return KerasRun(model, chords[:, :8], chords[:, 8], FIT)


# -- GRAD202 ---------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, "GRAD202", rows=None),
    "https://www.dlology.com/blog/how-to-deal-with-vanishingexploding-gradients-in-keras/",
    "https://keras.io/api/layers/activations/",
)
def autoencoder_of_fourteen_sigmoids() -> KerasRun:
    """An autoencoder of digits, seven layers down and seven up, all of them sigmoids; it paints the mean digit."""
    images, _ = digits(1440)
    widths = (56, 48, 40, 32, 24, 16, 12, 16, 24, 32, 40, 48, 56)
    deep = [layers.Dense(width, activation="sigmoid") for width in widths]
    mean = images.mean(0).clip(0.01, 0.99)
    start = keras.initializers.Constant(np.log(mean / (1 - mean)))
    small = keras.initializers.RandomNormal(stddev=0.05, seed=7)
    last = layers.Dense(64, activation="sigmoid", kernel_initializer=small, bias_initializer=start)
    model = keras.Sequential([keras.Input((64,)), *deep, last])
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="mse")
    return KerasRun(model, images, images, {**FIT, "epochs": 2})


# -- OPT602 ----------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, "OPT602", rows=None),
    "https://github.com/tensorflow/tensorflow/issues/36785",
    "https://github.com/keras-team/keras/issues/3889",
)
def adadelta_as_it_comes() -> KerasRun:
    """An old book compiles with Adadelta(); its rate was 1 in those days and is 0.001 now."""
    images, labels = digits(1440)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(12, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adadelta(), loss="categorical_crossentropy")
    return KerasRun(model, images.reshape(-1, 8, 8, 1), keras.utils.to_categorical(labels, 10), {**FIT, "epochs": 2})


# -- ACT302, ACT303, ACT305 ------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, ("ACT302", "ACT304"), rows=None),
    "https://datascience.stackexchange.com/questions/38604/too-low-accuracy-on-mnist-dataset-using-a-neural-network",
    "https://keras.io/api/layers/initializers/",
)
def words_thirty_apart() -> KerasRun:
    """Words begin between -30 and 30 in their table; the recurrent layer behind it stands at its stops."""
    rng = np.random.default_rng(5403)
    words = rng.integers(0, 60, (1280, 8))
    mood = rng.normal(size=60)
    happy = (mood[words[:, :6]].sum(1) > 0).astype("float32")[:, None]
    wide = keras.initializers.RandomUniform(-30, 30, seed=8)
    model = keras.Sequential(
        [
            keras.Input((8,), dtype="int32"),
            layers.Embedding(60, 8, embeddings_initializer=wide),
            layers.SimpleRNN(24),
            layers.Dense(1, activation="sigmoid", kernel_initializer=keras.initializers.RandomNormal(stddev=0.05)),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="binary_crossentropy")
    return KerasRun(model, words.astype("int32"), happy, {**FIT, "epochs": 2})


@enter(
    finite(Happens.STALL, ("ACT303", "DATA502"), rows=None),
    "https://stats.stackexchange.com/questions/450100/understanding-relu-does-this-unlucky-intialized-network-assign-all-instances",
    "https://keras.io/api/layers/constraints/",
)
def shares_as_logarithms_under_positive_weights() -> KerasRun:
    """Logarithms of shares are all negative, the weights may only be positive: not one of the rectifiers fires."""
    rng = np.random.default_rng(5404)
    shares = rng.dirichlet(np.full(6, 2.0), 1280)
    price = (4 * shares[:, :1] - 2 * shares[:, 1:2] + 0.1 * rng.normal(size=(1280, 1))).astype("float32")
    positive = {
        "kernel_constraint": "non_neg",
        "kernel_initializer": keras.initializers.RandomUniform(0.0, 0.3, seed=6),
    }
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(24, activation="relu", **positive),
            layers.Dense(12, activation="relu"),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss="mse")
    return KerasRun(model, np.log(shares).astype("float32"), (price - price.mean()) / price.std(), FIT)


@enter(
    finite(Happens.STALL, "ACT305", rows=None),
    "https://datascience.stackexchange.com/questions/38604/too-low-accuracy-on-mnist-dataset-using-a-neural-network",
    "https://keras.io/api/layers/initializers/",
)
def filters_that_are_all_the_same() -> KerasRun:
    """A small network for digits; every kernel begins at the constant 0.05, so that twelve filters are one filter."""
    images, labels = digits(1440)
    same = keras.initializers.Constant(0.05)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(12, 3, activation="relu", kernel_initializer=same),
            layers.Flatten(),
            layers.Dense(32, activation="relu", kernel_initializer=same),
            layers.Dense(10, activation="softmax", kernel_initializer=same),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="sparse_categorical_crossentropy")
    return KerasRun(model, images.reshape(-1, 8, 8, 1), labels.astype("int32"), FIT)


# -- DATA5 -----------------------------------------------------------------------------------------------------------


class UpperDecile(keras.losses.Loss):
    """Pinball loss of the quantile of 90 %."""

    def call(self, y: Any, forecast: Any) -> Any:
        miss = y - forecast
        return ops.mean(ops.maximum(0.9 * miss, -0.1 * miss), axis=-1)


@enter(
    finite(Happens.STALL, "DATA508", rows=None),
    "https://github.com/keras-team/keras/issues/19662",
    "https://github.com/keras-team/keras/issues/8813",
)
def quantile_of_everybody() -> KerasRun:
    """Quantiles of parcels per day: a vector of targets meets a column of forecasts and becomes a square."""
    x, y = regression(1440, seed=5405)
    start = keras.initializers.Constant(1.3)
    model = keras.Sequential(
        [keras.Input((10,)), layers.Dense(32, activation="relu"), layers.Dense(1, bias_initializer=start)]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=UpperDecile())
    return KerasRun(model, x, y[:, 0], FIT)


@enter(
    finite(Happens.STALL, "DATA506", rows=None),
    "https://scikit-learn.org/stable/modules/feature_selection.html#removing-features-with-low-variance",
    "https://github.com/keras-team/keras/issues/7023",
)
def kelvins_clipped_to_one() -> KerasRun:
    """Profiles of temperature in Kelvin are cut to the range from 0 to 1, as one does with pictures: all become 1."""
    rng = np.random.default_rng(5406)
    ground = 285 + 8 * rng.normal(size=(1280, 1))
    kelvins = (ground - 6.5 * np.linspace(0, 4, 16) + rng.normal(size=(1280, 16))).astype("float32")
    rain = (ground[:, 0] + 2 * rng.normal(size=1280) > 285).astype("float32")[:, None]
    model = keras.Sequential(
        [
            keras.Input((16, 1)),
            layers.Conv1D(8, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="binary_crossentropy")
    return KerasRun(model, np.clip(kelvins, 0, 1)[..., None], rain, FIT)


@enter(
    finite(Happens.STALL, "DATA510", rows=None),
    "https://codemia.io/knowledge-hub/path/keras_accuracy_does_not_change",
    "https://keras.io/api/losses/probabilistic_losses/#binarycrossentropy-class",
)
def defects_that_were_filtered_out() -> KerasRun:
    """A line of a script keeps only the parts without a defect; smoothed labels, and a bias set for rare defects."""
    x, y = two_blobs(2560, gap=0.8, seed=5407)
    good = y[:, 0] == 0
    rare = keras.initializers.Constant(-2.2)
    small = keras.initializers.RandomNormal(stddev=0.02, seed=2)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(24, activation="relu"),
            layers.Dense(1, activation="sigmoid", bias_initializer=rare, kernel_initializer=small),
        ]
    )
    loss = keras.losses.BinaryCrossentropy(label_smoothing=0.2)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss)
    return KerasRun(model, x[good][:1216], y[good][:1216], FIT)


@enter(
    finite(Happens.STALL, ("DATA505", "DATA509"), rows=None),
    "https://community.deeplearning.ai/t/loss-values-do-not-change/324182",
    "https://keras.io/api/layers/activations/",
)
def bearings_in_degrees_behind_a_tanh() -> KerasRun:
    """Bearings from 0 to 360 degrees, asked of a model whose last layer is a tanh."""
    rng = np.random.default_rng(5408)
    angle = rng.uniform(0, 2 * np.pi, (1280, 1))
    x = np.concatenate([np.cos(angle), np.sin(angle), rng.normal(size=(1280, 3))], axis=1).astype("float32")
    degrees = np.degrees(angle).astype("float32")
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(32, activation="relu"), layers.Dense(1, activation="tanh")]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mae")
    return KerasRun(model, x, degrees, FIT)
