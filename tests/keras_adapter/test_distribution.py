"""Two logical CPU devices: ``MirroredStrategy`` on TensorFlow, ``DataParallel`` on JAX; torch has neither in Keras."""

import functools
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import pytest

from tests.keras_adapter.runs import (
    BACKEND,
    BATCH,
    compiled,
    data,
    distance,
    finite,
    guard,
    network,
    same,
    state,
    train,
    without,
)

HALF = BATCH // 2
ROWS = {"in the first replica": 1, "in the second replica": HALF + 1}


@functools.cache
def mirrored() -> Any:
    """One for the process: TensorFlow's collectives of several strategies get into each other's way."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@contextmanager
def two_devices():
    if BACKEND == "tensorflow":
        with mirrored().scope():
            yield
    elif BACKEND == "jax":
        devices = keras.distribution.list_devices()
        assert len(devices) == 2
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
        try:
            yield
        finally:
            keras.distribution.set_distribution(None)
    else:
        yield  # one device: the same scenarios hold


def without_dropout():
    layers = keras.layers
    return keras.Sequential(
        [layers.Input((4,)), layers.Dense(8, activation="tanh"), layers.BatchNormalization(), layers.Dense(1)]
    )


def half_precision():
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        layers = keras.layers
        return keras.Sequential([layers.Input((4,)), layers.Dense(8), layers.Dense(1, dtype="float32")])
    finally:
        keras.mixed_precision.set_dtype_policy(before)


def broken_at(row):
    x, y = data()
    x[3 * BATCH + row, 2] = float("nan")
    return x, y


@pytest.mark.parametrize("make", [network, without_dropout])
def test_no_harm(make):
    with two_devices():
        plain, callback = compiled(make), guard()
        train(plain, data())
        guarded = compiled(make)
        train(guarded, data(), callback)

    assert callback.summary["incidents"] == 0
    if BACKEND == "jax":
        assert distance(state(guarded), state(plain)) <= 5e-6
    else:
        assert same(state(guarded), state(plain))


@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
@pytest.mark.parametrize("make", [without_dropout, half_precision])
def test_a_bad_sample_on_one_device_is_dropped_on_both(make, row):
    faulty = broken_at(row)
    with two_devices():
        model, callback = compiled(make), guard()
        history = train(model, faulty, callback)
        reference = compiled(make)
        expected = train(reference, without(faulty, [3]), guard())

    assert callback.summary["codes"] == {"NAN101": 1}
    assert callback.summary["skipped_steps"] == 1
    assert callback.events[0]["detail"] == "the batch itself is non-finite"
    assert finite(state(model))
    assert same(state(model), state(reference))
    assert history["loss"] == expected["loss"]


def test_an_overflow_on_one_device_is_left_to_the_scaler():
    with two_devices():
        model = compiled(
            half_precision, lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), 2.0**17)
        )
        callback = guard()
        x, y = data()
        y[3 * BATCH + HALF : 4 * BATCH] = 3000.0  # gradients beyond 65504 once scaled, on the second device
        train(model, (x, y), callback)

    assert finite(state(model))


def test_a_rollback_reaches_both_devices():
    x, y = data(30)
    y[20 * BATCH : 23 * BATCH] = 1e30
    with two_devices():
        model, callback = compiled(without_dropout), guard(snapshot_every_n_steps=5, probation_steps=5)
        train(model, (x, y), callback)

    assert callback.summary["rollbacks"] == 1
    assert callback.summary["lr_scale"] == 0.5
    assert finite(state(model))


@pytest.mark.parametrize("clipping", [{}, {"clipnorm": 0.01}], ids=["plain", "clipped"])
def test_the_gradient_norm_is_that_of_all_devices_together(clipping):
    """Both halves of each batch pull in opposite directions: the mean of their norms would be far too large."""
    x, y = data()
    mirrored_half = np.arange(len(x)) % BATCH >= HALF
    x[mirrored_half] = x[~mirrored_half]
    y[~mirrored_half], y[mirrored_half] = 5.0, -4.9

    def make():
        return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])

    options = {"optimizer": lambda: keras.optimizers.SGD(1e-6, **clipping)}
    with two_devices():
        history = train(compiled(make, **options), (x, y), guard(log_every_n_steps=1))
    alone = train(compiled(make, **options), (x, y), guard(log_every_n_steps=1))

    assert history["nan_callbacks/grad_norm"] == pytest.approx(alone["nan_callbacks/grad_norm"], rel=1e-4)


if BACKEND == "tensorflow":

    @pytest.mark.parametrize("steps", [1, 3])
    def test_several_steps_per_call_are_guarded_one_by_one(steps):
        with two_devices():
            model, callback = compiled(without_dropout, steps_per_execution=steps), guard()
            train(model, broken_at(1), callback)
            reference = compiled(without_dropout)
            train(reference, without(data(), [3]), guard())

        assert callback.summary["steps"] == 10
        assert callback.summary["skipped_steps"] == 1
        assert same(state(model), state(reference))

    def test_accumulated_gradients_fail_as_they_do_without_us():
        """Keras 3.15 cannot accumulate under this strategy; the error must stay its own."""
        options = {"optimizer": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2)}
        with two_devices():
            with pytest.raises(RuntimeError, match="merge_call") as alone:
                train(compiled(without_dropout, **options), data())
            with pytest.raises(RuntimeError, match="merge_call") as guarded:
                train(compiled(without_dropout, **options), data(), guard())

        assert type(guarded.value) is type(alone.value)
