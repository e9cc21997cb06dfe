"""Slopes without an end, functions outside of their domain, and numbers that half precision does not hold, in Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, Truth, enter, non_finite
from benchmarks.diagnosis.tables import digits, regression

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


# -- NAN113: gradient singularity ------------------------------------------------------------------------------------


def smooth_within_the_lung(y_true: Any, y_pred: Any) -> Any:
    """Squared error plus total variation; `y_true` holds the clean picture and the mask of the lung."""
    clean, lung = y_true[..., :1], y_true[..., 1:]
    seen = y_pred * lung
    down = seen[:, 1:, :-1] - seen[:, :-1, :-1]
    right = seen[:, :-1, 1:] - seen[:, :-1, :-1]
    variation = ops.mean(ops.sqrt(ops.square(down) + ops.square(right)), axis=(1, 2, 3))
    return ops.mean(ops.square((y_pred - clean) * lung), axis=(1, 2, 3)) + 0.01 * variation


@enter(
    non_finite(
        "NAN113",
        "sqrt",
        "variation = ops.mean(ops.sqrt(ops.square(down)",
        phase="backward",
        modules=("",),
        rows=(8,),
    ),
    "https://github.com/Li-Chongyi/Zero-DCE_extension/issues/2",
    "https://github.com/rakutentech/stAdv/issues/3",
)
def total_variation_outside_of_the_lung() -> KerasRun:
    """A denoiser with an isotropic total variation: one scan is masked in part, and there both differences are zero."""
    images, _ = digits(1280)
    rng = np.random.default_rng(1)
    clean = images.reshape(-1, 8, 8, 1)
    noisy = (clean + 0.2 * rng.normal(size=clean.shape)).astype("float32")
    lung = np.ones_like(clean)
    lung[27 * 32 + 8, 5:] = 0
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, padding="same", activation="tanh"),
            layers.Conv2D(1, 3, padding="same"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=smooth_within_the_lung)
    return KerasRun(model, noisy, np.concatenate([clean, lung], axis=-1), FIT)


class GroupLasso(keras.regularizers.Regularizer):
    """Sum of the lengths of the rows: whole inputs are to fall away."""

    def __call__(self, kernel: Any) -> Any:
        return 5e-2 * ops.sum(ops.sqrt(ops.sum(ops.square(kernel), axis=1)))


@enter(
    non_finite(
        "NAN113",
        "sqrt",
        "return 5e-2 * ops.sum(ops.sqrt(ops.sum(ops.square(kernel)",
        phase="backward",
        modules=None,
        rows=(),
    ),
    "https://github.com/tensorflow/tensorflow/issues/3307",
    "https://github.com/glm-tools/pyglmnet/issues/170",
)
def group_lasso_beside_weights_that_may_not_be_negative() -> KerasRun:
    """A constraint sets the last positive weight of an input to zero: the length of its row has no slope there."""
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 1, (1280, 12)).astype("float32")
    y = (2 * x[:, :1] + x[:, 1:2] - 1.5 * x[:, 2:3] - x[:, 3:4]).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(
                4,
                kernel_initializer=keras.initializers.RandomUniform(0.05, 0.15),
                kernel_regularizer=GroupLasso(),
                kernel_constraint="non_neg",
            ),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(2e-2, momentum=0.9), loss="mse")
    return KerasRun(model, x, y, FIT)


# -- NAN114: outside of the domain -----------------------------------------------------------------------------------


def fisher_z(y_true: Any, y_pred: Any) -> Any:
    """Squared error of correlations after Fisher's transformation."""
    return ops.mean(ops.square(ops.arctanh(y_true) - ops.arctanh(y_pred)))


@enter(
    non_finite(
        "NAN114",
        ("arctanh", "atanh"),
        "return ops.mean(ops.square(ops.arctanh(y_true)",
        modules=("",),
        rows=None,
    ),
    "https://github.com/pytorch/pytorch/issues/114046",
    "https://github.com/cvoelcker/reppo/issues/4",
)
def correlation_without_a_bound() -> KerasRun:
    """Correlations of shares are predicted by a linear layer and compared after Fisher's transformation."""
    x, y = regression(1280)
    correlation = np.tanh(1.2 * y).clip(-0.98, 0.98).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(32, activation="relu"),
            layers.Dense(1, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01)),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(4e-3), loss=fisher_z)
    return KerasRun(model, x, correlation, {**FIT, "epochs": 2})


