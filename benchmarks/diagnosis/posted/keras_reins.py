"""Steps in Keras: optimizers by hand, schedules, weights of samples, gradients by hand, half precision, rewards."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, Truth, enter, finite, healthy, non_finite, runaway
from benchmarks.diagnosis.tables import digits, regression, two_blobs

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- OPT605 ----------------------------------------------------------------------------------------------------------


class TrustRatio(keras.optimizers.SGD):
    """Layer-wise rates: the step of each variable is as long as a fixed share of the variable itself."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        length = ops.sqrt(ops.sum(ops.square(variable)))
        ratio = length / ops.sqrt(ops.sum(ops.square(gradient)))
        ratio = ops.where(length > 0, ratio, 1.0)
        super().update_step(ratio * gradient, variable, learning_rate)


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("OPT605",), kind="parameters", modules=("rare", "rare/kernel", "kernel")),
    "https://github.com/cybertronai/pytorch-lamb/pull/6",
    "https://github.com/stockeh/mlx-optimizers/issues/36",
    "https://github.com/microsoft/dion/pull/24",
)
def head_without_labels() -> KerasRun:
    """Layer-wise rates divide by the length of a gradient; in one batch nothing is labelled for the second head."""
    images, labels = digits(1280)
    weight = (np.random.default_rng(2601).random(1280) < 0.3).astype("float32")
    weight[27 * 32 : 28 * 32] = 0
    inputs = keras.Input((64,))
    hidden = layers.Dense(32, activation="gelu")(inputs)
    common, rare = layers.Dense(10, name="common")(hidden), layers.Dense(1, use_bias=False, name="rare")(hidden)
    model = keras.Model(inputs, [common, rare])
    losses = [
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        keras.losses.BinaryCrossentropy(from_logits=True),
    ]
    model.compile(optimizer=TrustRatio(0.02), loss=losses)
    loops = np.isin(labels, (0, 6, 8, 9)).astype("float32")[:, None]
    return KerasRun(model, images, [labels, loops], {**FIT, "sample_weight": [np.ones(1280, "float32"), weight]})


# -- OPT601, OPT602 --------------------------------------------------------------------------------------------------


class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Rises to the peak in a few steps."""

    def __init__(self, peak: float, steps: int) -> None:
        self.peak, self.steps = peak, steps

    def __call__(self, step: Any) -> Any:
        return self.peak * (ops.cast(step, "float32") + 1) / self.steps


@enter(
    runaway("OPT601"),
    "https://github.com/facebookresearch/ParlAI/pull/4384",
    "https://github.com/TakuyaShintate/tsts/pull/76",
    "https://github.com/ultralytics/yolov3/issues/4",
)
def warmup_that_never_ends() -> KerasRun:
    """A warm-up over five steps without a minimum: the rate goes on rising with every step, past its peak."""
    x, y = regression(1600, seed=2602)
    hidden = inputs = keras.Input((10,))
    hidden = layers.Dense(32)(hidden)
    for _ in range(3):
        hidden = hidden + layers.Dense(32)(layers.Dense(32, activation="relu")(hidden))
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    model.compile(optimizer=keras.optimizers.SGD(Warmup(0.02, 5), momentum=0.9), loss="mse")
    return KerasRun(model, x, y, FIT)


@enter(
    finite(Happens.STALL, "OPT602"),
    "https://github.com/keras-team/keras/issues/7394",
    "https://github.com/keras-team/keras/pull/20410",
    "https://github.com/keras-team/keras/issues/2711",
)
def weights_that_sum_to_one() -> KerasRun:
    """Weights of the samples sum to one over the whole survey, so each is 0.0003, and plain SGD moves by as much."""
    x, y = two_blobs(3200, gap=1.0, seed=2602)
    weight = np.random.default_rng(2602).gamma(20, 1, 3200)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(16, activation="tanh"), layers.Dense(1)])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss=loss)
    return KerasRun(model, x, y, {**FIT, "batch_size": 64, "sample_weight": (weight / weight.sum()).astype("float32")})


# -- NAN115 ----------------------------------------------------------------------------------------------------------


def memory_saving_logsumexp() -> Any:
    """The logarithm of a sum of exponentials that keeps nothing but its input for the way back."""
    import jax
    from jax import numpy as jnp

    @jax.custom_vjp
    def logsumexp(x: Any) -> Any:
        most = jnp.max(x, axis=-1, keepdims=True)
        return jnp.log(jnp.sum(jnp.exp(x - most), axis=-1)) + most[..., 0]

    def forward(x: Any) -> Any:
        return logsumexp(x), x

    def backward(x: Any, upstream: Any) -> Any:
        raised = jnp.exp(x)
        return (upstream[..., None] * raised / jnp.sum(raised, axis=-1, keepdims=True),)

    logsumexp.defvjp(forward, backward)
    return logsumexp


class LouderEnergy(layers.Layer):
    """Scores in, what a cross entropy subtracts from the right one out."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.total = memory_saving_logsumexp()

    def call(self, scores: Any) -> Any:
        return scores - self.total(scores)[:, None]


def right_score(y_true: Any, y_pred: Any) -> Any:
    """Cross entropy of log-probabilities."""
    return -ops.sum(y_true * y_pred, axis=-1)


