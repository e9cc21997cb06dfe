"""A dropped batch leaves nothing: bitwise the guarded run whose data never held it."""

import keras
import numpy as np
import pytest

from tests.keras_adapter.runs import (
    BACKEND,
    compiled,
    data,
    finite,
    guard,
    kinds,
    network,
    same,
    state,
    train,
    with_fault,
    with_targets,
    without,
)

OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "sgd with momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    "adamw with averaged weights": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.01, use_ema=True),
    "clipnorm": lambda: keras.optimizers.Adam(0.01, clipnorm=0.5),
    "global_clipnorm": lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.5),
    "accumulation": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=3),
    "schedule": lambda: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.05, 3, 0.8)),
}

MODES = {"auto": {"jit_compile": "auto"}, "no jit": {"jit_compile": False}, "eagerly": {"run_eagerly": True}}
if BACKEND != "torch":  # there it means torch.compile, which needs a C++ compiler
    MODES["jit"] = {"jit_compile": True}
    MODES["several steps per execution"] = {"steps_per_execution": 4}


def never_drawn(bad, faulty, **options) -> tuple:
    model, callback = compiled(**options), guard(diagnose="on_incident")
    history = train(model, faulty, callback)
    reference, other = compiled(**options), guard()
    expected = train(reference, without(faulty, bad), other)
    return model, callback, history, reference, expected


@pytest.mark.parametrize("mode", MODES)
def test_nothing_remains_of_a_non_finite_batch_in_any_mode(mode):
    model, callback, history, reference, expected = never_drawn([3, 6], with_fault(data(), [3, 6]), **MODES[mode])

    assert callback.summary["skipped_steps"] == 2
    assert callback.summary["codes"] == {"NAN101": 2}
    assert same(state(model), state(reference))
    assert finite(state(model))
    assert history["loss"] == expected["loss"]
    assert history["mae"] == expected["mae"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_nothing_remains_under_any_optimizer(optimizer):
    model, callback, _, reference, _ = never_drawn([3], with_fault(data(), [3]), optimizer=OPTIMIZERS[optimizer])

    assert callback.summary["skipped_steps"] == 1
    assert same(state(model), state(reference))


def test_nothing_remains_of_a_spike():
    faulty = with_targets(data(), [7], 1e4)
    model, callback, _, reference, _ = never_drawn([7], faulty)

    assert callback.summary["skipped_steps"] == 1
    assert set(callback.summary["codes"]) <= {"GRAD201", "LOSS401"}
    assert same(state(model), state(reference))


def test_nothing_remains_of_a_first_batch():
    model, callback, history, reference, _ = never_drawn([0], with_fault(data(), [0]))

    assert callback.summary["skipped_steps"] == 1
    assert same(state(model), state(reference))
    assert np.isfinite(history["loss"]).all()


def test_batch_statistics_of_a_wild_batch_are_kept_out():
    def normalised_first():
        layers = keras.layers
        return keras.Sequential([layers.Input((4,)), layers.BatchNormalization(), layers.Dense(1)])

    x, y = data(30)
    x[25 * 8 : 26 * 8] *= 1e4
    model, callback, _, reference, _ = never_drawn([25], (x, y), make=normalised_first)

    assert "ACT301" in callback.summary["codes"]
    assert same(state(model), state(reference))


def test_a_non_finite_loss_with_finite_gradients_is_dropped_while_it_is_rare():
    # The last target of a batch marks it; the fault is added to the loss without touching its gradient.
    def loss(y_true, y_pred):
        broken = keras.ops.where(keras.ops.max(y_true) > 50.0, float("inf"), 0.0)
        return keras.ops.mean(keras.ops.square(keras.ops.minimum(y_true, 3.0) - y_pred)) + broken

    x, y = data()
    y[6 * 8] = 100.0
    model, callback, history, reference, expected = never_drawn([6], (x, y), loss=loss, metrics=[])

    assert kinds(callback) == ["NAN102", "summary"]
    assert callback.summary["skipped_steps"] == 1
    assert same(state(model), state(reference))
    assert history["loss"] == expected["loss"]


def test_frozen_layers_and_two_outputs():
    def make():
        layers = keras.layers
        entry = keras.Input((4,))
        base = layers.Dense(8, activation="tanh")
        base.trainable = False
        middle = layers.BatchNormalization()(base(entry))
        return keras.Model(entry, layers.Concatenate()([layers.Dense(1)(middle), layers.Dense(1)(middle)]))

    model, callback, _, reference, _ = never_drawn([3], with_fault(data(), [3]), make=make)

    assert callback.summary["skipped_steps"] == 1
    assert same(state(model), state(reference))


def test_the_loss_in_the_events_is_that_of_the_batch():
    faulty = with_targets(data(), [7], 1e4)
    model, callback = compiled(network), guard()
    train(model, faulty, callback)
    incident = callback.events[0]

    assert incident["step"] == 7
    assert incident["loss"] == pytest.approx(1e8, rel=0.01)


@pytest.mark.skipif(BACKEND != "torch", reason="about buffers of torch")
@pytest.mark.parametrize("way", ["in place", "in place of .data"])
def test_buffers_that_layers_register_with_torch_are_put_back(way):
    import torch

    class Centred(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.register_buffer("centre", torch.zeros(4))

        def call(self, x, training=None):
            if training:
                with torch.no_grad():
                    (self.centre if way == "in place" else self.centre.data).lerp_(x.mean(0), 0.1)
            return x - self.centre

    def centred_first():
        return keras.Sequential([keras.layers.Input((4,)), Centred(), keras.layers.Dense(1)])

    model, callback, _, reference, _ = never_drawn([0, 6], with_fault(data(), [0, 6]), make=centred_first)

    assert (callback.summary["skipped_steps"], callback.summary["rollbacks"]) == (2, 0)
    assert model.layers[0].centre.tolist() == reference.layers[0].centre.tolist()
    assert same(state(model), state(reference))
