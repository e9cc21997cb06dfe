"""What a step changes besides its weights is found again wherever it lies, and looked for where it is only."""

import threading

import keras
import numpy as np
import pytest
from keras import layers

from nan_callbacks.keras import NaNGuard
from nan_callbacks.keras.replay_state import python_streams_kept
from tests.keras_adapter.runs import BACKEND, compiled, data, network, same, state, with_fault, without

only_torch = pytest.mark.skipif(BACKEND != "torch", reason="variables of other backends have no memory to rebind")


class Rebinds(keras.callbacks.Callback):
    """Gives all variables other memory, as ``module.to(...)`` does."""

    def on_train_batch_begin(self, batch, logs=None):
        for variable in self.model.variables:
            variable._value.data = variable._value.data.clone()


@only_torch
def test_variables_that_were_given_other_memory_are_put_back_all_the_same():
    ends = []
    for arrays in (with_fault(data(), [4]), without(data(), [4])):
        model, watch = compiled(network), NaNGuard(strict=True, verbose=False, checkup=False)
        model.fit(*arrays, batch_size=8, shuffle=False, verbose=0, callbacks=[Rebinds(), watch])
        ends.append(state(model))
    assert same(*ends)


class Guarded(layers.Layer):
    """Has a property of the name of recurrent layers' states that raises an error of its own."""

    @property
    def states(self):
        raise ValueError("not before the first call")

    def call(self, x):
        return x


def test_properties_of_other_layers_are_not_asked():
    model = compiled(lambda: keras.Sequential([layers.Input((4,)), Guarded(), layers.Dense(1)]))
    watch = NaNGuard(strict=True, verbose=False)
    model.fit(*data(), batch_size=8, verbose=0, callbacks=[watch])
    assert watch.summary["steps"] == 10


class TMonitor(threading.Thread):
    """Shows progress."""

    __module__ = "tqdm._monitor"


@pytest.mark.parametrize(("kind", "kept"), [(TMonitor, True), (threading.Thread, False)], ids=["progress", "loader"])
def test_streams_are_left_to_threads_that_may_load_data_only(kind, kept, monkeypatch):
    alive = [threading.current_thread(), kind(target=print)]
    monkeypatch.setattr(threading, "enumerate", lambda: alive)  # the tests' own runner has threads besides
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    with python_streams_kept():
        np.random.random()  # noqa: NPY002
    assert np.array_equal(np.random.get_state()[1], before) is kept  # noqa: NPY002
