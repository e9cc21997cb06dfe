"""What a train step writes by hand, beside its optimizer, is as it was if the step is dropped."""

from contextlib import nullcontext

import keras
import numpy as np
import pytest
from keras import layers, ops

from tests.keras_adapter.runs import BACKEND, BATCH, compiled, data, guard, same, state, train, with_fault, without

pytestmark = pytest.mark.skipif(BACKEND == "jax", reason="a step on JAX returns what it changes")

if BACKEND == "tensorflow":
    import tensorflow as tf
elif BACKEND == "torch":
    import torch


def small():
    return keras.Sequential([layers.Input((4,)), layers.Dense(8, activation="tanh"), layers.Dense(1)])


class ByHand(keras.Model):
    """Calls its optimizer by itself."""

    def __init__(self):
        super().__init__()
        self.net = small()

    def call(self, x):
        return self.net(x)

    def loss_of(self, x, y):
        return self.compute_loss(x, y, self.net(x, training=True))

    def gradients(self, x, y):
        weights = self.net.trainable_variables
        if BACKEND == "tensorflow":
            with tf.GradientTape() as tape:
                loss = self.loss_of(x, y)
            return loss, tape.gradient(loss, weights)
        self.zero_grad()
        loss = self.loss_of(x, y)
        loss.backward()
        return loss, [weight.value.grad.clone() for weight in weights]

    def update(self, gradients):
        with torch.no_grad() if BACKEND == "torch" else nullcontext():
            self.optimizer.apply(gradients, self.net.trainable_variables)

    def train_step(self, data):
        loss = self.train_on(*data)
        self._loss_tracker.update_state(loss)
        return {"loss": self._loss_tracker.result()}


class Average(ByHand):
    """A copy of the net follows it, and nobody has frozen it (models of diffusion do so)."""

    def __init__(self):
        super().__init__()
        self.average = small()

    def train_on(self, x, y):
        loss, gradients = self.gradients(x, y)
        self.update(gradients)
        for average, weight in zip(self.average.weights, self.net.weights, strict=True):
            average.assign(0.9 * average.value + 0.1 * weight.value)
        return loss


class Climbing(ByHand):
    """Sharpness-aware minimisation: the gradient is taken a step uphill. What is NaN there is so after the way back."""

    def train_on(self, x, y):
        weights = self.net.trainable_variables
        loss, uphill = self.gradients(x, y)
        norm = ops.sqrt(sum(ops.sum(ops.square(each)) for each in uphill))
        moves = [0.05 * each / norm for each in uphill]
        for weight, move in zip(weights, moves, strict=True):
            weight.assign(weight.value + move)
        _, gradients = self.gradients(x, y)
        for weight, move in zip(weights, moves, strict=True):
            weight.assign(weight.value - move)
        self.update(gradients)
        return loss


class Queue(ByHand):
    """The last batches lie in a variable of TensorFlow's own, and the loss looks at them."""

    def __init__(self):
        super().__init__()
        self.queue = tf.Variable(tf.zeros((2 * BATCH, 4)), trainable=False)

    def loss_of(self, x, y):
        return super().loss_of(x, y) + 0.1 * ops.mean(ops.square(self.net(self.queue) - ops.mean(self.net(x))))

    def train_on(self, x, y):
        loss, gradients = self.gradients(x, y)
        self.update(gradients)
        self.queue.assign(tf.concat([x, self.queue[:BATCH]], 0))
        return loss


def dropped_and_never_drawn(make):
    """Two models: one was given a bad batch under guard, the other never."""
    ends = []
    for arrays in (with_fault(data(), [4]), without(data(), [4])):
        model, callback = compiled(make, metrics=None), guard()
        train(model, arrays, callback)
        ends.append((model, callback))
    assert [callback.summary["skipped_steps"] for _, callback in ends] == [1, 0]
    assert not any(callback.summary["rollbacks"] for _, callback in ends)
    return [model for model, _ in ends]


@pytest.mark.parametrize("make", [Average, Climbing])
def test_weights_that_the_step_writes_itself_are_those_of_a_run_without_the_batch(make):
    assert same(*map(state, dropped_and_never_drawn(make)))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a variable of TensorFlow's own")
def test_a_variable_of_tensorflows_own_is_put_back():
    dropped, never_drawn = dropped_and_never_drawn(Queue)
    assert same(state(dropped), state(never_drawn))
    assert np.array_equal(dropped.queue, never_drawn.queue)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a variable of TensorFlow's own")
def test_a_variable_of_tensorflows_own_goes_back_with_the_weights():
    x, y = data(30)
    y[20 * BATCH : 23 * BATCH] = 1e30
    model = compiled(Queue, metrics=None)
    callback = guard(max_rollbacks=0)
    train(model, (x, y), callback)
    assert callback.summary["stopped"]
    assert np.array_equal(model.queue, np.zeros((2 * BATCH, 4)))
