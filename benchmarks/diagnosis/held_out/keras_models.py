"""Keras programs in other styles than before: subclassed models, loss classes, generators, schedules."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from benchmarks.diagnosis.program import (
    Happens,
    KerasRun,
    Truth,
    bad_batch,
    enter,
    finite,
    healthy,
    non_finite,
    runaway,
)
from benchmarks.diagnosis.tables import digits, regression, two_blobs, waves

Dense = keras.layers.Dense


class Batches(keras.utils.PyDataset):
    """Arrays by batches, with a hand on each before it leaves."""

    def __init__(self, *arrays: np.ndarray, size: int = 40, touch: Any = None) -> None:
        super().__init__()
        self.arrays, self.size, self.touch = arrays, size, touch

    def __len__(self) -> int:
        return len(self.arrays[0]) // self.size

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        part = slice(index * self.size, (index + 1) * self.size)
        batch = tuple(array[part].copy() for array in self.arrays)
        return self.touch(index, *batch) if self.touch else batch


IN_ORDER: dict[str, Any] = {"epochs": 1, "shuffle": False}
LOGITS = keras.losses.SparseCategoricalCrossentropy


class TwoLayers(keras.Model):
    """Written as a class."""

    def __init__(self, outputs: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden, self.outputs_layer = Dense(48, activation="relu"), Dense(outputs)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.outputs_layer(self.hidden(x))


# -- NAN110 ----------------------------------------------------------------------------------------------------------


class Annealed(keras.layers.Layer):
    """A softmax that grows colder with every step."""

    def build(self, input_shape: Any) -> None:
        self.steps = self.add_weight(shape=(), initializer="zeros", trainable=False, name="steps")

    def call(self, scores: Any, training: bool = False) -> Any:
        if training:
            self.steps.assign(self.steps + 1.0)
        temperature = 0.87**self.steps
        weights = ops.exp(scores / temperature)
        return weights / ops.sum(weights, axis=-1, keepdims=True)


@enter(
    non_finite("NAN110", "exp", "weights = ops.exp(scores / temperature)", modules=("annealed",), rows=None),
    "https://github.com/yichen928/ActiveFT/issues/4",
    "https://github.com/HobbitLong/SupContrast/issues/104",
)
def softmax_that_freezes() -> KerasRun:
    """A temperature that falls with every step: scores over temperature outgrow exp in a softmax written by hand."""
    inputs = keras.Input((64,))
    outputs = Annealed(name="annealed")(Dense(10)(Dense(32, activation="tanh")(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=keras.losses.SparseCategoricalCrossentropy())
    return KerasRun(model, Batches(*digits(1680)), None, IN_ORDER)


# -- NAN111 ----------------------------------------------------------------------------------------------------------


class Jeffreys(keras.losses.Loss):
    """The symmetric Kullback-Leibler divergence."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        ratio = ops.log(y_true) - ops.log(y_pred)
        return ops.sum((y_true - y_pred) * ratio, axis=-1)


@enter(
    non_finite("NAN111", "log", "ratio = ops.log(y_true) - ops.log(y_pred)", modules=("",), rows=(0, 39)),
    "https://github.com/Lightning-AI/torchmetrics/issues/1029",
    "https://github.com/uber/causalml/issues/167",
)
def divergence_of_certain_labels() -> KerasRun:
    """The symmetric divergence takes the logarithm of the labels; two are certain, with zeros."""
    x, label = digits(1680)
    smooth = np.full((len(x), 10), 0.02, "float32")
    smooth[np.arange(len(x)), label] = 0.82
    for row in (0, 39):
        smooth[27 * 40 + row] = np.eye(10, dtype="float32")[label[27 * 40 + row]]
    model = keras.Sequential([keras.Input((64,)), Dense(32, activation="elu"), Dense(10, activation="softmax")])
    model.compile(optimizer=keras.optimizers.Nadam(2e-3), loss=Jeffreys())
    return KerasRun(model, Batches(x, smooth), None, IN_ORDER)


# -- NAN112 ----------------------------------------------------------------------------------------------------------


def advantage_loss(y_true: Any, y_pred: Any) -> Any:
    """Rewards are standardised within the batch, as in many policy gradients."""
    centred = y_true - ops.mean(y_true)
    advantage = centred / ops.std(y_true)
    return ops.mean(ops.square(y_pred - advantage))


@enter(
    non_finite("NAN112", "divide", "advantage = centred / ops.std(y_true)", modules=("",), rows=()),
    "https://github.com/unslothai/unsloth-zoo/pull/1286",
    "https://github.com/MhLiao/DB/issues/14",
)
def rewards_all_alike() -> KerasRun:
    """Every episode of one batch earned nothing: its rewards have no deviation to be divided by."""
    x, reward = regression(1600)
    reward[29 * 40 : 30 * 40] = 0.0
    model = TwoLayers()
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=advantage_loss)
    return KerasRun(model, Batches(x, reward), None, IN_ORDER)


