"""How a model is trained, in Keras: optimizers, schedules, callbacks, pairs, and where the weights begin."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, enter, finite, runaway
from benchmarks.diagnosis.tables import digits, regression, two_blobs

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 2, "shuffle": False}
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@enter(
    runaway("OPT601"),
    "https://github.com/wandb/senpai/pull/2871",
    "https://github.com/keras-team/keras/issues/21",
)
def lion_at_the_rate_of_sgd() -> KerasRun:
    """SGD at 0.1 is replaced by Lion at 0.1: every weight moves by a tenth at every step."""
    images, labels = digits(1280)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.GaussianNoise(0.1, seed=1),
            layers.Dense(128, activation="relu"),
            layers.Dense(128, activation="relu"),
            layers.Dense(128, activation="relu"),
            layers.Dense(10),
        ]
    )
    model.compile(optimizer=keras.optimizers.Lion(0.1), loss=SPARSE)
    return KerasRun(model, images, labels, FIT)


@enter(
    runaway("OPT601"),
    "https://github.com/kiudee/cs-ranking/issues/58",
    "https://github.com/rstudio/keras3/issues/462",
)
def inverse_time_decay_with_a_minus() -> KerasRun:
    """Someone wrote the decay as a negative number: the rate is divided by one minus a fiftieth of the steps."""
    x, y = regression(1280)
    rate = keras.optimizers.schedules.InverseTimeDecay(0.05, decay_steps=1, decay_rate=-0.0198)
    model = keras.Sequential(
        [keras.Input((10,)), layers.Dense(32, activation="relu"), layers.Dense(32, activation="relu"), layers.Dense(1)]
    )
    model.compile(optimizer=keras.optimizers.SGD(rate), loss="mse")
    return KerasRun(model, x, y, FIT)


# -- callbacks -------------------------------------------------------------------------------------------------------


class Agreement(layers.Layer):
    """Two views of a picture should have the same features; what that is worth is set from outside."""

    def build(self, input_shape: Any) -> None:
        self.worth = self.add_weight(shape=(), initializer="zeros", trainable=False, name="worth")

    def call(self, pair: Any) -> Any:
        first, second = pair
        self.add_loss(self.worth * ops.mean(ops.square(first - second)))
        return first


class FromBatch(keras.callbacks.Callback):
    """Sets the weight of the second term once the first has been learnt."""

    def __init__(self, batch: int, worth: float) -> None:
        super().__init__()
        self.batch, self.worth = batch, worth

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == self.batch:
            layer = self.model.get_layer("agreement")
            layer.set_weights([np.float32(self.worth)])


@enter(
    finite(Happens.SPIKE, "LOSS405"),
    "https://github.com/keras-team/keras/issues/8332",
    "https://keras.io/guides/writing_your_own_callbacks/",
    backends=("torch",),
)
def agreement_that_counts_from_the_thirtieth_batch() -> KerasRun:
    """A callback gives the consistency of two noisy views a weight of a hundred in the middle of the training."""
    images, labels = digits(1280)
    picture = keras.Input((64,))
    body = keras.Sequential([layers.Dense(64, activation="relu"), layers.Dense(32)], name="body")
    views = [body(layers.GaussianNoise(0.3, seed=seed)(picture)) for seed in (1, 2)]
    features = Agreement(name="agreement")(views)
    model = keras.Model(picture, layers.Dense(10)(features))
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=SPARSE)
    return KerasRun(model, images, labels, {**FIT, "epochs": 1, "callbacks": [FromBatch(30, 100.0)]})


class RestoreBest(keras.callbacks.Callback):
    """Goes back to the best weights when the loss has risen; it compares the wrong way round."""

    def __init__(self, patience: int) -> None:
        super().__init__()
        self.patience = patience

    def on_train_begin(self, logs: Any = None) -> None:
        self.best, self.weights, self.since = -np.inf, self.model.get_weights(), 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.since += 1
        if logs["loss"] > self.best:
            self.best, self.weights, self.since = logs["loss"], self.model.get_weights(), 0
        elif self.since >= self.patience:
            self.model.set_weights(self.weights)
            self.since = 0


@enter(
    finite(Happens.SPIKE, "OPT609"),
    "https://github.com/keras-team/keras/issues/8332",
    "https://keras.io/api/callbacks/early_stopping/",
    backends=("torch",),
)
def restored_to_what_it_took_for_the_best() -> KerasRun:
    """A callback restores the "best" weights after thirty steps without a record: those of the highest loss."""
    x, sold = two_blobs(1280)
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(32, activation="relu"), layers.Dense(1, activation="sigmoid")]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="binary_crossentropy")
    return KerasRun(model, x, sold, {**FIT, "callbacks": [RestoreBest(30)]})


# -- pairs, and where weights begin ----------------------------------------------------------------------------------


def contrastive_pairs(y_true: Any, y_pred: Any) -> Any:
    """`y_true` is 1 for pictures of the same kind; `y_pred` is their squared distance."""
    return ops.mean(y_true * y_pred + (1.0 - y_true) * ops.square(ops.maximum(2.0 - ops.sqrt(y_pred + 1e-6), 0.0)))


@enter(
    finite(Happens.SPIKE, ("DATA504", "DATA512"), rows=None),
    "https://github.com/keras-team/keras/issues/9498",
    "https://github.com/tensorflow/addons/pull/1966",
)
def pairs_of_a_file_that_counts_differences() -> KerasRun:
    """A siamese network; from batch 60 on the pairs come from a file in which 1 means "different"."""
    rng = np.random.default_rng(1)
    kind = rng.integers(0, 2, (3200, 2))
    centre = 2.0 * np.array([[1.0] * 6, [-1.0] * 6])
    left, right = ((centre[kind[:, side]] + 0.3 * rng.normal(size=(3200, 6))).astype("float32") for side in (0, 1))
    same = (kind[:, 0] == kind[:, 1]).astype("float32")[:, None]
    same[60 * 32 :] = 1 - same[60 * 32 :]
    first, second = keras.Input((6,)), keras.Input((6,))
    tower = keras.Sequential([layers.Dense(16, activation="relu"), layers.Dense(4)], name="tower")
    gap = layers.Subtract()([tower(first), tower(second)])
    distance = layers.Lambda(lambda d: ops.sum(ops.square(d), axis=-1, keepdims=True), output_shape=(1,))(gap)
    model = keras.Model([first, second], distance)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=contrastive_pairs)
    return KerasRun(model, [left, right], same, {**FIT, "epochs": 1})


@enter(
    finite(Happens.STALL, ("ACT304", "GRAD202")),
    "https://www.tensorflow.org/tutorials/generative/dcgan",
    "https://github.com/keras-team/keras/issues/2711",
)
def initialiser_of_a_gan_in_a_deep_autoencoder() -> KerasRun:
    """A normal of 0.02, as adversarial papers have it, in ten narrow layers without any normalisation."""
    images, _ = digits(1280)
    start = keras.initializers.RandomNormal(stddev=0.02)
    widths = (64, 48, 48, 32, 32, 48, 48, 64, 64)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            *(layers.Dense(width, activation="relu", kernel_initializer=start) for width in widths),
            layers.Dense(64, kernel_initializer=start),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss="mse")
    mean = images.mean(0)
    return KerasRun(model, 3 * (images - mean), 3 * (images - mean), {**FIT, "epochs": 3})
