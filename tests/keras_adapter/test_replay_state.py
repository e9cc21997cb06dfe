"""A replay leaves nothing behind: the next real step goes as if there had been none."""

import random
import threading

import keras
import numpy as np
import pytest
from keras import layers, ops

from nan_callbacks.keras.replay import replay
from tests.keras_adapter.replay_expectations import BACKEND, arrays, compiled, tensors


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Threads that other tests have left behind are no loaders of these ones' data."""
    monkeypatch.setattr(threading, "enumerate", lambda: [threading.current_thread()])


class Fails(layers.Layer):
    """Draws from every stream, then fails as asked."""

    def __init__(self, how, **options):
        super().__init__(**options)
        self.how = how
        self.seed = keras.random.SeedGenerator(5)

    def call(self, x):
        random.random()
        np.random.random()  # noqa: NPY002
        x = x + keras.random.normal(ops.shape(x), seed=self.seed)
        if self.how == "error":
            raise RuntimeError("the layer gave up")
        return ops.log(x * 0.0) if self.how == "nan" else x


def trained(how):
    """A model with statistics, seeds, moments and metrics, after a few real steps, that fails from now on."""
    keras.utils.set_random_seed(1)
    fails = Fails("nothing", name="fails")
    model = keras.Sequential(
        [layers.Input((6,)), layers.Dense(8), layers.BatchNormalization(), layers.Dropout(0.3), fails, layers.Dense(1)]
    )
    compiled(model, optimizer=keras.optimizers.Adam(0.01), metrics=["mae"])
    x, y = arrays()
    model.fit(x, y, epochs=2, verbose=0)
    fails.how = how
    return model


def state(model):
    values = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    unseeded = keras.src.backend.common.global_state.get_global_attribute("global_seed_generator")
    values += [] if unseeded is None else [unseeded.state]
    frozen = [np.array(ops.convert_to_numpy(each.value)) for each in values]
    return frozen, random.getstate(), np.random.get_state()[1].copy(), own_stream()  # noqa: NPY002


def own_stream():
    if BACKEND == "tensorflow":
        from tensorflow.python.eager import context

        return context.context()._rng.getstate()
    if BACKEND == "torch":
        import torch

        return tuple(torch.get_rng_state().tolist())
    return None


def same(before, after):
    values = len(before[0]) == len(after[0]) and all(
        a.tobytes() == b.tobytes() for a, b in zip(before[0], after[0], strict=True)
    )
    return values and before[1] == after[1] and np.array_equal(before[2], after[2]) and before[3] == after[3]


@pytest.mark.parametrize("how", ["nothing", "nan", "error"])
def test_every_bit_is_as_before(how):
    model = trained(how)
    before = state(model)
    assert len(before[0]) > 15
    result = replay(model, tensors(arrays()))
    assert result.reproduced == (how != "nothing")
    assert same(before, state(model))


def test_the_state_check_sees_a_step():
    model = trained("nothing")
    before = state(model)
    model.train_on_batch(*arrays())
    assert not same(before, state(model))


def test_an_error_of_the_model_is_told():
    result = replay(trained("error"), tensors(arrays()))
    origin = result.origin
    assert (origin.kind, origin.operation, origin.module_type) == ("exception", "RuntimeError", "Fails")
    assert "the layer gave up" in origin.detail
    assert 'raise RuntimeError("the layer gave up")' in origin.source.text


def test_replays_are_alike():
    model = trained("nan")
    first, second = (replay(model, tensors(arrays())) for _ in range(2))
    assert first.origin == second.origin
    assert first.non_finite_gradients == second.non_finite_gradients != ()


def test_gives_up_in_time():
    result = replay(trained("nan"), tensors(arrays()), budget_seconds=0.0)
    assert result.origin is None
    assert result.note


def test_training_goes_on_after_a_replay():
    x, y = arrays()
    losses = []
    for with_replay in (False, True):
        model = trained("nothing")
        if with_replay:
            replay(model, tensors((x, y)))
        losses.append(model.fit(x, y, epochs=2, verbose=0).history["loss"])
    assert losses[0] == losses[1]


def test_prints_nothing(capfd):
    model = trained("nan")
    capfd.readouterr()
    replay(model, tensors(arrays()))
    assert capfd.readouterr() == ("", "")


if BACKEND == "jax":  # the others train on the model's own variables

    def test_the_state_that_fit_holds_counts_on_jax():
        model = trained("nothing")
        groups = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
        state = [[variable.value for variable in group] for group in groups]
        state[0][0] = state[0][0] * np.nan
        result = replay(model, tensors(arrays()), state=state)
        assert (result.origin.kind, result.origin.operation) == ("parameters", model.trainable_variables[0].path)
        assert replay(model, tensors(arrays())).origin is None