# -- NAN113 ----------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("held_out")
class GeneralisedMean(keras.layers.Layer):
    """Pools with power three."""

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")

    def call(self, x: Any) -> Any:
        cubes = ops.mean((self.scale * x) ** 3, axis=-1, keepdims=True)
        return ops.power(cubes, 1.0 / 3.0)


@enter(
    non_finite("NAN113", "power", "return ops.power(cubes, 1.0 / 3.0)", phase="backward", modules=("gem",), rows=(31,)),
    "https://github.com/keras-team/keras/issues/15600",
    "https://github.com/pytorch/pytorch/issues/6765",
)
def generalised_mean_of_a_blank_image() -> KerasRun:
    """The cube root of the mean of cubes of a blank image."""
    x, label = digits(1680)
    x = x + 0.01
    x[26 * 40 + 31] = 0
    inputs = keras.Input((64,))
    features = keras.layers.Concatenate()([GeneralisedMean(name="gem")(inputs), Dense(32, activation="relu")(inputs)])
    model = keras.Model(inputs, Dense(10)(features))
    model.compile(optimizer="adam", loss=LOGITS(from_logits=True))
    return KerasRun(model, Batches(x, label), None, IN_ORDER)


# -- NAN114 ----------------------------------------------------------------------------------------------------------


