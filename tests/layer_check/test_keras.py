"""Keras layers, losses and functions: `KERAS_BACKEND=jax python -m pytest tests/layer_check/test_keras.py`."""

import os

import pytest

BACKEND = os.environ.get("KERAS_BACKEND")
if not BACKEND:
    pytest.skip("needs KERAS_BACKEND", allow_module_level=True)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import layers, ops  # noqa: E402

from nan_callbacks.layer_check import InputSpec, check_layer  # noqa: E402

SHAPE = (4, 6)
SHARES = InputSpec(SHAPE, kind="probabilities")


class UnitNorm(layers.Layer):
    def call(self, x):
        return x / ops.sqrt(ops.sum(x * x, -1, keepdims=True))  # @blame


class LogOfSoftmax(layers.Layer):
    def call(self, x):
        return ops.log(ops.softmax(x))  # @blame


class Outer(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(6)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return ops.log(ops.relu(self.dense(x)))  # @blame


class LogLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return -ops.sum(y_true * ops.log(y_pred), -1)  # @blame


class AlwaysDropout(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, x):
        return keras.random.dropout(x, 0.5, seed=self.seed_generator)


def softplus_by_hand(x):
    return ops.log(1.0 + ops.exp(x))  # @blame


def root(x):
    return ops.sqrt(ops.abs(x))  # @blame


def masked_softmax(x, mask):
    return ops.softmax(ops.where(ops.equal(mask, 0), -np.inf, x))  # @blame


@ops.custom_gradient
def wrong_cube(x):
    def grad(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        return 2 * x * x * upstream

    return x**3, grad


UNSAFE = [
    (UnitNorm(), SHAPE, {}, "forward", "divide"),
    (LogOfSoftmax(), SHAPE, {}, "forward", "log"),
    (Outer(), SHAPE, {}, "forward", "log"),
    (LogLoss(), SHARES, {"target_spec": SHARES}, "forward", "log"),
    (softplus_by_hand, SHAPE, {}, "forward", "exp"),
    (root, SHAPE, {}, "backward", "sqrt"),
    (masked_softmax, [InputSpec(SHAPE), InputSpec(SHAPE, kind="mask")], {}, "forward", "softmax"),
]


@pytest.mark.parametrize(("layer", "spec", "options", "phase", "operation"), UNSAFE)
def test_operation_and_line_are_named(layer, spec, options, phase, operation):
    (failure,) = check_layer(layer, spec, **options).failures

    assert (failure.check, failure.phase, failure.operation) == ("finite", phase, operation), failure.describe()
    assert failure.source is not None
    assert failure.source.text.endswith("# @blame")
    assert failure.input.shape[0] == 1
    assert "ops." in failure.remedy or "keras" in failure.remedy or operation == "softmax"


def test_a_wrong_gradient_is_caught():
    (failure,) = check_layer(layers.Lambda(lambda x: wrong_cube(x)), SHAPE).failures

    assert failure.check == "gradient", failure.describe()


def test_dependence_on_the_batch_and_randomness_are_caught():
    (centred,) = check_layer(lambda x: x - ops.mean(x, 0), SHAPE).failures
    (noisy,) = check_layer(AlwaysDropout(), SHAPE).failures

    assert centred.check == "batch invariance"
    assert noisy.check == "determinism"


SAFE = [
    (lambda: layers.Dense(3, activation="gelu"), SHAPE),
    (layers.LayerNormalization, SHAPE),
    (layers.BatchNormalization, SHAPE),
    (lambda: layers.Dropout(0.5), SHAPE),
    (layers.Add, [SHAPE, SHAPE]),
    (lambda: layers.Conv2D(2, 3), (4, 6, 6, 3)),
    (lambda: layers.Embedding(10, 4), InputSpec((4, 5), kind="indices", high=10)),
    (lambda: layers.GRU(3), (4, 5, 6)),
]


@pytest.mark.parametrize(("make", "spec"), SAFE)
def test_safe_layers_pass(make, spec):
    result = check_layer(make(), spec)

    assert result.passed, result.describe()


def test_safe_losses_pass():
    assert check_layer(keras.losses.MeanSquaredError(), SHAPE, target_spec=SHAPE).passed
    assert check_layer(keras.losses.CategoricalCrossentropy(), SHARES, target_spec=SHARES).passed
    assert check_layer(keras.losses.mean_absolute_error, SHAPE, target_spec=SHAPE).passed


def test_variables_and_settings_are_left_as_they_were():
    model = keras.Sequential([layers.Input((6,)), layers.Dense(6), layers.BatchNormalization(), layers.Dropout(0.5)])
    before = [np.array(variable.numpy()) for variable in model.variables]

    check_layer(model, SHAPE, half_precision=True)

    for variable, values in zip(model.variables, before, strict=True):
        assert np.array_equal(variable.numpy(), values)
    assert keras.config.floatx() == "float32"
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert keras.backend.standardize_dtype(model(np.ones(SHAPE, "float32")).dtype) == "float32"
