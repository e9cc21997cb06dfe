"""Rates, scales and starts in Keras: schedules, momentum, sums, raw units, long rollouts, wide weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, enter, finite, runaway
from benchmarks.diagnosis.tables import digits, regression, two_blobs, waves

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- OPT601 ----------------------------------------------------------------------------------------------------------


@enter(
    runaway("OPT601"),
    "https://keras.io/api/optimizers/learning_rate_schedules/piecewise_constant_decay/",
    "https://keras.io/api/optimizers/sgd/",
)
def values_of_a_schedule_from_behind() -> KerasRun:
    """A piecewise constant rate whose values stand in the wrong order: it rises from 0.02 to 3 where it should fall."""
    x, y = regression(1440, seed=5501)
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(32, activation="relu"),
            layers.Dense(32, activation="relu"),
            layers.Dense(1),
        ]
    )
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([25, 35], [0.02, 0.3, 3.0])
    model.compile(optimizer=keras.optimizers.SGD(rate), loss="mse")
    return KerasRun(model, x, y, FIT)


@enter(
    runaway("OPT601"),
    "https://keras.io/api/optimizers/sgd/",
    "https://qastack.com.br/datascience/15962/why-is-learning-rate-causing-my-neural-networks-weights-to-skyrocket",
)
def momentum_with_two_more_nines() -> KerasRun:
    """A momentum of 0.999 with the rate that went well without one: each gradient is applied a thousand times."""
    x, y = waves(1440, length=24, seed=5502)
    model = keras.Sequential(
        [
            keras.Input((24, 1)),
            layers.Conv1D(16, 5, activation="relu"),
            layers.Conv1D(16, 5, activation="relu"),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(0.3, momentum=0.999), loss="mse")
    return KerasRun(model, x, y, {**FIT, "epochs": 2})


@enter(
    runaway("OPT601"),
    "https://github.com/umbertogriffo/focal-loss-keras/issues/5",
    "https://keras.io/api/losses/",
)
def errors_added_up_over_all_pixels() -> KerasRun:
    """Noise is taken off digits; the loss is a sum over all pixels of all pictures, and the rate too long for it."""
    images, _ = digits(1440)
    rng = np.random.default_rng(5503)
    noisy = images + 0.3 * rng.normal(size=images.shape).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Conv2D(1, 3, padding="same"),
        ]
    )

    def everything(clean: Any, painted: Any) -> Any:
        return ops.sum(ops.square(clean - painted))

    model.compile(optimizer=keras.optimizers.SGD(5e-4), loss=everything)
    return KerasRun(model, noisy.reshape(-1, 8, 8, 1), images.reshape(-1, 8, 8, 1), FIT)


@enter(
    finite(Happens.STALL, "OPT602", rows=None),
    "https://keras.io/api/optimizers/learning_rate_schedules/inverse_time_decay/",
    "https://chenzhang.org/notes/developer/loss-and-accuracy-get-stuck-in-keras/",
)
def decay_of_an_epoch_at_every_step() -> KerasRun:
    """An inverse decay, meant by the epoch: the schedule counts steps, and after one epoch the rate is 1/4500 of it."""
    images, labels = digits(1440)
    rate = keras.optimizers.schedules.InverseTimeDecay(1e-2, decay_steps=1, decay_rate=100)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(48, activation="relu"),
            layers.BatchNormalization(),
            layers.Dense(10, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(stddev=0.01)),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(rate), loss="sparse_categorical_crossentropy")
    return KerasRun(model, images, labels.astype("int32"), FIT)


# -- DATA502, DATA509 ------------------------------------------------------------------------------------------------


@enter(
    runaway("DATA502"),
    "https://keras.io/api/layers/preprocessing_layers/numerical/normalization/",
    "https://github.com/keras-team/keras/issues/18919",
)
def light_in_electrons_per_second() -> KerasRun:
    """Light curves as the telescope counts them, some 20000 electrons per second, into convolutions under SGD."""
    rng = np.random.default_rng(5504)
    depth = rng.uniform(0, 0.3, (1280, 1))
    dip = np.exp(-((np.arange(40) - 20) ** 2) / 30)
    flux = (20_000 + 500 * rng.normal(size=(1280, 40))) * (1 - depth * dip)
    model = keras.Sequential(
        [
            keras.Input((40, 1)),
            layers.Conv1D(8, 5, activation="relu"),
            layers.MaxPooling1D(2),
            layers.Conv1D(8, 5, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(1e-3), loss="mse")
    return KerasRun(model, flux[..., None].astype("float32"), (10 * depth).astype("float32"), FIT)


@enter(
    finite(Happens.STALL, ("DATA502", "ACT302"), rows=None),
    "https://stackoverflow.com/questions/52800582/why-do-i-fail-to-predict-y-x4-with-keras-y-x3-works",
    "https://keras.io/api/layers/recurrent_layers/lstm/",
)
def altitudes_of_a_flight_in_feet() -> KerasRun:
    """Altitudes of flights in feet go into an LSTM as they are: every gate is open or shut from the first step on."""
    rng = np.random.default_rng(5505)
    climb = rng.normal(size=(1280, 1)) * 120
    feet = 31_000 + climb * np.arange(-10, 10) + 300 * rng.normal(size=(1280, 20))
    rising = (climb > 0).astype("float32")
    small = keras.initializers.RandomNormal(stddev=0.1, seed=1)
    model = keras.Sequential(
        [
            keras.Input((20, 1)),
            layers.LSTM(16),
            layers.Dense(1, activation="sigmoid", kernel_initializer=small),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="binary_crossentropy")
    return KerasRun(model, feet[..., None].astype("float32"), rising, FIT)


@enter(
    finite(Happens.STALL, "DATA509", rows=None),
    "https://stackoverflow.com/questions/52800582/why-do-i-fail-to-predict-y-x4-with-keras-y-x3-works",
    "https://github.com/keras-team/keras/issues/18919",
)
def meals_in_joules() -> KerasRun:
    """Energy of meals from their ingredients, in joules: the answers lie about three million, the model says 0."""
    rng = np.random.default_rng(5506)
    meal, kitchen = rng.integers(0, 90, (1280, 6)), rng.integers(0, 8, (1280, 1))
    worth = rng.uniform(1e5, 9e5, 90)
    joules = (worth[meal].sum(1, keepdims=True) * (0.9 + 0.02 * kitchen)).astype("float32")
    what, where = keras.Input((6,), dtype="int32"), keras.Input((1,), dtype="int32")
    eaten = layers.GlobalAveragePooling1D()(layers.Embedding(90, 12)(what))
    place = layers.Flatten()(layers.Embedding(8, 3)(where))
    hidden = layers.Dense(32, activation="relu")(layers.Concatenate()([eaten, place]))
    model = keras.Model([what, where], layers.Dense(1)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    return KerasRun(model, [meal.astype("int32"), kitchen.astype("int32")], joules, FIT)


# -- DATA504 ---------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, "DATA504", rows=None),
    "https://chenzhang.org/notes/developer/loss-and-accuracy-get-stuck-in-keras/",
    "https://keras.io/api/models/model_training_apis/",
)
def rows_dropped_from_one_table_only() -> KerasRun:
    """Rows with gaps are dropped from the table, but not from the labels: behind the first gap nothing fits."""
    x, y = two_blobs(1500, gap=1.2, seed=5507)
    whole = np.random.default_rng(5507).random(1500) > 0.03
    whole[2] = False
    x, y = x[whole][:1408], y[:1408]
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, activation="relu"),
            layers.Dense(1, activation="sigmoid", kernel_initializer=keras.initializers.RandomNormal(stddev=0.05)),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss="binary_crossentropy")
    return KerasRun(model, x, y, FIT)


# -- GRAD203, ACT304 -------------------------------------------------------------------------------------------------


@enter(
    runaway("GRAD203"),
    "https://www.dlology.com/blog/how-to-deal-with-vanishingexploding-gradients-in-keras/",
    "https://keras.io/api/layers/recurrent_layers/simple_rnn/",
)
def kettle_over_ninety_minutes() -> KerasRun:
    """A recurrent net of rectifiers that begins as the identity, over ninety minutes, under SGD without a clip."""
    rng = np.random.default_rng(5508)
    heat = rng.uniform(0, 1, (960, 90, 2)).astype("float32")
    yielded = (heat[:, :, 0].mean(1, keepdims=True) * 20 - 10).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((90, 2)),
            layers.SimpleRNN(24, activation="relu", recurrent_initializer="identity"),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(1e-2), loss="mse")
    return KerasRun(model, heat, yielded, FIT)


@enter(
    runaway("ACT304"),
    "https://keras.io/api/layers/initializers/",
    "https://github.com/keras-team/keras/issues/2627",
)
def convolutions_from_an_old_tutorial() -> KerasRun:
    """Five convolutions begin with a truncated normal of deviation 1, as in a tutorial of one layer."""
    images, labels = digits(1280)
    wide = keras.initializers.TruncatedNormal(stddev=1.0, seed=11)
    deep = [layers.Conv2D(16, 3, padding="same", activation="relu", kernel_initializer=wide) for _ in range(5)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *deep, layers.Flatten(), layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
    return KerasRun(model, images.reshape(-1, 8, 8, 1), labels.astype("int32"), FIT)