class AngularLoss(keras.losses.Loss):
    """The angle between two directions."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        cosine = ops.sum(y_true * y_pred, axis=-1)
        return ops.arccos(cosine)


@enter(
    non_finite("NAN114", "acos", "return ops.arccos(cosine)", modules=("",), rows=None),
    "https://github.com/AlexanderFabisch/jaxtransform3d/issues/3",
    "https://github.com/pytorch/pytorch/issues/61810",
)
def angle_between_vectors_of_any_length() -> KerasRun:
    """The predicted direction is never normalised; when it grows beyond length one, acos has no answer."""
    turn = np.random.default_rng(3).uniform(-1.5, 1.5, 2000)
    x = np.stack([turn, turn**2], 1).astype("float32")
    direction = np.stack([np.cos(turn), np.sin(turn)], 1).astype("float32")
    model = keras.Sequential([keras.Input((2,)), Dense(32, activation="tanh"), Dense(2, kernel_initializer="zeros")])
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss=AngularLoss())
    return KerasRun(model, Batches(x, direction), None, IN_ORDER)


# -- DATA ------------------------------------------------------------------------------------------------------------


def _divide_by_own_maximum(index: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(invalid="ignore"):
        return x / x.max(axis=1, keepdims=True), y


@enter(
    bad_batch(None, (13, 27)),
    "https://github.com/IVRL/VolRecon/issues/18",
    "https://e-learn.cn/qa/q-126061.html",
)
def generator_divides_by_the_maximum() -> KerasRun:
    """The generator scales each image by its own maximum; two images are black."""
    x, label = digits(1680)
    x[30 * 40 + 13] = x[30 * 40 + 27] = 0
    model = TwoLayers(10)
    model.compile(optimizer="adam", loss=LOGITS(from_logits=True))
    return KerasRun(model, Batches(x, label, touch=_divide_by_own_maximum), None, IN_ORDER)


@enter(
    runaway("DATA509"),
    "http://stackoverflow.com.mevn.net/questions/52800582/why-do-i-fail-to-predict-y-x4-with-keras-y-x3-works",
    "https://github.com/chainer/chainercv/issues/358",
)
def prices_in_full() -> KerasRun:
    """House prices in euros as targets of a mean squared error."""
    x, y = regression(1600)
    model = TwoLayers()
    model.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.9), loss="mse")
    return KerasRun(model, Batches(x, (310_000 + 90_000 * y).astype("float32")), None, IN_ORDER)


def _one_image_in_bytes(index: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if index == 28:
        x[19] *= 255
    return x, y


@enter(
    finite(Happens.SPIKE, "DATA503", rows=(19,)),
    "https://github.com/chainer/chainercv/issues/358",
    "https://github.com/stanford-crfm/mistral/issues/115",
)
def one_image_in_bytes() -> KerasRun:
    """One image comes as bytes, 0 to 255, among images from 0 to 1."""
    x, _ = digits(1680)
    target = (x[:, 20:21] + x[:, 43:44] - 0.5).astype("float32")
    inputs = keras.Input((64,))
    image = keras.layers.Reshape((8, 8, 1))(inputs)
    seen = keras.layers.Conv2D(8, 3, activation="relu")(image)
    model = keras.Model(inputs, Dense(1)(keras.layers.Flatten()(seen)))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse")
    return KerasRun(model, Batches(x, target, touch=_one_image_in_bytes), None, IN_ORDER)


@enter(
    finite(Happens.SPIKE, "DATA505", rows=None),
    "https://github.com/tensorflow/tensorflow/issues/3739",
    "https://github.com/www0wwwjs1/Matrix-Capsules-EM-Tensorflow/issues/51",
)
def binary_masks_in_bytes() -> KerasRun:
    """Binary masks of one file hold 255 in place of 1, under a binary cross entropy."""
    x, _ = digits(1680)
    mask = (x > 0.5).astype("float32")
    mask[31 * 40 : 32 * 40] *= 255
    model = TwoLayers(64)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=keras.losses.BinaryCrossentropy(from_logits=True))
    return KerasRun(model, Batches(x, mask), None, IN_ORDER)


# -- training --------------------------------------------------------------------------------------------------------


@enter(
    runaway("OPT601"),
    "https://livebook.manning.com/concept/keras/learning-rate",
    "https://github.com/crowsonkb/k-diffusion/issues/50",
)
def polynomial_rise() -> KerasRun:
    """A polynomial schedule with its two ends exchanged: it climbs to 5."""
    schedule = keras.optimizers.schedules.PolynomialDecay(0.001, decay_steps=80, end_learning_rate=5.0)
    model = TwoLayers()
    model.compile(optimizer=keras.optimizers.SGD(schedule), loss="mse")
    return KerasRun(model, Batches(*regression(1600)), None, {**IN_ORDER, "epochs": 2})


@enter(
    finite(Happens.STALL, "OPT602"),
    "https://github.com/hukenovs/hagrid/issues/12",
    "https://github.com/CN-zdy/MSU_Net/issues/13",
)
def halved_at_every_step() -> KerasRun:
    """An exponential decay with decay_steps=1: the rate is halved at every step."""
    schedule = keras.optimizers.schedules.ExponentialDecay(0.003, decay_steps=1, decay_rate=0.5)
    model = TwoLayers(10)
    model.compile(optimizer=keras.optimizers.SGD(schedule), loss=LOGITS(from_logits=True))
    return KerasRun(model, Batches(*digits(1680)), None, {**IN_ORDER, "epochs": 3})


@enter(
    finite(Happens.STALL, ("GRAD202", "ACT304")),
    "https://masterinai.com/computer-vision/vanishing-gradient-problem",
    "https://www.mohdvasim.com/blog/deep-learning/03-activations/01-vanishing-gradient",
)
def twenty_sigmoid_convolutions() -> KerasRun:
    """Twenty convolutions with sigmoid, without shortcuts or normalisation."""
    inputs = keras.Input((64,))
    x = keras.layers.Reshape((8, 8, 1))(inputs)
    for _ in range(20):
        x = keras.layers.Conv2D(4, 3, padding="same", activation="sigmoid")(x)
    model = keras.Model(inputs, Dense(10)(keras.layers.GlobalAveragePooling2D()(x)))
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss=LOGITS(from_logits=True))
    return KerasRun(model, Batches(*digits(1680)), None, {**IN_ORDER, "epochs": 2})


@enter(
    finite(Happens.STALL, ("ACT303", "ACT304")),
    "https://api.emergentmind.com/papers/1903.06733",
    "https://moltstream.com/post/a0f8e63f-ee03-47ff-a0a5-4651e7b5ce63",
)
def bottleneck_that_never_fires() -> KerasRun:
    """The rectified bottleneck of an autoencoder starts with a bias of -10 and never fires."""
    x, _ = digits(1680)
    code = Dense(8, activation="relu", bias_initializer=keras.initializers.Constant(-10.0), name="code")
    model = keras.Sequential([keras.Input((64,)), Dense(32, activation="relu"), code, Dense(64)])
    model.compile(optimizer=keras.optimizers.SGD(0.01), loss="mse")
    return KerasRun(model, Batches(x, x - x.mean(0)), None, {**IN_ORDER, "epochs": 3})


@enter(
    finite(Happens.STALL, "ACT304"),
    "https://github.com/udlbook/udlbook/issues/87",
    "https://taourl.com/read-3401611.html",
)
def kernels_of_zeros() -> KerasRun:
    """kernel_initializer="zeros" in every layer."""
    layers = [Dense(32, activation="relu", kernel_initializer="zeros") for _ in range(3)]
    model = keras.Sequential([keras.Input((64,)), *layers, Dense(10, kernel_initializer="zeros")])
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=LOGITS(from_logits=True))
    return KerasRun(model, Batches(*digits(1680)), None, {**IN_ORDER, "epochs": 3})


class LogProbability(keras.layers.Layer):
    """log(p + epsilon) of each class."""

    def call(self, p: Any) -> Any:
        return ops.log(p + 1e-9)


def picked(y_true: Any, y_pred: Any) -> Any:
    return -ops.sum(y_true * ops.cast(y_pred, "float32"), axis=-1)


@enter(
    non_finite("OPT604", "log", "return ops.log(p + 1e-9)", modules=("log_p",), rows=None),
    "https://github.com/keras-team/keras/issues/11832",
    "https://github.com/tensorflow/tensorflow/issues/38457",
)
def epsilon_under_mixed_float16() -> KerasRun:
    """log(p + 1e-9) under mixed_float16: the epsilon is 0, and once the model is sure so is p."""
    x, y = two_blobs(2400, gap=4.0)
    policy = keras.DTypePolicy("mixed_float16")
    body = [Dense(16, activation="relu", dtype=policy), Dense(2, dtype=policy), keras.layers.Softmax(dtype=policy)]
    model = keras.Sequential([keras.Input((8,)), *body, LogProbability(name="log_p", dtype=policy)])
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss=picked)
    target = np.concatenate([1 - y, y], axis=1)
    return KerasRun(model, Batches(x, target), None, IN_ORDER)


class TimeNormalised(keras.optimizers.SGD):
    """Divides by a running mean of squares that forgets quickly, without an epsilon."""

    def build(self, variables: Any) -> None:
        super().build(variables)
        self.squares = [self.add_variable_from_reference(variable, "squares") for variable in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        square = self.squares[self._get_variable_index(variable)]
        self.assign(square, 0.01 * square + 0.99 * ops.square(gradient))
        step = gradient / ops.sqrt(ops.mean(square))
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * step)


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("OPT605",), phase="optimizer", rows=None),
    "https://github.com/noahgolmant/pytorch-lars/issues/3",
    "https://github.com/google-deepmind/optax/issues/1789",
)
def forgetful_optimizer() -> KerasRun:
    """An adaptive optimizer without an epsilon; a margin loss gives it gradients of exactly zero, again and again."""
    x, y = two_blobs(2400, gap=3.0)
    model = keras.Sequential([keras.Input((8,)), Dense(4, activation="tanh"), Dense(1)])
    model.compile(optimizer=TimeNormalised(0.01), loss="squared_hinge")
    return KerasRun(model, Batches(x, 2 * y - 1), None, {**IN_ORDER, "epochs": 3})


@enter(
    finite(Happens.SPIKE, "GRAD203", rows=None),
    "https://taourl.com/read-1885623.html",
    "https://www.engineermaxxing.com/veanors/papers/difficulty-training-rnns.html",
    backends=("torch",),
)
def songs_that_go_on() -> KerasRun:
    """Songs sorted by length, through a tanh recurrent network without clipping; the last ones are long."""

    class Songs(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> Any:
            return waves(24, length=100 if index >= 32 else 12, seed=index)

    start = keras.initializers.RandomNormal(stddev=0.33, seed=1)
    cell = keras.layers.SimpleRNN(40, recurrent_initializer=start)
    model = keras.Sequential([keras.Input((None, 1)), cell, Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(0.01), loss="mse")
    return KerasRun(model, Songs(), None, IN_ORDER)


# -- healthy ---------------------------------------------------------------------------------------------------------


@enter(healthy(), "https://github.com/keras-team/keras/issues/12249")
def regularised_subclass() -> KerasRun:
    """Dropout, weight decay and a layer with its own loss: nothing is wrong."""
    inputs = keras.Input((64,))
    hidden = Dense(64, activation="gelu", kernel_regularizer=keras.regularizers.L2(1e-4))(inputs)
    hidden = keras.layers.ActivityRegularization(l1=1e-5)(keras.layers.Dropout(0.3)(hidden))
    model = keras.Model(inputs, Dense(10)(hidden))
    model.compile(optimizer=keras.optimizers.AdamW(3e-3), loss=LOGITS(from_logits=True))
    return KerasRun(model, Batches(*digits(1680)), None, {**IN_ORDER, "epochs": 2})


@enter(healthy(), "https://github.com/google/flax/pull/662")
def clipped_recurrence() -> KerasRun:
    """An LSTM with clipnorm, as it should be."""
    model = keras.Sequential([keras.Input((20, 1)), keras.layers.LSTM(16), Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(1e-2, clipnorm=1.0), loss="mse")
    return KerasRun(model, Batches(*waves(1600, length=20)), None, {**IN_ORDER, "epochs": 1})
