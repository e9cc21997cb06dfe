"""What users do in fit: their own steps, data of every kind, several fits, exceptions."""

import keras
import numpy as np
import pytest

from nan_callbacks.keras import NaNGuard
from nan_callbacks.keras.backend import KEPT_AS
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


class CustomStep(keras.Model):
    """The custom ``train_step`` of Keras' guides, one for each backend."""

    def __init__(self):
        super().__init__()
        self.first = keras.layers.Dense(8, activation="tanh")
        self.second = keras.layers.Dense(1)

    def call(self, inputs, training=False):
        return self.second(self.first(inputs))

    if BACKEND == "tensorflow":

        def train_step(self, data):
            import tensorflow as tf

            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(y=y, y_pred=self(x, training=True))
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            return self._update_metrics(loss, y, self(x))

    elif BACKEND == "torch":

        def train_step(self, data):
            import torch

            x, y = data
            self.zero_grad()
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
            loss.backward()
            gradients = [variable.value.grad for variable in self.trainable_weights]
            with torch.no_grad():
                self.optimizer.apply(gradients, self.trainable_weights)
            return self._update_metrics(loss, y, y_pred)

    else:

        def train_step(self, state, data):
            import jax

            weights, others, moments, metrics = state
            x, y = data

            def loss_of(weights, others):
                y_pred, others = self.stateless_call(weights, others, x, training=True)
                return self.compute_loss(y=y, y_pred=y_pred), (y_pred, others)

            (loss, (y_pred, others)), gradients = jax.value_and_grad(loss_of, has_aux=True)(weights, others)
            weights, moments = self.optimizer.stateless_apply(moments, gradients, weights)
            mapping = list(zip(self.metrics_variables, metrics, strict=True))
            with keras.StatelessScope(state_mapping=mapping) as scope:
                logs = self._update_metrics(loss, y, y_pred)
            metrics = [scope.get_current_value(variable) for variable in self.metrics_variables]
            return logs, (weights, others, moments, metrics)

    def _update_metrics(self, loss, y, y_pred):
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


def test_a_custom_step_is_guarded():
    faulty = with_fault(data(), [3])
    model, callback = compiled(CustomStep), guard()
    history = train(model, faulty, callback)
    reference = compiled(CustomStep)
    expected = train(reference, without(faulty, [3]), guard())

    assert callback.summary["skipped_steps"] == 1
    assert same(state(model), state(reference))
    assert history["loss"] == expected["loss"]


def test_a_custom_step_is_not_harmed():
    plain, guarded = compiled(CustomStep, run_eagerly=True), compiled(CustomStep, run_eagerly=True)
    train(plain, data())
    train(guarded, data(), guard())

    assert same(state(plain), state(guarded))


def _generator(x, y):
    def batches():
        while True:
            for start in range(0, len(x), BATCH):
                yield x[start : start + BATCH], y[start : start + BATCH]

    return batches()


class _Sequence(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x) // BATCH

    def __getitem__(self, index):
        part = slice(index * BATCH, (index + 1) * BATCH)
        return self.x[part], self.y[part]


def _torch_loader(x, y):
    import torch

    return torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y)), batch_size=BATCH
    )


def _tf_dataset(x, y):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)


SOURCES = {"generator": _generator, "PyDataset": _Sequence, "DataLoader": _torch_loader, "tf.data": _tf_dataset}


@pytest.mark.parametrize("source", SOURCES)
def test_data_of_every_kind(source):
    faulty = with_fault(data(), [3])
    model, callback = compiled(), guard()
    steps = 10 if source == "generator" else None
    source = SOURCES[source](*faulty)
    history = model.fit(source, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[callback]).history
    reference = compiled()
    expected = train(reference, faulty, guard())

    assert callback.summary["steps"] == 10
    assert callback.summary["skipped_steps"] == 1
    assert callback.events[0]["detail"] == "the batch itself is non-finite"
    assert same(state(model), state(reference))
    assert history["loss"] == expected["loss"]


def test_weights_of_samples_and_classes():
    x, y = with_fault(data(), [3])
    labels = (y[:, 0] > 0).astype("int32")
    make = lambda: keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2, activation="softmax")])  # noqa: E731
    model, callback = compiled(make, loss="sparse_categorical_crossentropy", metrics=["accuracy"]), guard()
    train(model, (x, labels), callback, class_weight={0: 1.0, 1: 2.0})
    other, second = compiled(make, loss="sparse_categorical_crossentropy", metrics=["accuracy"]), guard()
    train(other, (x, labels), second, sample_weight=np.where(labels, 2.0, 1.0))

    assert callback.summary["skipped_steps"] == second.summary["skipped_steps"] == 1
    assert finite(state(model))
    assert finite(state(other))


def test_several_inputs_outputs_and_losses():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")

    def make():
        middle = keras.layers.Concatenate()([a, b])
        outputs = {"one": keras.layers.Dense(1, name="one")(middle), "two": keras.layers.Dense(1, name="two")(middle)}
        return keras.Model({"a": a, "b": b}, outputs)

    x, y = data()
    model = compiled(make, loss={"one": "mse", "two": "mae"}, metrics=None)
    callback = guard()
    history = train(model, ({"a": with_fault((x, y), [3])[0], "b": x}, {"one": y, "two": y}), callback)

    assert callback.summary["skipped_steps"] == 1
    assert np.isfinite(history["loss"]).all()


def _bag_of_tokens():
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((5,), dtype="int32"),
            layers.Embedding(20, 4),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1),
        ]
    )


