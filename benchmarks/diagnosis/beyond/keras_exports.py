"""Data that spoil a Keras run: another amplifier, a total that wraps, records sorted by kind, two different splits."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, enter, finite
from benchmarks.diagnosis.tables import digits, regression, waves

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- DATA503 ---------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.SPIKE, "DATA503", rows=(12,)),
    "https://github.com/online-ml/river/issues/669",
    "https://github.com/blebreton/spark-FM-parallelSGD/issues/5",
    "https://github.com/keras-team/keras/issues/2134",
)
def console_that_was_never_switched_off() -> KerasRun:
    """A wide-and-deep model of players gets one player's hours of play as a number beyond all the others."""
    rng = np.random.default_rng(7401)
    player, game = rng.integers(0, 60, (1280, 1)), rng.integers(0, 40, (1280, 1))
    habits = rng.normal(size=(1280, 5)).astype("float32")
    fun = (
        0.8 * habits[:, :1] - 0.5 * habits[:, 1:2] + rng.normal(size=60)[player] * 0.5 + rng.normal(size=40)[game] * 0.3
    )
    habits[36 * 32 + 12, 1] = 300
    inputs = (
        keras.Input((1,), name="player", dtype="int32"),
        keras.Input((1,), name="game", dtype="int32"),
        keras.Input((5,), name="habits"),
    )
    who, what = (layers.Flatten()(layers.Embedding(60, 6)(told)) for told in inputs[:2])
    deep = layers.Dense(24, activation="relu")(layers.Concatenate()([who, what, inputs[2]]))
    model = keras.Model(inputs, layers.Dense(1)(layers.Concatenate()([deep, inputs[2]])))
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="mse")
    told = {"player": player.astype("int32"), "game": game.astype("int32"), "habits": habits}
    return KerasRun(model, told, fun.astype("float32"), FIT)


# -- DATA504 ---------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.SPIKE, "DATA504", rows=(19,)),
    "https://github.com/keras-team/keras/issues/4563",
    "https://github.com/rstudio-conf-2020/dl-keras-tf/issues/9",
    "https://github.com/keras-team/keras/issues/11014",
)
def rent_that_was_given_in_cents() -> KerasRun:
    """A model with two outputs, price and rent; one of the rents is in cents."""
    x, y = regression(1280, seed=7402)
    rent = (0.5 * y + 0.3 * x[:, :1]).astype("float32")
    rent[33 * 32 + 19] = 60
    inputs = keras.Input((10,))
    hidden = layers.Dense(32, activation="relu")(inputs)
    hidden = layers.LayerNormalization()(layers.Dense(24, activation="relu")(hidden))
    model = keras.Model(inputs, {"price": layers.Dense(1, name="price")(hidden), "rent": layers.Dense(1)(hidden)})
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss={"price": "mse", "rent": "mse"})
    return KerasRun(model, x, {"price": y, "rent": rent}, FIT)


@enter(
    finite(Happens.STALL, "DATA504"),
    "https://github.com/keras-team/keras/issues/15846",
    "https://github.com/keras-team/keras/issues/6955",
    "https://github.com/microsoft/CNTK/issues/3792",
)
def two_splits_with_two_seeds() -> KerasRun:
    """Recordings and diagnoses were shuffled with another seed each: they do not belong together any more."""
    rng = np.random.default_rng(7403)
    ill = rng.integers(0, 2, 1280)
    beats, _ = waves(1280, length=30, seed=7403)
    beats = beats * (1 + 0.8 * ill[:, None, None]) + 0.2 * rng.normal(size=beats.shape)
    patient = rng.normal(size=(1280, 4)) + 0.8 * ill[:, None]
    first = np.random.default_rng(1).permutation(1280)
    second = np.random.default_rng(2).permutation(1280)
    inputs = keras.Input((30, 1), name="beats"), keras.Input((4,), name="patient")
    found = layers.GlobalMaxPooling1D()(layers.Conv1D(12, 5, activation="relu")(inputs[0]))
    hidden = layers.Dense(16, activation="relu")(layers.Concatenate()([found, inputs[1]]))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid", kernel_initializer="zeros")(hidden))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="binary_crossentropy")
    told = {"beats": beats[first].astype("float32"), "patient": patient[first].astype("float32")}
    return KerasRun(model, told, ill[second].astype("float32")[:, None], FIT)


# -- DATA512 ---------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.SPIKE, "DATA512"),
    "https://github.com/keras-team/keras/issues/6955",
    "https://github.com/microsoft/CNTK/issues/3792",
    "https://github.com/keras-team/keras/issues/4563",
)
def second_ward_with_another_amplifier() -> KerasRun:
    """A convolutional autoencoder of brain waves: from the 34th batch on they come from an amplifier with more gain."""
    rng = np.random.default_rng(7404)
    sources = np.cumsum(rng.normal(size=(1280, 32, 2)), axis=1)
    brain = sources @ rng.normal(size=(2, 4)) + 0.3 * rng.normal(size=(1280, 32, 4))
    brain = (brain - brain.mean(1, keepdims=True)) / brain.std()
    brain[34 * 32 :] *= 7
    brain = brain.astype("float32")
    inputs = keras.Input((32, 4))
    code = layers.Conv1D(12, 5, strides=2, padding="same", activation="elu")(inputs)
    code = layers.Conv1D(6, 3, padding="same", activation="elu")(code)
    wide = layers.Conv1DTranspose(12, 5, strides=2, padding="same", activation="elu")(code)
    model = keras.Model(inputs, layers.Conv1D(4, 3, padding="same")(wide))
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="mse")
    return KerasRun(model, brain, brain, FIT)


