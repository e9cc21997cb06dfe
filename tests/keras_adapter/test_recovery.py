"""Rollback, cut of the learning rate, stop."""

import keras
import numpy as np
import pytest

from nan_callbacks.errors import TrainingStoppedError
from tests.keras_adapter.runs import (
    BACKEND,
    BATCH,
    compiled,
    data,
    drawless,
    finite,
    guard,
    kinds,
    network,
    same,
    state,
    train,
    with_targets,
    without,
)


class Breaker(keras.optimizers.SGD):
    """Its fifth update writes NaN into the weights, as an epsilon that underflows does."""

    def update_step(self, gradient, variable, learning_rate):
        broken = keras.ops.cast(keras.ops.equal(self._iterations, 4), variable.dtype)
        factor = keras.ops.where(broken > 0, keras.ops.cast(float("nan"), variable.dtype), 1.0)
        super().update_step(gradient * factor, variable, learning_rate)


def test_three_drops_in_a_row_lead_to_the_last_good_state_with_half_the_rate():
    arrays = with_targets(data(30), [20, 21, 22], 1e30)
    model, callback = compiled(), guard(max_consecutive_skips=3, snapshot_every_n_steps=5, probation_steps=5)
    history = train(model, arrays, callback)

    assert callback.summary["rollbacks"] == 1
    assert callback.summary["lr_scale"] == 0.5
    assert [kind for kind in kinds(callback) if kind in ("rollback", "reduce_lr")] == ["rollback", "reduce_lr"]
    assert finite(state(model))
    assert np.isfinite(history["loss"]).all()


def test_a_rollback_restores_every_variable():
    # Rolled back at step 22 to the state before step 0, and the guard then stops: what is left is that state.
    arrays = with_targets(data(30), [20, 21, 22], 1e30)
    model, callback = compiled(drawless), guard(max_rollbacks=0)
    before = state(model)
    train(model, arrays, callback)

    assert callback.summary["stopped"]
    assert callback.events[-2]["restored_step"] == 0
    # The learning rate belongs to other callbacks; it did not change here.
    assert same(state(model)[: len(before)], before)


def test_training_goes_on_from_a_rollback_as_from_the_state_it_went_to():
    arrays = with_targets(data(30), [3, 4, 5], 1e30)
    model, callback = compiled(drawless), guard(lr_factor=0.999999999)  # float32 rounds the scale to one
    train(model, arrays, callback)
    reference = compiled(drawless)
    train(reference, without(arrays, [0, 1, 2, 3, 4, 5]), guard())

    assert callback.summary["rollbacks"] == 1
    assert same(state(model), state(reference))


def test_the_memory_of_the_host_holds_what_a_rollback_needs(monkeypatch):
    if BACKEND == "torch":  # what this device holds passes for an accelerator's
        monkeypatch.setattr("nan_callbacks.torch.snapshot_home.ON_HOST", ())
    else:
        monkeypatch.setattr(f"nan_callbacks.keras.backend_{BACKEND}.bytes_on_accelerators", lambda held: {"gpu": 1})
    on_host, ends = [], []

    def note(callback):
        snapshot = callback._session.backend.slots[0]
        on_host.append(isinstance(keras.tree.flatten(snapshot.values)[0], np.ndarray))

    for memory in ("device", "host"):
        model, callback = compiled(), guard(snapshot_memory=memory)
        spy = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs, guarded=callback: note(guarded))
        train(model, with_targets(data(30), [20, 21, 22], 1e30), callback, spy)
        assert callback.summary["rollbacks"] == 1
        ends.append(state(model))

    assert same(*ends)
    assert on_host == [False, BACKEND != "torch"]  # a tensor of torch on the host is a tensor all the same


@pytest.mark.parametrize("jit", [False, True] if BACKEND == "jax" else [False])
def test_weights_broken_by_the_optimizer_are_taken_back(jit):
    model = compiled(optimizer=lambda: Breaker(0.01), jit_compile=jit)
    callback = guard(snapshot_every_n_steps=2, probation_steps=1)
    train(model, data(30), callback)

    assert "NAN103" in kinds(callback)
    assert finite(state(model))


