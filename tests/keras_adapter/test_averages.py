"""Averages of the weights: the optimizer's own, and those that SwapEMAWeights puts in their place."""

import keras
import numpy as np
import pytest

from tests.keras_adapter.runs import (
    compiled,
    data,
    distance,
    drawless,
    finite,
    guard,
    same,
    state,
    train,
    with_fault,
    with_targets,
    without,
)


def averaging():
    return keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9)


def untried(**options):
    """A guard that tries nothing out: averages are the matter here, and trials take most of the time."""
    return guard(diagnose="never", **options)


def test_a_skipped_step_leaves_the_average_alone():
    model, callback = compiled(optimizer=averaging), guard()
    train(model, with_fault(data(), [3, 7]), callback)
    reference = compiled(optimizer=averaging)
    train(reference, without(data(), [3, 7]), guard())

    assert callback.summary["skipped_steps"] == 2
    assert same(state(model), state(reference))


def test_a_rollback_takes_the_average_back():
    # Float32 rounds the scale to one.
    model, callback = compiled(drawless, optimizer=averaging), untried(lr_factor=0.999999999)
    arrays = with_targets(data(30), [3, 4, 5], 1e30)
    train(model, arrays, callback)
    reference = compiled(drawless, optimizer=averaging)
    train(reference, without(arrays, [0, 1, 2, 3, 4, 5]), guard())

    assert callback.summary["rollbacks"] == 1
    assert same(state(model), state(reference))


@pytest.mark.parametrize("first", [True, False], ids=["guard first", "guard last"])
@pytest.mark.parametrize("swap_on_epoch", [True, False])
def test_swapping_works_on_both_sides_of_the_guard(first, swap_on_epoch):
    def run(arrays, callback):
        model = compiled(optimizer=averaging)
        both = [callback, keras.callbacks.SwapEMAWeights(swap_on_epoch=swap_on_epoch)][:: 1 if first else -1]
        return model, train(model, arrays, *both, epochs=3, validation_data=data(seed=1))

    callback = guard(snapshot_every_n_steps=3, probation_steps=2)
    model, history = run(with_fault(data(), [3, 9]), callback)
    reference, expected = run(without(data(), [3, 9]), guard())

    assert callback.summary["skipped_steps"] == 6
    assert same(state(model), state(reference))
    assert history["val_loss"] == expected["val_loss"]


@pytest.mark.parametrize("first", [True, False], ids=["guard first", "guard last"])
def test_a_rollback_between_swaps_mixes_nothing_up(first):
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    callback = untried(snapshot_every_n_steps=5, probation_steps=4)
    model = compiled(optimizer=averaging)
    both = [callback, swap][:: 1 if first else -1]
    history = train(model, with_targets(data(30), [20, 21, 22], 1e30), *both, epochs=3, validation_data=data(seed=1))

    assert callback.summary["rollbacks"] >= 1
    assert finite(state(model))
    assert np.isfinite(history["val_loss"]).all()
    assert history["val_loss"][-1] <= 2.0 * min(history["val_loss"])


class BreakAfterEpoch(keras.callbacks.Callback):
    """Writes NaN into the weights with the last batch of the first epoch, as a broken update does."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 9 and not getattr(self, "done", False):
            self.done = True
            variable = self.model.trainable_variables[0]
            variable.assign(keras.ops.full(variable.shape, float("nan"), variable.dtype))


@pytest.mark.parametrize("swap_first", [True, False])
def test_weights_found_broken_before_validation_are_restored_before_they_are_swapped(swap_first):
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=False)
    callback = untried(snapshot_every_n_steps=2, probation_steps=1, lr_factor=0.999999999)
    model = compiled(optimizer=averaging)
    both = [swap, callback][:: 1 if swap_first else -1]
    train(model, data(), BreakAfterEpoch(), *both, epochs=1, validation_data=data(seed=1))
    reference = compiled(optimizer=averaging)
    train(reference, tuple(each[: 8 * 8] for each in data()), guard())

    assert callback.summary["codes"] == {"NAN103": 1}
    assert callback.events[1]["restored_step"] == 8
    # TensorFlow's swap adds and subtracts, which rounds.
    assert distance(model.get_weights(), reference.get_weights()) <= 1e-6
