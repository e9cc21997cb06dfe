"""Half precision: the loss scaler does its own business, everything else is ours."""

import keras
import numpy as np
import pytest

from tests.keras_adapter.runs import (
    BACKEND,
    compiled,
    data,
    distance,
    finite,
    guard,
    kinds,
    same,
    state,
    train,
    with_fault,
    without,
)


def half(policy):
    def make():
        before = keras.mixed_precision.dtype_policy()
        keras.mixed_precision.set_dtype_policy(policy)
        try:
            layers = keras.layers
            return keras.Sequential(
                [
                    layers.Input((4,)),
                    layers.Dense(8, activation="tanh"),
                    layers.BatchNormalization(),
                    layers.Dense(1, dtype="float32"),
                ]
            )
        finally:
            keras.mixed_precision.set_dtype_policy(before)

    return make


def scaler_of(initial):
    return lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), initial_scale=initial)


def test_compiling_a_half_precision_model_brings_the_scaler():
    assert isinstance(compiled(half("mixed_float16")).optimizer, keras.optimizers.LossScaleOptimizer)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_no_harm(policy):
    plain, guarded, callback = compiled(half(policy)), compiled(half(policy)), guard()
    train(plain, data())
    train(guarded, data(), callback)

    assert callback.summary["incidents"] == 0
    if BACKEND == "jax":  # half-precision activations are fused differently
        assert distance(state(guarded), state(plain)) <= 1e-3
    else:
        assert same(state(guarded), state(plain))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_non_finite_batch_leaves_nothing_not_even_in_the_scale(policy):
    faulty = with_fault(data(), [3])
    model, callback = compiled(half(policy)), guard()
    train(model, faulty, callback)
    reference = compiled(half(policy))
    train(reference, without(faulty, [3]), guard())

    assert callback.summary["codes"] == {"NAN101": 1}
    assert callback.summary["skipped_steps"] == 1
    assert same(state(model), state(reference))


def test_an_overflow_of_scaled_gradients_is_left_to_the_scaler():
    plain = compiled(half("mixed_float16"), scaler_of(2.0**127))
    train(plain, data())
    model, callback = compiled(half("mixed_float16"), scaler_of(2.0**127)), guard()
    train(model, data(), callback)

    scale = float(keras.ops.convert_to_numpy(model.optimizer.dynamic_scale))
    assert scale == float(keras.ops.convert_to_numpy(plain.optimizer.dynamic_scale)) < 2.0**127
    assert kinds(callback) == ["summary"]
    assert finite(state(model))


def test_the_norm_is_that_of_the_unscaled_gradients():
    seen = []
    for initial in (1.0, 1024.0):
        model, callback = compiled(half("mixed_bfloat16"), scaler_of(initial)), guard(log_every_n_steps=1)
        history = train(model, data(1), callback)
        seen.append(history["nan_callbacks/grad_norm"][0])

    assert seen[0] == pytest.approx(seen[1], rel=0.05)
    assert np.isfinite(seen).all()