def test_it_stops_when_everything_must_be_dropped():
    x, y = data(60)
    x[:] = np.nan
    model, callback = compiled(), guard()
    before = state(model)
    history = train(model, (x, y), callback, epochs=3)

    assert callback.summary["stopped"]
    assert "had to be dropped" in callback.summary["stop_reason"]
    assert len(history["loss"]) == 1
    assert same(state(model)[: len(before)], before)  # the optimizer's moments did not exist before


def test_it_raises_if_told_to():
    x, y = data(60)
    x[:] = np.nan
    model, callback = compiled(), guard(on_give_up="raise")
    train(model, data())
    function, attributes = model.train_function, set(vars(model))
    with pytest.raises(TrainingStoppedError, match="had to be dropped"):
        train(model, (x, y), callback)

    assert model.train_function is function
    assert set(vars(model)) - {"_eval_epoch_iterator"} == attributes - {"_eval_epoch_iterator"}
    assert finite(state(model))


def test_a_learning_rate_that_is_far_too_high_is_brought_down():
    model = compiled(
        lambda: keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)]), lambda: keras.optimizers.SGD(2.0)
    )
    callback = guard(snapshot_every_n_steps=10, probation_steps=10)
    history = train(model, data(100), callback, epochs=3)

    assert callback.summary["rollbacks"] >= 1
    assert finite(state(model))
    assert history["loss"][-1] < 10.0


class EffectiveRate(keras.callbacks.Callback):
    """Reads what each update really did: loss = mean(w x) with x = 1, so every update is minus the learning rate."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append(float(self.model.get_weights()[0][0, 0]))

    def rates(self):
        return [round(float(rate), 6) for rate in -np.diff(self.weights)]


SCHEDULE = keras.optimizers.schedules.PiecewiseConstantDecay

RATES = {
    "float": (lambda: 0.1, [], [0.1] * 5),
    "schedule": (lambda: SCHEDULE([3], [0.1, 0.05]), [], [0.1] * 3 + [0.05] * 2),
    "callable": (lambda: lambda: 0.1, [], [0.1] * 5),
    "scheduler": (
        lambda: 0.1,
        [lambda: keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.1 if epoch == 0 else 0.04)],
        [0.1] * 2 + [0.04] * 3,
    ),
    "plateau": (
        lambda: 0.1,
        [lambda: keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, mode="max", min_delta=100.0)],
        None,
    ),
}


@pytest.mark.parametrize("name", RATES)
def test_a_cut_rate_holds_whoever_sets_it(name, monkeypatch):
    make_rate, extra, expected = RATES[name]
    ones = np.ones((3 * BATCH, 1), "float32")
    model = compiled(
        lambda: keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, use_bias=False)]),
        lambda: keras.optimizers.SGD(make_rate()),
        loss=lambda y_true, y_pred: keras.ops.mean(y_pred) + 10.0,
        metrics=[],
    )
    recorder, callback = EffectiveRate(), guard()
    callbacks = [callback, *[each() for each in extra], recorder]
    monkeypatch.setattr(
        "nan_callbacks.core.policy.LearningRateScale.__init__", _scaled_from_the_start(0.25), raising=True
    )
    train(model, (ones, ones), *callbacks, epochs=2)
    rates = recorder.rates()

    if expected is None:
        assert rates == [0.025] * 5
        train(model, (ones, ones), *callbacks, epochs=4)
        assert min(recorder.rates()[-2:]) < 0.025
    else:
        assert rates == [round(0.25 * rate, 6) for rate in expected]


def _scaled_from_the_start(scale):
    from nan_callbacks.core.learning_rate import LearningRateScale

    original = LearningRateScale.__init__

    def init(self, factor, recovery_steps):
        original(self, factor, recovery_steps)
        self.scale = scale

    return init


def test_a_rollback_leaves_the_rate_that_other_callbacks_set():
    arrays = with_targets(data(10), [6, 7, 8], 1e30)
    model = compiled(network)
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.01 if epoch == 0 else 0.002)
    callback = guard(snapshot_every_n_steps=5, probation_steps=3)
    train(model, data(10), scheduler, callback)
    callback = guard()
    model.optimizer.learning_rate = 0.01
    train(model, arrays, callback, scheduler, initial_epoch=1, epochs=2)

    assert callback.summary["rollbacks"] == 1
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == pytest.approx(0.002)
