"""Steps that call optimizers in their own way: several of them, none, or where no one can look."""

import keras
import numpy as np
import pytest

from tests.keras_adapter.runs import (
    BACKEND,
    BATCH,
    compiled,
    data,
    finite,
    guard,
    same,
    state,
    train,
    with_fault,
    without,
)


class TwoOptimizers(keras.Model):
    """Two parts, each with its own optimizer and its own loss; only the second one looks at the inputs."""

    def __init__(self):
        super().__init__()
        self.one, self.two = keras.layers.Dense(1), keras.layers.Dense(1)
        self.second = keras.optimizers.Adam(0.01)

    def call(self, inputs):
        return self.one(keras.ops.ones_like(inputs)) + self.two(inputs)

    if BACKEND == "tensorflow":

        def train_step(self, data):
            import tensorflow as tf

            x, y = data
            with tf.GradientTape(persistent=True) as tape:
                first = keras.ops.mean(keras.ops.square(self.one(keras.ops.ones_like(x)) - y))
                second = keras.ops.mean(keras.ops.square(self.two(x) - y))
            for optimizer, part, loss in ((self.optimizer, self.one, first), (self.second, self.two, second)):
                weights = part.trainable_variables
                optimizer.apply(tape.gradient(loss, weights), weights)
            return {"first": first, "second": second}

    elif BACKEND == "torch":

        def train_step(self, data):
            import torch

            x, y = data
            losses = {}
            for name, optimizer, part, inputs in (
                ("first", self.optimizer, self.one, keras.ops.ones_like(x)),
                ("second", self.second, self.two, x),
            ):
                self.zero_grad()
                losses[name] = keras.ops.mean(keras.ops.square(part(inputs) - y))
                losses[name].backward()
                with torch.no_grad():
                    weights = part.trainable_variables
                    optimizer.apply([each.value.grad for each in weights], weights)
            return losses


class LoopedStep(keras.Model):
    """Calls the optimizer inside ``lax.scan``, out of which no gradient can be carried."""

    def __init__(self):
        super().__init__()
        self.layer = keras.layers.Dense(1)

    def call(self, inputs):
        return self.layer(inputs)

    def train_step(self, state, data):
        import jax

        weights, others, moments, metrics = state
        x, y = data

        def loss_of(weights):
            y_pred, _ = self.stateless_call(weights, others, x)
            return keras.ops.mean(keras.ops.square(y_pred - y))

        def once(carried, _):
            loss, gradients = jax.value_and_grad(loss_of)(carried[0])
            return self.optimizer.stateless_apply(carried[1], gradients, carried[0]), loss

        (weights, moments), losses = jax.lax.scan(once, (list(weights), list(moments)), None, length=2)
        return {"loss": losses[-1]}, (weights, others, moments, metrics)


if BACKEND == "jax":

    def test_a_step_that_hides_its_gradients_is_judged_by_its_update():
        faulty = with_fault(data(), [3])
        model, callback = compiled(LoopedStep, metrics=None), guard()
        with pytest.warns(UserWarning, match="size of the update"):
            train(model, faulty, callback)
        reference = compiled(LoopedStep, metrics=None)
        with pytest.warns(UserWarning, match="size of the update"):
            train(reference, without(faulty, [3]), guard())

        assert callback.summary["skipped_steps"] == 1
        assert same(state(model), state(reference))

else:

    def test_a_loss_that_cannot_be_seen_is_said_once_and_gradients_are_guarded_all_the_same():
        model, callback = compiled(TwoOptimizers, metrics=None), guard()
        with pytest.warns(UserWarning, match="judged by their gradients alone") as said:
            train(model, with_fault(data(), [3]), callback, epochs=2)

        assert sum("gradients alone" in str(each.message) for each in said) == 1
        assert callback.summary["skipped_steps"] == 2
        assert finite(state(model))

    def test_a_loss_that_can_be_seen_needs_no_remark(recwarn):
        train(compiled(), data(), guard())

        assert not any("gradients alone" in str(each.message) for each in recwarn)

    def test_each_of_two_optimizers_is_judged_by_itself():
        model, callback = compiled(TwoOptimizers, metrics=None), guard()
        x, y = with_fault(data(), [3])
        model(x[:1])
        history = train(model, (x, y), callback)
        incidents = [event for event in callback.events if event["event"] == "incident"]

        assert [event["optimizer"] for event in incidents] == [1]
        assert callback.summary["steps"] == 20
        assert callback.summary["skipped_steps"] == 1
        assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 10
        assert int(keras.ops.convert_to_numpy(model.second.iterations)) == 9
        assert finite(state(model))
        assert np.isfinite(history["second"]).all()

    def test_a_rollback_restores_both_optimizers():
        model, callback = compiled(TwoOptimizers, metrics=None), guard(max_rollbacks=0)
        x, y = data(30)
        model(x[:1])
        for optimizer, part in ((model.optimizer, model.one), (model.second, model.two)):
            optimizer.build(part.trainable_variables)
        moments = [keras.ops.convert_to_numpy(each.value).copy() for each in model.second.variables]
        before = state(model)
        y[20 * BATCH : 23 * BATCH] = 1e5
        train(model, (x, y), callback)

        assert callback.summary["stopped"]
        assert same(state(model), before)
        assert same([keras.ops.convert_to_numpy(each.value) for each in model.second.variables], moments)


class Graph(keras.Model):
    """Is called by its step with all nodes; a batch names some of them, and tells their targets."""

    def __init__(self):
        super().__init__()
        self.first, self.second = keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1)
        self.nodes = keras.ops.convert_to_tensor(data()[0])
        self.neighbours = keras.ops.convert_to_tensor(np.eye(len(data()[0]), k=1, dtype="float32"))

    def call(self, inputs):
        nodes, neighbours = inputs
        return self.second(self.first(keras.ops.matmul(neighbours, nodes)))

    def train_step(self, data):
        import tensorflow as tf

        places, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(None, y, tf.gather(self([self.nodes, self.neighbours]), places))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        self._loss_tracker.update_state(loss)
        return {"loss": self._loss_tracker.result()}


@pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere Keras itself calls the model with a batch's inputs")
def test_a_model_that_only_its_step_knows_how_to_call_is_guarded():
    x, y = np.arange(10 * BATCH), data()[1]
    y[4 * BATCH : 5 * BATCH] = np.nan
    guarded, reference, callback = compiled(Graph, metrics=None), compiled(Graph, metrics=None), guard()
    train(guarded, (x, y), callback)
    train(reference, without((x, y), [4]))
    assert callback.summary["skipped_steps"] == 1
    assert same(state(guarded), state(reference))
