"""A run without incidents is the run without the callback."""

import keras
import pytest

from tests.keras_adapter.runs import BACKEND, compiled, data, distance, guard, network, same, state, train

MODES = {"auto": {"jit_compile": "auto"}, "no jit": {"jit_compile": False}, "eagerly": {"run_eagerly": True}}
XLA = {"auto", "jit"} if BACKEND == "jax" else {"jit"}
"""Modes in which a compiler fuses the guarded step differently."""
if BACKEND != "torch":
    MODES["jit"] = {"jit_compile": True}


class Subclassed(keras.Model):
    """Unbuilt until its first batch."""

    def __init__(self):
        super().__init__()
        self.first = keras.layers.Dense(8, activation="relu")
        self.second = keras.layers.Dense(1)

    def call(self, inputs):
        return self.second(self.first(inputs))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [network, Subclassed], ids=["sequential", "subclassed"])
def test_the_final_state_is_the_same(mode, make):
    plain, guarded = compiled(make, **MODES[mode]), compiled(make, **MODES[mode])
    callback = guard(checkup=True, health_every_n_steps=3)
    expected = train(plain, data(), epochs=2)
    history = train(guarded, data(), callback, epochs=2)

    assert callback.summary["steps"] == 20
    assert callback.summary["incidents"] == 0
    if mode in XLA:
        assert distance(state(guarded), state(plain)) <= 1e-6
        assert history["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    else:
        assert same(state(guarded), state(plain))
        assert history["loss"] == expected["loss"]


def test_the_model_is_given_back_as_it_was_found():
    model = compiled()
    train(model, data())
    function, attributes = model.train_function, set(vars(model))
    optimizer, variables = set(vars(model.optimizer)), len(model.optimizer.variables)
    train(model, data(), guard())

    assert model.train_function is function
    assert set(vars(model)) == attributes
    assert set(vars(model.optimizer)) == optimizer
    assert len(model.optimizer.variables) == variables


def test_other_callbacks_get_their_logs():
    class Recorder(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.batches = []

        def on_train_batch_end(self, batch, logs=None):
            self.batches.append(dict(logs))

    plain, guarded = Recorder(), Recorder()
    train(compiled(run_eagerly=True), data(), plain)
    train(compiled(run_eagerly=True), data(), guarded, guard())

    assert guarded.batches == plain.batches


def test_values_appear_in_the_history_if_they_are_asked_for():
    history = train(compiled(), data(), guard(log_every_n_steps=5), epochs=2)

    assert history["nan_callbacks/incidents"] == [0.0, 0.0]
    assert history["nan_callbacks/lr_scale"] == [1.0, 1.0]
    assert all(norm > 0 for norm in history["nan_callbacks/grad_norm"])
