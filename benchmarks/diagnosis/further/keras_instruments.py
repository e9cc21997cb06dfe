"""Measuring in Keras: compasses, lathes, sky, slides, caps of electrodes, tortoises; formulas written out by hand."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import KerasRun, enter, non_finite

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- NAN110 ----------------------------------------------------------------------------------------------------------


class Compass(layers.Layer):
    """Logarithm of the density of a direction: von Mises, the more concentrated the more sightings there were."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.mean = layers.Dense(1)
        self.sharpness = layers.Dense(1)
        self.circle = np.linspace(-np.pi, np.pi, 65, dtype="float32")[None, :-1]

    def call(self, ship: Any, sightings: Any, heading: Any) -> Any:
        kappa = ops.softplus(self.sharpness(ship)) * sightings
        mass = ops.mean(ops.exp(kappa * ops.cos(self.circle)), axis=1, keepdims=True)
        return kappa * ops.cos(heading - self.mean(ship)) - ops.log(mass)


@enter(
    non_finite(
        ("NAN110", "DATA503"), "exp", "mass = ops.mean(ops.exp(kappa * ops.cos", modules=("compass",), rows=(19,)
    ),
    "https://github.com/tensorflow/tensorflow/issues/42889",
    "https://pytorch.org/docs/stable/notes/numerical_accuracy.html",
)
def heading_that_was_sighted_all_night() -> KerasRun:
    """Headings of ships under a von Mises density without a shift; one ship was sighted 900 times, others twenty."""
    rng = np.random.default_rng(5101)
    ship = rng.normal(size=(1280, 5)).astype("float32")
    sightings = rng.integers(1, 20, (1280, 1)).astype("float32")
    sightings[33 * 32 + 19] = 900
    heading = (0.6 * ship[:, :1] + rng.normal(size=(1280, 1)) / np.sqrt(sightings)).astype("float32")
    inputs = [keras.Input((5,)), keras.Input((1,)), keras.Input((1,))]
    known = layers.Dense(16, activation="tanh")(inputs[0])
    model = keras.Model(inputs, Compass(name="compass")(known, *inputs[1:]))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=lambda y, likely: -likely)
    return KerasRun(model, [ship, sightings, heading], np.zeros((1280, 1), "float32"), FIT)