# -- NAN115: custom gradient -----------------------------------------------------------------------------------------


@ops.custom_gradient
def signed_root(x: Any) -> Any:
    """Root of the size, with the sign of the value: what bilinear networks do before they compare."""

    def grad(*args: Any, upstream: Any = None) -> Any:
        (upstream,) = args if upstream is None else (upstream,)
        return upstream * 0.5 / ops.sqrt(ops.abs(x))

    return ops.sign(x) * ops.sqrt(ops.abs(x)), grad


class BilinearPooling(layers.Layer):
    """Outer products of the features of all places, pooled, rooted."""

    def call(self, features: Any) -> Any:
        pooled = ops.einsum("bpc,bpd->bcd", features, features) / features.shape[1]
        return signed_root(ops.reshape(pooled, (-1, features.shape[-1] ** 2)))


@enter(
    non_finite(
        ("NAN115", "NAN113"),
        None,
        ("return signed_root(ops.reshape(pooled", "return upstream * 0.5 / ops.sqrt(ops.abs(x))"),
        kind="operation",
        phase="backward",
        modules=("bilinear",),
        rows=(14,),
    ),
    "https://github.com/jnhwkim/cbp/issues/1",
    "https://github.com/HaoMood/bilinear-cnn/issues/4",
)
def signed_root_with_its_own_slope() -> KerasRun:
    """Bilinear pooling with a hand-written slope of the signed root, which divides by zero for a black leaf."""
    images, labels = digits(1280)
    images[31 * 32 + 14] = 0
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Reshape((8, 8)),
            layers.Dense(6, activation="tanh", use_bias=False),
            BilinearPooling(name="bilinear"),
            layers.Dense(10),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss=SPARSE)
    return KerasRun(model, images, labels, FIT)


# -- OPT604, OPT605 --------------------------------------------------------------------------------------------------


class Radius(layers.Layer):
    """Joints of a body, in pixels, as distances from the hip."""

    def call(self, joints: Any) -> Any:
        squared = ops.sum(ops.square(joints), axis=-1)
        return ops.log(squared + 1.0)


@enter(
    non_finite(
        "OPT604",
        ("square", "multiply", "power"),
        "squared = ops.sum(ops.square(joints), axis=-1)",
        modules=("radius",),
        rows=(21,),
    ),
    "https://github.com/keras-team/keras/issues/16552",
    "https://github.com/keras-team/keras/issues/22586",
)
def person_close_to_the_camera_in_half_precision() -> KerasRun:
    """Squares of pixels in float16: a body that fills the picture has joints more than 256 pixels from its hip."""
    rng = np.random.default_rng(5)
    pose = rng.integers(0, 4, 1280)
    shape = rng.normal(size=(4, 9, 2))
    joints = (30 * shape[pose] + 6 * rng.normal(size=(1280, 9, 2))).clip(-150, 150).astype("float32")
    joints[29 * 32 + 21] = joints[29 * 32 + 21] * 2
    joints[29 * 32 + 21, 4] = [310.0, -120.0]
    model = keras.Sequential(
        [
            keras.Input((9, 2)),
            Radius(name="radius", dtype="mixed_float16"),
            layers.Dense(16, activation="relu", dtype="mixed_float16"),
            layers.Dense(4, dtype="float32"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=SPARSE)
    return KerasRun(model, joints, pose, FIT)


class PolynomialRate(keras.optimizers.schedules.LearningRateSchedule):
    """What segmentation papers call "poly": the rate falls to nothing with a power of 0.9."""

    def __init__(self, rate: float, steps: int) -> None:
        self.rate, self.steps = rate, steps

    def __call__(self, step: Any) -> Any:
        return self.rate * ops.power(1.0 - ops.cast(step, "float32") / self.steps, 0.9)

    def get_config(self) -> dict[str, Any]:
        return {"rate": self.rate, "steps": self.steps}


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("OPT605",), kind="parameters", rows=()),
    "https://github.com/meetps/pytorch-semseg/issues/9",
    "https://github.com/tensorflow/tensorflow/issues/29714",
)
def polynomial_rate_one_step_past_its_end() -> KerasRun:
    """The schedule was made for 32 steps; in the 34th its base is negative, the rate NaN, and so are the weights."""
    images, labels = digits(1280)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Reshape((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(PolynomialRate(0.1, 32), momentum=0.9), loss=SPARSE)
    return KerasRun(model, images, labels, FIT)