# -- DATA507 ---------------------------------------------------------------------------------------------------------


def in_ten_thousands_of_loaves(y_true: Any, y_pred: Any) -> Any:
    """Squared error in a unit that suits the network."""
    return ops.mean(ops.square(ops.cast(y_true, "float32") / 10_000 - y_pred), axis=-1)


@enter(
    finite(Happens.SPIKE, ("DATA507", "DATA504"), rows=(5,)),
    "https://github.com/numpy/numpy/issues/21237",
    "https://github.com/dwave-examples/image-segmentation/issues/10",
    "https://github.com/open-edge-platform/datumaro/issues/317",
)
def bakery_that_sold_more_than_ever() -> KerasRun:
    """Loaves of all shops are added up in 16 bits; on the best day the sum wraps around to a negative number."""
    rng = np.random.default_rng(7405)
    day = rng.normal(size=(1280, 6)).astype("float32")
    level = 2400 + 180 * day[:, :1] - 120 * day[:, 1:2] + 60 * day[:, 2:3] * day[:, 3:4]
    shops = np.round(level.clip(1500, 3100) + rng.normal(0, 20, (1280, 10)))
    best = 35 * 32 + 5
    day[best, :2] = 2.6, -2.4
    shops[best] += 3400 - shops[best].mean()
    total = shops.astype("int16").sum(1, keepdims=True, dtype="int16")
    one = keras.initializers.Constant(2.4)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(24, activation="gelu"), layers.Dense(1, bias_initializer=one)]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=in_ten_thousands_of_loaves)
    return KerasRun(model, day, total, FIT)


# -- DATA510, DATA512 ------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.SPIKE, ("DATA510", "DATA512")),
    "https://github.com/keras-team/keras/issues/6955",
    "https://github.com/keras-team/keras/issues/15846",
    "https://github.com/microsoft/CNTK/issues/3792",
)
def attacks_at_the_end_of_the_log() -> KerasRun:
    """A log of connections is sorted by its label: a thousand ordinary ones, and only then the attacks."""
    rng = np.random.default_rng(7406)
    attack = (np.arange(1280) >= 1024).astype("float32")[:, None]
    ports = rng.integers(0, 50, (1280, 4))
    sizes = rng.normal(size=(1280, 6)) + 0.7 * attack
    inputs = keras.Input((4,), name="ports", dtype="int32"), keras.Input((6,), name="sizes")
    seen = layers.GlobalAveragePooling1D()(layers.Embedding(50, 8)(inputs[0]))
    hidden = layers.Dense(24, activation="relu")(layers.Concatenate()([seen, inputs[1]]))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(hidden))
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="binary_crossentropy")
    told = {"ports": ports.astype("int32"), "sizes": sizes.astype("float32")}
    return KerasRun(model, told, attack, FIT)


# -- DATA508 ---------------------------------------------------------------------------------------------------------


class AgeModel(keras.Model):
    """A small convolutional network with a loss of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.found = layers.Conv2D(12, 3, activation="relu")
        self.flat = layers.Flatten()
        self.hidden = layers.Dense(24, activation="relu")
        self.age = layers.Dense(1)

    def call(self, picture: Any) -> Any:
        return self.age(self.hidden(self.flat(self.found(picture))))

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *more: Any, **named: Any) -> Any:
        return ops.mean(ops.square(y - y_pred))


@enter(
    finite(Happens.STALL, "DATA508"),
    "https://github.com/keras-team/tf-keras/issues/381",
    "https://github.com/keras-team/keras/issues/15357",
    "https://github.com/keras-team/keras/issues/3058",
)
def age_of_everybody_from_every_face() -> KerasRun:
    """A loss in compute_loss takes a vector of ages from a column of predictions: each is compared with every other."""
    images, labels = digits(1280)
    age = ((labels - 4.5) / 2.9).astype("float32")
    model = AgeModel()
    model.compile(optimizer=keras.optimizers.Adam(3e-3))
    return KerasRun(model, images.reshape(-1, 8, 8, 1), age, FIT)


# -- DATA506 ---------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, "DATA506"),
    "https://github.com/tensorflow/docs/pull/2260",
    "https://github.com/dmlc/gluon-nlp/issues/680",
    "https://github.com/keras-team/keras-preprocessing/issues/97",
)
def headlines_in_capitals() -> KerasRun:
    """The vocabulary has small letters, the texts have capitals: every word becomes the number of unknown words."""
    rng = np.random.default_rng(7407)
    words = np.array([f"word{number}" for number in range(60)])
    sport = rng.integers(0, 2, 1280)
    texts = words[rng.integers(0, 40, (1280, 10)) + 20 * (sport[:, None] & (rng.random((1280, 10)) < 0.6))]
    table = {word: number + 2 for number, word in enumerate(words)}
    tokens = np.array([[table.get(word.upper(), 1) for word in text] for text in texts], "int32")
    inputs = keras.Input((10,), dtype="int32")
    hidden = layers.Bidirectional(layers.GRU(8))(layers.Embedding(62, 8)(inputs))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(hidden))
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="binary_crossentropy")
    return KerasRun(model, tokens, sport.astype("float32")[:, None], FIT)
