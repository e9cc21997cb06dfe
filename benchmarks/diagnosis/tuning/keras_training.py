"""Training set up wrong, in Keras: rates, initialisation, gradients, precision, optimizers, libraries, machines."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, Truth, enter, finite, non_finite, runaway
from benchmarks.diagnosis.tables import digits, regression, two_blobs, waves

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}
LONG: dict[str, Any] = {**FIT, "epochs": 3}


def classifier(hidden: list[Any], optimizer: Any, inputs: int = 64) -> keras.Model:
    model = keras.Sequential([keras.Input((inputs,)), *hidden, layers.Dense(10)])
    model.compile(optimizer=optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def regressor(hidden: list[Any], optimizer: Any, last: Any = None) -> keras.Model:
    model = keras.Sequential([keras.Input((10,)), *hidden, last or layers.Dense(1)])
    model.compile(optimizer=optimizer, loss="mse")
    return model


@enter(
    runaway("OPT601"),
    "https://livebook.manning.com/concept/keras/learning-rate",
    "https://datascience.stackexchange.com/questions/15962/why-is-learning-rate-causing-my-neural-networks-weights-to-skyrocket",
)
def rate_of_one() -> KerasRun:
    """SGD with a learning rate of 1 on a regression."""
    hidden = [layers.Dense(64, activation="relu"), layers.Dense(64, activation="relu")]
    return KerasRun(regressor(hidden, keras.optimizers.SGD(1.0)), *regression(1280), FIT)


@enter(
    finite(Happens.STALL, "OPT602"),
    "https://github.com/yz93/LAVT-RIS/issues/25",
    "https://github.com/hukenovs/hagrid/issues/12",
)
def rate_of_a_ten_millionth() -> KerasRun:
    """Adam with a learning rate of 1e-7."""
    model = classifier([layers.Dense(64, activation="relu")], keras.optimizers.Adam(1e-7))
    return KerasRun(model, *digits(1280), LONG)


@enter(
    finite(Happens.STALL, "GRAD202"),
    "https://ai.stackexchange.com/questions/16557/what-could-be-the-problem-when-a-neural-network-with-four-hidden-layers-with-the",
    "https://masterinai.com/computer-vision/vanishing-gradient-problem",
)
def tower_of_sigmoids() -> KerasRun:
    """Twelve dense layers with sigmoid."""
    hidden = [layers.Dense(32, activation="sigmoid") for _ in range(12)]
    return KerasRun(classifier(hidden, keras.optimizers.SGD(0.05, momentum=0.9)), *digits(1280), LONG)


@enter(
    runaway("GRAD203"),
    "https://taourl.com/read-1885623.html",
    "https://apxml.com/courses/rnns-and-sequence-modeling/chapter-4-rnn-training-challenges/gradient-clipping-explained",
)
def simple_rnn_with_relu() -> KerasRun:
    """SimpleRNN with rectified units over 60 steps, recurrent weights a little too large, not clipped."""
    recurrent = layers.SimpleRNN(
        48, activation="relu", recurrent_initializer=keras.initializers.RandomNormal(stddev=0.21, seed=1)
    )
    model = keras.Sequential([keras.Input((60, 1)), recurrent, layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(0.03), loss="mse")
    return KerasRun(model, *waves(1280, length=60), FIT)


@enter(
    finite(Happens.STALL, ("DATA505", "ACT302")),
    "https://oalahurikar.github.io/ai-blog/First-Principles/Learning-is-slow-for-sigmoid",
    "http://stackoverflow.com.mevn.net/questions/52800582/why-do-i-fail-to-predict-y-x4-with-keras-y-x3-works",
)
def actor_at_its_limit() -> KerasRun:
    """The output is a tanh, the wanted actions lie at ±3 and beyond: it runs into its stops."""
    x, y = regression(1280)
    wanted = (4 + np.abs(y)).astype("float32")
    model = regressor([layers.Dense(32, activation="relu")], keras.optimizers.Adam(0.05), layers.Dense(1, "tanh"))
    return KerasRun(model, x, wanted, LONG)


@enter(
    finite(Happens.STALL, "ACT303"),
    "https://theneuralbase.com/deep-learning-fundamentals/learn/beginner/dead-neurons-relu/",
    "https://api.emergentmind.com/papers/1903.06733",
)
def output_that_died() -> KerasRun:
    """The output unit is rectified, and its bias starts far below zero."""
    x, y = regression(1280)
    last = layers.Dense(1, activation="relu", bias_initializer=keras.initializers.Constant(-30.0))
    model = regressor([layers.Dense(32, activation="relu")], keras.optimizers.Adam(1e-2), last)
    return KerasRun(model, x, (y + 5).astype("float32"), LONG)


@enter(
    runaway("ACT304"),
    "https://github.com/VinceShieh/spark-ffm/issues/12",
    "https://github.com/microsoft/AI-For-Beginners/pull/743",
)
def random_normal_of_one() -> KerasRun:
    """Every kernel drawn from a normal distribution of deviation 1."""
    normal = keras.initializers.RandomNormal(stddev=1.0, seed=3)
    hidden = [layers.Dense(128, activation="relu", kernel_initializer=normal.clone()) for _ in range(3)]
    model = regressor(hidden, keras.optimizers.SGD(2e-6), layers.Dense(1, kernel_initializer=normal))
    return KerasRun(model, *regression(1280), FIT)


# -- OPT604: half precision ------------------------------------------------------------------------------------------


class Loudness(layers.Layer):
    """Appends the energy of each row."""

    def call(self, x: Any) -> Any:
        energy = ops.sum(ops.square(x), axis=-1, keepdims=True)
        return ops.concatenate([x / 40.0, ops.log1p(energy) / 10.0], axis=-1)


@enter(
    non_finite(
        "OPT604", ("sum", "power", "multiply"), "energy = ops.sum(ops.square(x)", modules=("loudness",), rows=None
    ),
    "https://github.com/keras-team/keras/issues/11832",
    "https://github.com/keras-team/keras/issues/16552",
)
def energy_under_mixed_float16() -> KerasRun:
    """Rows get louder; under mixed_float16 the sum of their squares passes 65504."""
    images, labels = digits(1280)
    loudness = np.linspace(30, 75, 1280)[:, None]
    policy = keras.DTypePolicy("mixed_float16")
    model = keras.Sequential(
        [
            keras.Input((64,)),
            Loudness(name="loudness", dtype=policy),
            layers.Dense(32, activation="relu", dtype=policy),
            layers.Dense(10, dtype="float32"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.SGD(0.02), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return KerasRun(model, (images * loudness).astype("float32"), labels, FIT)


# -- OPT605: made by the optimizer -----------------------------------------------------------------------------------


class UnitSteps(keras.optimizers.Optimizer):
    """Steps of a fixed length along each gradient."""

    def __init__(self, learning_rate: float = 0.01, **kwargs: Any) -> None:
        super().__init__(learning_rate=learning_rate, name="unit_steps", **kwargs)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        length = ops.sqrt(ops.sum(ops.square(gradient)))
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * gradient / length)


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("OPT605",), phase="optimizer", rows=None),
    "https://github.com/noahgolmant/pytorch-lars/issues/3",
    "https://github.com/microsoft/dion/pull/24",
)
def steps_of_unit_length() -> KerasRun:
    """An optimizer of one's own divides by the length of the gradient; a hinge loss without errors has none."""
    x, y = two_blobs(1280, gap=3.0)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(1)])
    model.compile(optimizer=UnitSteps(0.05), loss="hinge")
    return KerasRun(model, x, 2 * y - 1, {**FIT, "epochs": 2})