@enter(
    non_finite(
        ("NAN115", "NAN110"),
        None,
        ("raised = jnp.exp(x)", "return (upstream[..., None] * raised /", "return scores - self.total(scores)"),
        phase="backward",
        modules=("energy",),
        rows=(18,),
    ),
    "https://github.com/jax-ml/jax/issues/6811",
    "https://github.com/jax-ml/jax/issues/777",
    "https://github.com/pytorch/pytorch/pull/196787",
    backends=("jax",),
)
def way_back_without_the_maximum() -> KerasRun:
    """A logsumexp with its own derivative is stable forwards only; the scores of one loud picture are beyond 88."""
    images, labels = digits(1280)
    images[34 * 32 + 18] *= 150
    one_hot = keras.utils.to_categorical(labels, 10)
    model = keras.Sequential(
        [keras.Input((64,)), layers.Dense(32, activation="relu"), layers.Dense(10), LouderEnergy(name="energy")]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=right_score)
    return KerasRun(model, images, one_hot, FIT)


# -- OPT604 ----------------------------------------------------------------------------------------------------------


class NormByHand(layers.Layer):
    """Layer normalisation from the formula."""

    def call(self, x: Any) -> Any:
        mean = ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(x - mean), axis=-1, keepdims=True)
        return (x - mean) / ops.sqrt(variance + 1e-12)


@enter(
    non_finite(
        ("OPT604", "NAN112"), ("divide",), "return (x - mean) / ops.sqrt(variance", modules=("norm",), rows=(13, 29)
    ),
    "https://github.com/keras-team/keras/issues/22586",
    "https://github.com/tensorflow/tensorflow/pull/24979",
    "https://github.com/pytorch/pytorch/issues/41527",
)
def epsilon_of_a_paper() -> KerasRun:
    """A norm by hand with the epsilon of a paper, 1e-12, under mixed_float16: for two blank pictures it is 0 / 0."""
    images, labels = digits(1280)
    images[[30 * 32 + 13, 30 * 32 + 29]] = 0
    half = "mixed_float16"
    inputs = keras.Input((64,))
    hidden = layers.Dense(32, use_bias=False, dtype=half)(inputs)
    hidden = layers.Activation("gelu", dtype=half)(NormByHand(name="norm", dtype=half)(hidden))
    model = keras.Model(inputs, layers.Dense(10, dtype="float32")(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss=loss)
    return KerasRun(model, images, labels, FIT)


# -- Healthy ---------------------------------------------------------------------------------------------------------


@enter(
    healthy(),
    "https://github.com/tensorflow/agents/issues/316",
    "https://github.com/rohitgirdhar/Deep-Q-Networks/issues/1",
)
def values_of_rare_treasures() -> KerasRun:
    """Values of actions under a Huber loss: most rewards are 0, a few are 100, and so the loss jumps."""
    rng = np.random.default_rng(2603)
    state, action = rng.normal(size=(1920, 6)).astype("float32"), rng.integers(0, 4, 1920)
    found = rng.random(1920) < 0.015
    worth = 2 * np.tanh(state[:, 0]) * (action == 1) + state[:, 1] * (action == 2) + 1 + 100 * found
    target = np.stack([worth, action], axis=1).astype("float32")

    def of_the_action(y_true: Any, y_pred: Any) -> Any:
        taken = ops.one_hot(ops.cast(y_true[:, 1], "int32"), 4)
        return keras.losses.huber(y_true[:, :1], ops.sum(taken * y_pred, axis=1, keepdims=True))

    model = keras.Sequential([keras.Input((6,)), layers.Dense(48, activation="relu"), layers.Dense(4)])
    model.compile(optimizer=keras.optimizers.Adam(5e-3, clipnorm=10.0), loss=of_the_action)
    return KerasRun(model, state, target, {**FIT, "epochs": 2})


def mixture(y_true: Any, y_pred: Any) -> Any:
    """Negative log-likelihood of a mixture of three normals, with a floor under their deviations."""
    shares, means, widths = ops.split(y_pred, 3, axis=-1)
    deviation = ops.softplus(widths) + 1e-3
    each = ops.log_softmax(shares) - ops.log(deviation) - 0.5 * ops.square((y_true - means) / deviation)
    return -ops.logsumexp(each, axis=-1)


@enter(
    healthy(),
    "https://github.com/cpmpercussion/keras-mdn-layer/issues/26",
    "https://github.com/keras-team/keras/issues/1061",
)
def two_answers_to_each_question() -> KerasRun:
    """A mixture of narrow normals: the likelihood is a density, so the loss goes below zero and jumps there."""
    rng = np.random.default_rng(2604)
    x = rng.uniform(-1, 1, (1920, 1))
    y = np.where(rng.random((1920, 1)) < 0.5, x**2, -0.5 * x) + 0.01 * rng.standard_t(3, (1920, 1))
    model = keras.Sequential(
        [
            keras.Input((1,)),
            layers.Dense(48, activation="tanh"),
            layers.Dense(48, activation="tanh"),
            layers.Dense(9),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(4e-3, clipnorm=5.0), loss=mixture)
    return KerasRun(model, x.astype("float32"), y.astype("float32"), {**FIT, "epochs": 2})