SPARSE_MODES = {"auto": {}, "eagerly": {"run_eagerly": True}}
if BACKEND != "torch":
    SPARSE_MODES["jit"] = {"jit_compile": True}


@pytest.mark.parametrize("mode", SPARSE_MODES)
def test_an_embedding_whose_gradient_is_sparse(mode):
    tokens = np.random.default_rng(0).integers(0, 6, (80, 5))  # few of them: every row is hit several times a batch
    y = data()[1].copy()
    y[3 * BATCH] = np.inf
    model, callback = compiled(_bag_of_tokens, **SPARSE_MODES[mode]), guard()
    train(model, (tokens, y), callback)
    still = compiled(_bag_of_tokens, lambda: keras.optimizers.SGD(0.0), **SPARSE_MODES[mode])
    history = train(still, (tokens[:BATCH], y[:BATCH]), guard(log_every_n_steps=1))
    # A step of plain SGD with rate 1 is the gradient.
    moved = compiled(_bag_of_tokens, lambda: keras.optimizers.SGD(1.0), run_eagerly=True)
    before = moved.get_weights()
    train(moved, (tokens[:BATCH], y[:BATCH]))
    gradient = np.sqrt(sum(np.sum((old - new) ** 2) for old, new in zip(before, moved.get_weights(), strict=True)))

    assert callback.summary["skipped_steps"] == 1
    assert finite(state(model))
    assert history["nan_callbacks/grad_norm"][0] == pytest.approx(gradient, rel=1e-4)


def compiled_step(model):
    """What the guard has compiled for a model; on torch, where nothing is, nothing is kept either."""
    if BACKEND == "torch":
        assert not hasattr(model.train_function, KEPT_AS)
        return None
    return getattr(model.train_function, KEPT_AS)._compiled


def test_several_fits_with_one_callback():
    model, callback = compiled(), guard()
    train(model, data(), callback)
    before = compiled_step(model)
    train(model, with_fault(data(), [3]), callback)

    assert callback.summary["skipped_steps"] == 1
    assert callback.summary["steps"] == 10
    assert compiled_step(model) is before
    train(model, data(), callback)
    assert callback.summary["incidents"] == 0
    model.compile("sgd", "mae")
    train(model, with_fault(data(), [3]), callback)
    assert callback.summary["skipped_steps"] == 1
    assert finite(state(model))


def test_a_new_callback_in_each_fit_compiles_no_more_than_one():
    model = compiled()
    train(model, data(), guard())
    before = compiled_step(model)
    callback = guard()
    train(model, with_fault(data(), [3]), callback)
    assert compiled_step(model) is before
    assert (callback.summary["steps"], callback.summary["skipped_steps"]) == (10, 1)
    assert finite(state(model))


def test_a_guarded_fit_after_an_unguarded_one_and_back():
    model, reference = compiled(), compiled()
    for each in (model, reference):
        train(each, data())
    callback = guard()
    train(model, with_fault(data(), [3]), callback)
    train(reference, without(data(), [3]), guard())

    assert callback.summary["skipped_steps"] == 1
    assert same(state(model), state(reference))
    train(model, with_fault(data(), [3]))
    assert not finite(state(model))


def test_validation_and_initial_epoch():
    model, callback = compiled(), guard()
    history = train(model, with_fault(data(), [3]), callback, epochs=4, initial_epoch=2, validation_data=data(seed=1))

    assert len(history["val_loss"]) == 2
    assert np.isfinite(history["val_loss"] + history["loss"]).all()
    assert [event["epoch"] for event in callback.events if event["event"] == "incident"] == [2, 3]


def test_an_error_in_the_users_step_stays_the_users_error():
    def loss(y_true, y_pred):
        raise KeyError("mine")

    model = compiled(CustomStep, loss=loss, metrics=[])
    with pytest.raises(KeyError, match="mine"):
        train(model, data(), NaNGuard())


def test_our_own_error_ends_the_guard_and_not_the_run(monkeypatch, caplog):
    def fail(*_):
        raise KeyError("ours")

    monkeypatch.setattr("nan_callbacks.keras.session.GuardSession.after_step", fail)
    model, reference = compiled(run_eagerly=True), compiled(run_eagerly=True)
    callback = NaNGuard(verbose=False)
    train(model, data(), callback)
    train(reference, data())

    assert callback.is_aside
    assert "steps aside" in caplog.text
    assert same(state(model), state(reference))


def test_messages_stand_on_lines_of_their_own(capsys):
    train(compiled(), with_fault(data(), [3]), NaNGuard(), verbose=1)
    lines = capsys.readouterr().out.splitlines()

    assert sum(line.startswith("NaNGuard: step 3 · NAN101") for line in lines) == 1
    assert sum(line.startswith("NaNGuard: summary") for line in lines) == 1


def test_a_model_without_an_optimizer_in_its_step_is_said_to_be_unguarded():
    class Frozen(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = keras.layers.Dense(1)

        def call(self, inputs):
            return self.layer(inputs)

        if BACKEND == "jax":

            def train_step(self, state, data):
                return {"loss": 0.0}, state

        else:

            def train_step(self, data):
                return {"loss": 0.0}

    model, callback = compiled(Frozen, metrics=None), NaNGuard(verbose=False)
    if BACKEND == "jax":  # the update itself is judged there, and there is none
        train(model, data(), callback)
        assert callback.summary["incidents"] == 0
    else:
        with pytest.warns(UserWarning, match="not guarded"):
            train(model, data(), callback)