# -- ENV701: known issues --------------------------------------------------------------------------------------------


def cosine_distance(y_true: Any, y_pred: Any) -> Any:
    return 1.0 - ops.sum(ops.normalize(y_true, axis=-1) * ops.normalize(y_pred, axis=-1), axis=-1)


@enter(
    non_finite(
        ("ENV701", "NAN113"),
        None,
        "return 1.0 - ops.sum(ops.normalize(",
        kind="operation",
        phase="backward",
        rows=(3, 14),
    ),
    "https://github.com/keras-team/keras/pull/23093",
    "https://github.com/pytorch/pytorch/issues/3264",
    backends=("jax", "torch"),
)
def cosine_of_a_silent_row() -> KerasRun:
    """Two predictions are all zero; the gradient of keras.ops.normalize is NaN there in this version of Keras."""
    x, _ = regression(1280)
    y = np.abs(x[:, :4]) + 0.1
    for row in (3, 14):
        x[26 * 32 + row] = 0.0
    hidden = [layers.Dense(32, activation="relu", use_bias=False), layers.Dense(4, use_bias=False)]
    model = keras.Sequential([keras.Input((10,)), *hidden])
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=cosine_distance)
    return KerasRun(model, x, y, FIT)


# -- ENV702: hardware (a stand-in: a value that goes wrong once, and never again) ------------------------------------


class Counter:
    """Counts passes on the host, out of reach of every framework, and spoils one."""

    def __init__(self, spoilt: int) -> None:
        self.passes, self.spoilt = 0, spoilt

    def __call__(self, *_: Any) -> np.ndarray:
        self.passes += 1
        return np.float32(np.inf if self.passes == self.spoilt else 1.0)


class FaultyMemory(layers.Layer):
    """One element is infinite in the 28th pass."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.counter = Counter(28)

    def factor(self) -> Any:
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            return tf.ensure_shape(tf.numpy_function(self.counter, [], tf.float32), ())
        if keras.backend.backend() == "jax":
            import jax
            from jax.experimental import io_callback

            return io_callback(self.counter, jax.ShapeDtypeStruct((), "float32"))
        return float(self.counter())

    def call(self, x: Any) -> Any:
        spoilt = x[:, :1] * ops.stop_gradient(ops.convert_to_tensor(self.factor()))
        return ops.concatenate([spoilt, x[:, 1:]], axis=1)


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("ENV702",), kind="", rows=()),
    "https://github.com/mrphys/tensorflow-nufft/issues/20",
    "https://github.com/microsoft/dion/issues/76",
)
def one_bad_read() -> KerasRun:
    """One column of activations is infinite once; the same step again is fine."""
    hidden = [layers.Dense(32, activation="relu"), FaultyMemory(name="memory")]
    model = keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10)])
    model.compile(
        optimizer=keras.optimizers.SGD(0.1),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    images, labels = digits(1280)
    return KerasRun(model, images + 0.01, labels, FIT)
