"""A failure that random numbers make costs two skips: the next batch does not draw the same numbers for ever."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.keras_adapter.runs import (
    BACKEND,
    compiled,
    data,
    finite,
    guard,
    kinds,
    same,
    state,
    train,
    with_fault,
    with_targets,
    without,
)

UNLUCKY = 0.05
"""Numbers below it make a step fail."""

MODES = {"as usual": {}, "eagerly": {"run_eagerly": True}}
if BACKEND != "torch":
    MODES["several steps"] = {"steps_per_execution": 3}


class Unlucky(keras.layers.Layer):
    """Draws a number in every step; an unlucky one makes everything NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds = keras.random.SeedGenerator(5)

    def call(self, x, training=False):
        if not training:
            return x
        return x * ops.where(self.draw() < UNLUCKY, float("nan"), 1.0)

    def draw(self):
        """One number."""
        return keras.random.uniform((), seed=self.seeds)


class FromTorch(Unlucky):
    """From torch's own stream."""

    def draw(self):
        """One number."""
        import torch

        return torch.rand(())


def unlucky(layer: type[Unlucky] = Unlucky) -> keras.Model:
    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(8, activation="tanh"), layer(), dense()])


def dense() -> keras.layers.Layer:
    return keras.layers.Dense(1)


def numbers(count: int) -> list[float]:
    """What the layer's generator draws, in order."""
    seeds = keras.random.SeedGenerator(5)
    return [float(ops.convert_to_numpy(keras.random.uniform((), seed=seeds))) for _ in range(count)]


def draws_of(model: keras.Model, place: int) -> int:
    """How often a layer's generator has been drawn from."""
    layer = model.layers[place]
    generator = layer.seeds if isinstance(layer, Unlucky) else layer.seed_generator
    return int(ops.convert_to_numpy(generator.state.value)[1])


@pytest.mark.parametrize("mode", MODES)
def test_numbers_of_a_seed_generator(mode):
    model, callback = compiled(unlucky, **MODES[mode]), guard(diagnose="never")
    train(model, data(60), callback)
    failures = sum(number < UNLUCKY for number in numbers(draws_of(model, 1) + 1))  # the last may have been given back

    assert failures > 0
    assert failures < callback.summary["skipped_steps"] <= 2 * failures
    assert callback.summary["steps"] == 60
    assert callback.summary["rollbacks"] == 0
    assert finite(state(model))


@pytest.mark.skipif(BACKEND != "torch", reason="its stream is used on torch alone")
def test_numbers_of_the_stream_of_torch():
    model, callback = compiled(lambda: unlucky(FromTorch)), guard(diagnose="never")
    train(model, data(60), callback)

    assert 0 < callback.summary["skipped_steps"] < 30
    assert callback.summary["steps"] == 60
    assert callback.summary["rollbacks"] == 0


@pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere the mode is another one or the usual one")
def test_numbers_that_xla_draws_which_are_others():
    model, callback = compiled(unlucky, jit_compile=True), guard(diagnose="never")
    train(model, data(60), callback)

    assert 0 < callback.summary["skipped_steps"] < 20
    assert callback.summary["steps"] == 60
    assert callback.summary["rollbacks"] == 0


def dropout() -> keras.Model:
    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dropout(0.3, seed=3), dense()])


def test_after_a_rollback_no_number_of_the_failed_steps_is_drawn_again():
    model, callback = compiled(dropout), guard(snapshot_every_n_steps=5, probation_steps=5)
    train(model, with_targets(data(30), [20, 21, 22], 1e30), callback)

    assert callback.summary["skipped_steps"] == 3
    assert callback.summary["rollbacks"] == 1
    assert draws_of(model, 0) == 30 - 1


def test_non_finite_batches_in_a_row_give_their_numbers_back():
    faulty = with_fault(data(), [3, 4, 5, 7])
    model, callback = compiled(), guard()
    train(model, faulty, callback)
    reference = compiled()
    train(reference, without(faulty, [3, 4, 5, 7]), guard())

    assert callback.summary["skipped_steps"] == 4
    assert same(state(model), state(reference))


def test_the_failed_step_is_examined_with_its_own_numbers():
    """The first failure is that of a batch, the second one of a number, in which the same step must fail again."""
    first = int(np.argmax(np.array(numbers(60)) < UNLUCKY))
    model, callback = compiled(unlucky), guard(diagnose="on_incident")
    train(model, with_fault(data(first + 3), [first]), callback)

    assert kinds(callback)[:2] == ["NAN101", "NAN101"]
    diagnosis = callback.incidents[1].diagnosis
    assert callback.incidents[1].step == first + 1
    assert diagnosis is not None
    assert "still non-finite" in str(diagnosis.trials[0])