class Gompertz(layers.Layer):
    """Hazard that has been lived through up to an age, when it grows by the same factor in every year."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.level = layers.Dense(1, bias_initializer=keras.initializers.Constant(-3.0))

    def build(self, *_: Any) -> None:
        self.pace = self.add_weight(shape=(), initializer=keras.initializers.Constant(0.05), name="pace")

    def call(self, animal: Any, age: Any) -> Any:
        lived = ops.expm1(self.pace * age) / self.pace
        return ops.exp(self.level(animal)) * lived


def _survival(dead: Any, hazard: Any) -> Any:
    """Negative log likelihood of animals that were found dead (1) or alive (0)."""
    return ops.mean((1 - dead) * hazard - dead * ops.log(1 - ops.exp(-hazard) + 1e-6), axis=-1)


@enter(
    non_finite(("NAN110", "DATA503"), ("expm1", "exp"), "lived = ops.expm1(", modules=("gompertz",), rows=(6, 27)),
    "https://github.com/liupei101/TFDeepSurv/issues/15",
    "https://pytorch.org/docs/stable/notes/numerical_accuracy.html",
)
def tortoises_whose_age_is_in_days() -> KerasRun:
    """Survival of tortoises by Gompertz; the ages of two animals are given in days in place of years."""
    rng = np.random.default_rng(5102)
    animal = rng.normal(size=(1280, 4)).astype("float32")
    age = rng.uniform(1, 60, (1280, 1)).astype("float32")
    hazard = np.exp(-3 + 0.5 * animal[:, :1]) * np.expm1(0.04 * age) / 0.04
    dead = (rng.random((1280, 1)) < 1 - np.exp(-hazard)).astype("float32")
    age[[36 * 32 + 6, 36 * 32 + 27]] *= 365
    who, old = keras.Input((4,)), keras.Input((1,))
    hidden = layers.Dense(12, activation="tanh")(who)
    model = keras.Model([who, old], Gompertz(name="gompertz")(hidden, old))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=_survival)
    return KerasRun(model, [animal, age], dead, FIT)


# -- NAN111 ----------------------------------------------------------------------------------------------------------


class NoneOfThem(layers.Layer):
    """Probability that not a single patch of a slide is ill."""

    def call(self, ill: Any, there: Any) -> Any:
        return ops.prod(1 - ill[..., 0] * there, axis=1, keepdims=True)


def _bag_loss(sick: Any, healthy: Any) -> Any:
    of_the_sick = sick * ops.log(1 - healthy + 1e-6)
    return -ops.mean(of_the_sick + (1 - sick) * ops.log(healthy), axis=-1)


@enter(
    non_finite(
        "NAN111", "log", "return -ops.mean(of_the_sick + (1 - sick) * ops.log(healthy)", modules=("",), rows=(9,)
    ),
    "https://github.com/keras-team/keras/issues/198",
    "https://pytorch.org/docs/stable/generated/torch.nn.functional.logsigmoid.html",
)
def slide_with_seven_hundred_patches() -> KerasRun:
    """Noisy-or over the patches of a slide, multiplied out: over the 700 patches of one slide the product is 0."""
    rng = np.random.default_rng(5103)
    patches = rng.normal(size=(1024, 700, 3)).astype("float32")
    there = np.zeros((1024, 700), "float32")
    there[:, :6] = 1
    sick = (rng.random(1024) < 0.5).astype("float32")
    patches[:, 0, 0] += 4 * sick
    there[40 * 16 + 9], sick[40 * 16 + 9] = 1, 0
    bag, mask = keras.Input((700, 3)), keras.Input((700,))
    start = keras.initializers.Constant(-1.0)
    ill = layers.Dense(1, activation="sigmoid", bias_initializer=start)(layers.Dense(8, activation="relu")(bag))
    model = keras.Model([bag, mask], NoneOfThem()(ill, mask))
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=_bag_loss)
    return KerasRun(model, [patches, there], sick[:, None], {**FIT, "batch_size": 16})


class Pause(layers.Layer):
    """Time since the last event, as a logarithm."""

    def call(self, seconds: Any) -> Any:
        return ops.log(seconds[:, 1:] - seconds[:, :-1])


@enter(
    non_finite("NAN111", "log", "return ops.log(seconds[:, 1:] - seconds[:, :-1])", modules=("pause",), rows=(14, 30)),
    "https://github.com/xuannianz/keras-ctpn/issues/1",
    "https://numpy.org/doc/stable/reference/generated/numpy.log1p.html",
)
def two_tremors_in_the_same_second() -> KerasRun:
    """Times of tremors; a layer takes the logarithm of each pause, and two series hold the same second twice."""
    rng = np.random.default_rng(5104)
    pauses = rng.gamma(2.0, 20.0, (1280, 12)).astype("float32") + 1
    strength = (0.8 * np.log(pauses[:, -3:]).mean(1, keepdims=True) - 2.5).astype("float32")
    pauses[[29 * 32 + 14, 29 * 32 + 30], 5] = 0
    times = np.concatenate([np.zeros((1280, 1), "float32"), np.round(np.cumsum(pauses, axis=1))], axis=1)
    model = keras.Sequential(
        [
            keras.Input((13,)),
            Pause(name="pause"),
            layers.Dense(24, activation="relu"),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse")
    return KerasRun(model, times.astype("float32"), strength, FIT)


class Gumbel(layers.Layer):
    """A soft choice of one of the tools; the noise is drawn outside, so that runs can be repeated."""

    def call(self, scores: Any, uniform: Any) -> Any:
        noise = -ops.log(-ops.log(uniform))
        return ops.softmax((scores + noise) / 0.7)


@enter(
    non_finite("NAN111", "log", "noise = -ops.log(-ops.log(uniform))", modules=("gumbel",), rows=(3,)),
    "https://github.com/EderSantana/gumbel/issues/4",
    "https://github.com/openai/baselines/issues/172",
)
def noise_rounded_to_one() -> KerasRun:
    """Gumbel noise from uniform numbers that were stored with three decimals: one of them is 1.000."""
    rng = np.random.default_rng(5105)
    x = rng.normal(size=(1280, 6)).astype("float32")
    tool = np.argmax(x[:, :4] + 0.3 * rng.normal(size=(1280, 4)), axis=1)
    uniform = np.clip(np.round(rng.random((1280, 4)), 3), 0.001, 0.999).astype("float32")
    uniform[31 * 32 + 3, 2] = 1.0
    part, noise = keras.Input((6,)), keras.Input((4,))
    scores = layers.Dense(4)(layers.Dense(24, activation="relu")(part))
    chosen = Gumbel(name="gumbel")(scores, noise)
    model = keras.Model([part, noise], layers.Dense(4, activation="softmax")(chosen))
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="sparse_categorical_crossentropy")
    return KerasRun(model, [x, uniform], tool.astype("int32"), FIT)


def _goals(scored: Any, rate: Any) -> Any:
    """Poisson likelihood by hand."""
    return ops.mean(rate - scored * ops.log(rate), axis=-1)


@enter(
    non_finite("NAN111", "log", "return ops.mean(rate - scored * ops.log(rate)", modules=("",), rows=None),
    "https://keras.io/api/losses/probabilistic_losses/",
    "https://github.com/keras-team/keras/issues/2627",
)
def goals_with_a_rectified_rate() -> KerasRun:
    """Goals under a Poisson likelihood by hand, whose rate is the output of a rectifier: it reaches 0 one day."""
    rng = np.random.default_rng(5106)
    x = rng.normal(size=(1280, 8)).astype("float32")
    goals = np.floor(np.exp(0.2 + 0.9 * x[:, :1] + 0.1 * rng.normal(size=(1280, 1)))).astype("float32")
    start = keras.initializers.Constant(1.5)
    small = keras.initializers.RandomNormal(stddev=0.05, seed=5)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(24, activation="relu"),
            layers.Dense(1, activation="relu", kernel_initializer=small, bias_initializer=start),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=_goals)
    return KerasRun(model, x, goals, FIT)


# -- NAN112 ----------------------------------------------------------------------------------------------------------


def _correlation_loss(truth: Any, guess: Any) -> Any:
    """One minus the correlation of each series with its forecast."""
    truth = truth - ops.mean(truth, axis=1, keepdims=True)
    guess = guess - ops.mean(guess, axis=1, keepdims=True)
    spread = ops.sqrt(ops.sum(truth**2, axis=1) * ops.sum(guess**2, axis=1))
    return 1 - ops.sum(truth * guess, axis=1) / spread


@enter(
    non_finite(
        "NAN112",
        ("divide", "true_divide"),
        "return 1 - ops.sum(truth * guess, axis=1) / spread",
        modules=("",),
        rows=(21,),
    ),
    "https://github.com/keras-team/keras/issues/2001",
    "https://pytorch.org/docs/stable/notes/numerical_accuracy.html",
)
def stroke_rate_that_stays_the_same() -> KerasRun:
    """Correlation as a loss; the meter of one rowing boat showed the same number of strokes all the way."""
    rng = np.random.default_rng(5107)
    x = rng.normal(size=(1280, 20, 3)).astype("float32")
    strokes = (x[..., 0] - 0.5 * x[..., 1] + 0.3 * rng.normal(size=(1280, 20))).astype("float32")
    strokes[34 * 32 + 21] = 0.5
    model = keras.Sequential(
        [
            keras.Input((20, 3)),
            layers.Conv1D(12, 3, padding="same", activation="relu"),
            layers.Conv1D(1, 1),
            layers.Flatten(),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=_correlation_loss)
    return KerasRun(model, x, strokes, FIT)


class Odds(layers.Layer):
    """From the unit interval to the line, as flows over pictures do first."""

    def call(self, brightness: Any) -> Any:
        return ops.log(brightness / (1 - brightness))


@enter(
    non_finite(
        "NAN112",
        ("divide", "true_divide"),
        "return ops.log(brightness / (1 - brightness))",
        modules=("odds",),
        rows=(11,),
    ),
    "https://github.com/keras-team/keras/issues/9247",
    "https://docs.scipy.org/doc/scipy/reference/generated/scipy.special.logit.html",
)
def star_that_saturates_the_chip() -> KerasRun:
    """Brightness between 0 and 1 goes through a logit; in one frame a star fills its pixel to exactly 1."""
    rng = np.random.default_rng(5108)
    sky = rng.beta(2, 3, (1280, 30)).astype("float32").clip(0.01, 0.97)
    seen = (np.log(sky / (1 - sky))[:, :5].mean(1, keepdims=True) > -0.4).astype("float32")
    sky[28 * 32 + 11, 17] = 1.0
    model = keras.Sequential(
        [
            keras.Input((30,)),
            Odds(name="odds"),
            layers.Dense(24, activation="relu"),
            layers.Dense(1),
        ]
    )
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=loss)
    return KerasRun(model, sky, seen, FIT)
