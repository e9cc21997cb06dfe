"""Samples of the layers in Keras runs: what they tell, and that a sampled run is the run without them."""

import math
import random

import keras
import numpy as np
import pytest
from keras import layers, ops

from nan_callbacks.core import health
from nan_callbacks.errors import ConfigurationError
from nan_callbacks.keras import weights_before
from nan_callbacks.keras.health import LayerWatch
from tests.keras_adapter.runs import (
    BACKEND,
    BATCH,
    compiled,
    data,
    distance,
    guard,
    network,
    same,
    state,
    train,
    with_fault,
)

MODES = {"compiled": {}} if BACKEND == "jax" else {"compiled": {}, "eagerly": {"run_eagerly": True}}
STEPS = 120 if BACKEND == "jax" else 300
"""Of a run that is long enough to be called healthy."""


@pytest.fixture(autouse=True)
def samples(monkeypatch):
    """Every sample that is due is taken, whatever the clock says; what each has shown."""
    monkeypatch.setattr(health, "ALLOWANCE", math.inf)
    taken, observe = [], health.HealthMonitor.observe

    def observing(self, seen):
        taken.append(seen)
        return observe(self, seen)

    monkeypatch.setattr(health.HealthMonitor, "observe", observing)
    return taken


def sampling(every=1, **settings):
    """A guard that looks at the layers after every step."""
    return guard(**{"health_every_n_steps": every, "checkup": False, "diagnose": "never", **settings})


def watching(**settings):
    """The same; it lets everything happen to the run."""
    return sampling(on_non_finite="observe", on_spike="observe", on_divergence="observe", **settings)


def told(each):
    """Codes of the health events, in order."""
    return [event["code"] for event in each.events if event["event"] == "health"]


def attributes(model):
    """What every layer holds, by layer."""
    return {layer.path: set(vars(layer)) for layer in model._flatten_layers(include_self=True, recursive=True)}


def unpatched(model):
    everything = [model, *model._flatten_layers(include_self=False, recursive=True), *getattr(model, "operations", [])]
    return not any("call" in vars(each) for each in everything)


def alike(one, other):
    """Bitwise the same; as good as the same where a compiler fuses the guarded step differently."""
    return distance(one, other) <= 1e-6 if BACKEND == "jax" else same(one, other)


def streams():
    """Where the random streams outside of the model are."""
    kind, keys, position, *rest = np.random.get_state()  # noqa: NPY002
    found = [random.getstate(), (kind, keys.tolist(), position, *rest)]
    if BACKEND == "torch":
        import torch

        found.append(torch.get_rng_state().tolist())
    return found


# -- a sampled run is the run without samples --------------------------------------------------------------------------


class CustomStep(keras.Model):
    """A training step of its own."""

    def __init__(self):
        super().__init__()
        self.body = network()

    def call(self, inputs, training=None):
        return self.body(inputs, training=training)

    if BACKEND == "tensorflow":

        def train_step(self, data):
            import tensorflow as tf

            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            weights = self.trainable_variables
            self.optimizer.apply(tape.gradient(loss, weights), weights)
            return {"loss": loss}

    elif BACKEND == "torch":

        def train_step(self, data):
            import torch

            x, y = data
            self.zero_grad()
            loss = self.compute_loss(x, y, self(x, training=True))
            loss.backward()
            weights = self.trainable_variables
            with torch.no_grad():
                self.optimizer.apply([each.value.grad for each in weights], weights)
            return {"loss": loss}

    else:

        def train_step(self, state, data):
            import jax

            weights, others, moments, metrics = state
            x, y = data

            def loss_of(weights, others):
                y_pred, others = self.stateless_call(weights, others, x, training=True)
                return ops.mean(ops.square(y_pred - y)), others

            (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(weights, others)
            weights, moments = self.optimizer.stateless_apply(moments, gradients, weights)
            return {"loss": loss}, (weights, others, moments, metrics)


class Shared(keras.Model):
    """Calls one layer twice, another one only in training, and counts in a variable."""

    def __init__(self):
        super().__init__()
        self.first, self.last = layers.Dense(4, activation="relu"), layers.Dense(1)
        self.dropout = layers.Dropout(0.2, seed=1)
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")

    def call(self, inputs, training=None):
        self.count.assign(self.count + 1)
        hidden = self.first(self.first(inputs))
        return self.last(self.dropout(hidden, training=True) if training else hidden)


def two_inputs():
    left, right = layers.Input((2,), name="left"), layers.Input((2,), name="right")
    hidden = [layers.Dense(8, activation="tanh")(left), ops.relu(layers.Dense(8)(right))]
    joined = layers.Dropout(0.2, seed=1)(layers.Concatenate()(hidden))
    return keras.Model({"left": left, "right": right}, layers.Dense(1)(joined))


def two_outputs():
    inputs = layers.Input((4,))
    hidden = layers.Dense(8, activation="relu")(inputs)
    return keras.Model(inputs, [layers.Dense(1, name="one")(hidden), layers.Dense(1, name="two")(hidden)])


def nested():
    inner = keras.Sequential([layers.Dense(8, activation="relu"), layers.BatchNormalization()])
    return keras.Sequential([layers.Input((4,)), inner, layers.Dense(1, kernel_regularizer="l2")])


def recurrent():
    return keras.Sequential([layers.Input((4,)), layers.Reshape((4, 1)), layers.LSTM(6), layers.Dense(1)])


def text():
    """Which word is in a text: the rest of each row is padding."""
    words = layers.Input((12,), dtype="int32")
    hidden = layers.Bidirectional(layers.LSTM(8, dropout=0.1, return_sequences=True))(
        layers.Embedding(20, 8, mask_zero=True)(words)
    )
    return keras.Model(words, layers.Dense(1)(layers.GRU(8)(hidden)))


def as_text(arrays):
    words = np.minimum(np.abs(np.repeat(arrays[0], 3, axis=1)) * 9 + 1, 19).astype("int32")
    words[:, 4:] *= np.arange(len(words))[:, None] % 3 > 0
    words[:, 8:] = 0
    return words, (words == 3).any(axis=1, keepdims=True).astype("float32")


def in_parts(arrays):
    x, y = arrays
    return {"left": x[:, :2], "right": x[:, 2:]}, y


MODELS = {
    "noise-and-statistics": (network, lambda arrays: arrays),
    "custom-step": (CustomStep, lambda arrays: arrays),
    "shared-layers": (Shared, lambda arrays: arrays),
    "two-inputs": (two_inputs, in_parts),
    "two-outputs": (two_outputs, lambda arrays: (arrays[0], [arrays[1], arrays[1] * 2])),
    "nested": (nested, lambda arrays: arrays),
    "recurrent": (recurrent, lambda arrays: arrays),
    "text": (text, as_text),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mode", MODES)
def test_a_run_with_samples_at_every_step_is_the_run_without(mode, name, samples):
    make, shaped = MODELS[name]
    options = {**MODES[mode], "metrics": None}
    arrays = shaped(data(4))

    runs = []
    for callbacks in ([], [sampling(every=None)], [sampling()]):
        model = compiled(make, **options)
        random.seed(1)
        history = train(model, arrays, *callbacks, epochs=2)
        runs.append((state(model), history["loss"], streams()))
    (plain, losses, _), (_, _, without_samples), (sampled, sampled_losses, with_samples) = runs

    assert alike(sampled, plain)
    assert sampled_losses == pytest.approx(losses, rel=1e-6 if BACKEND == "jax" else 0.0)
    assert with_samples == without_samples
    assert len(samples) == 7  # of eight steps: the first is not looked at
    assert all(sample.layers for sample in samples)
    assert any(layer.name.endswith("gate") for layer in samples[-1].layers) == (name in ("recurrent", "text"))
    assert unpatched(model)


def test_a_sampled_run_with_faulty_batches_is_the_run_without_samples(samples):
    faulty = with_fault(data(), [4])
    plain = compiled()
    train(plain, faulty, guard(health_every_n_steps=None, checkup=False, diagnose="never"))
    plain_state = state(plain)
    sampled, callback = compiled(), sampling()
    train(sampled, faulty, callback)

    assert alike(state(sampled), plain_state)
    assert callback.summary["skipped_steps"] == 1
    assert [sample.step for sample in samples] == [1, 2, 3, 5, 6, 7, 8, 9]


def test_layers_are_measured_as_they_are(samples):
    model = compiled(two_inputs, metrics=None)
    train(model, in_parts(data()), sampling())

    seen = samples[-1].layers
    weighted = [each for each in seen if each.weight_norm is not None]
    norms = [float(np.linalg.norm(np.array(v))) for v in model.trainable_variables if len(v.shape) == 2]
    assert sorted(each.weight_norm for each in weighted) == pytest.approx(sorted(norms), rel=0.05)
    assert all(each.grad_norm > 0 for each in weighted)
    assert any(each.saturated_share is not None for each in seen)
    assert any(each.dead_share is not None for each in seen)


@pytest.mark.parametrize("mode", MODES)
def test_the_size_of_an_update_is_that_of_the_measured_weight(mode, samples):
    model = compiled(
        lambda: mlp("tanh", use_bias=False), lambda: keras.optimizers.SGD(0.1), metrics=None, **MODES[mode]
    )
    before = [np.array(layer.kernel) for layer in model.layers]
    train(model, data(2), sampling())

    assert [sample.step for sample in samples] == [1]
    weighted = [each for each in samples[0].layers if each.weight_norm is not None]
    assert all(each.update_norm == pytest.approx(0.1 * each.grad_norm, rel=1e-3) for each in weighted[:-1])
    moved = [
        float(np.linalg.norm(np.array(layer.kernel) - old)) for layer, old in zip(model.layers, before, strict=True)
    ]
    assert all(0 < each.update_norm < 2 * norm for each, norm in zip(weighted, moved, strict=True))


def test_the_kept_weights_are_let_go_of_and_large_ones_are_not_kept(monkeypatch, samples):
    kept = []

    def looking(self, *given):
        kept.append(len(self._before._kept))
        try:
            return look(self, *given)
        finally:
            kept.append(len(self._before._kept))

    look = LayerWatch.look
    monkeypatch.setattr(LayerWatch, "look", looking)
    monkeypatch.setattr(weights_before, "MOST_WEIGHTS", 4 * 32 + 32)
    train(compiled(mlp, adam(), metrics=None), data(3), sampling())

    assert kept == [2, 0] * 2
    norms = [each.update_norm for each in samples[-1].layers if each.weight_norm is not None]
    assert [norm is not None for norm in norms] == [True, False, False, True]


def test_copies_that_fail_cost_nothing_but_the_sizes_of_updates(monkeypatch, samples):
    def failing(self):
        raise MemoryError

    monkeypatch.setattr(weights_before.WeightsBefore, "_copies", failing)
    callback = sampling()
    train(compiled(mlp, adam(), metrics=None), data(), callback)

    assert callback.summary["steps"] == 10
    assert len(samples) == 9
    assert all(each.update_norm is None for each in samples[-1].layers)


def test_no_samples_are_taken_where_none_are_wanted(samples):
    train(compiled(), data(), sampling(every=None))

    assert samples == []


def test_samples_are_taken_at_the_second_step_and_at_the_cadence(samples):
    train(compiled(), data(), sampling(every=4), epochs=2)

    assert [sample.step for sample in samples] == [1, 4, 8, 12, 16]


def test_a_last_batch_of_another_size_is_sampled_as_well(samples):
    x, y = data()
    train(compiled(), (x[:-3], y[:-3]), sampling(), epochs=2)

    assert [sample.step for sample in samples] == list(range(1, 20))


def test_a_model_that_cannot_be_called_from_outside_of_its_step_is_trained_as_ever(monkeypatch, samples):
    class Particular(CustomStep):
        is_looked_at = False

        def call(self, inputs, training=None):
            if self.is_looked_at:
                raise NotImplementedError("only its step knows how to call it")
            return super().call(inputs, training=training)

    def looking(self, *given):
        self._model.is_looked_at = True
        try:
            return look(self, *given)
        finally:
            self._model.is_looked_at = False

    look = LayerWatch.look
    monkeypatch.setattr(LayerWatch, "look", looking)
    plain = compiled(Particular, metrics=None)
    train(plain, data())
    guarded, callback = compiled(Particular, metrics=None), sampling()
    train(guarded, data(), callback)

    assert callback.summary["steps"] == 10
    assert alike(state(guarded), state(plain))
    assert samples == []
    assert unpatched(guarded)


def test_unseeded_noise_in_a_second_epoch_is_that_of_the_unguarded_run():
    def unseeded():
        return keras.Sequential([layers.Input((4,)), layers.Dense(8), layers.Dropout(0.3), layers.Dense(1)])

    plain = compiled(unseeded)
    train(plain, data(), epochs=2)
    guarded = compiled(unseeded)
    train(guarded, data(), sampling(every=None), epochs=2)

    assert alike(state(guarded), state(plain))


def test_the_layers_are_given_back_as_they_were_found():
    model = compiled(nested)
    train(model, data())
    before = attributes(model)
    train(model, data(), sampling())

    assert attributes(model) == before
    assert unpatched(model)


def test_an_error_in_the_middle_of_a_run_leaves_no_patches():
    class Break(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 4:
                raise RuntimeError("broken off")

    model = compiled(nested)
    with pytest.raises(RuntimeError, match="broken off"):
        train(model, data(), sampling(), Break())

    assert unpatched(model)


# -- what is told ------------------------------------------------------------------------------------------------------


def mlp(activation="relu", depth=4, **options):
    hidden = [layers.Dense(32, activation=activation, **options) for _ in range(depth - 1)]
    return keras.Sequential([layers.Input((4,)), *hidden, layers.Dense(1)])


def adam(rate=1e-3):
    return lambda: keras.optimizers.Adam(rate)


class Killer(keras.optimizers.SGD):
    """Its 21st update leaves biases of the hidden layers that no input can overcome."""

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate)
        if len(variable.shape) == 1 and variable.shape[0] > 1:
            now = keras.ops.cast(keras.ops.equal(self._iterations, 20), variable.dtype)
            self.assign_sub(variable, 100.0 * now * keras.ops.ones_like(gradient))


def dying(callback, batches=40):
    train(compiled(mlp, lambda: Killer(0.01), metrics=None), data(batches), callback)
    return callback


def test_rectifiers_that_die_are_told():
    callback = dying(watching())

    assert set(told(callback)) & {"ACT308", "GRAD202"}
    assert told(callback).count("ACT308") <= 1
    assert min(event["step"] for event in callback.events if event["event"] == "health") > 20


def test_ignored_codes_are_not_told():
    codes = sorted(set(told(dying(watching()))))

    assert codes
    assert told(dying(watching(ignore=codes))) == []


def test_a_code_that_does_not_exist_cannot_be_ignored():
    with pytest.raises(ConfigurationError, match="ACT999"):
        guard(ignore=["ACT999"])


def test_a_deep_sigmoid_net_is_told_to_have_vanishing_gradients():
    callback = sampling()
    train(compiled(lambda: mlp("sigmoid", 20), adam(), metrics=None), data(), callback)

    assert told(callback) == ["GRAD202"]


def forecast(layer, scale=1.0, offset=0.0):
    """A forecast with a recurrent layer."""
    inputs = layers.Input((4,))
    return keras.Model(inputs, layers.Dense(1)(layer(layers.Reshape((4, 1))(inputs * scale + offset))))


def huge(make):
    """The same with weights that are too large by far."""
    layer = make(16)
    model = forecast(layer)
    for variable in layer.trainable_variables:
        variable.assign(variable * 1000.0)
    return model


SATURATED = {
    "lstm-unscaled": lambda: forecast(layers.LSTM(16), 3e4, 1e5),
    "gru-unscaled": lambda: forecast(layers.GRU(16), 3e4, 1e5),
    "simple-unscaled": lambda: forecast(layers.SimpleRNN(16), 3e4, 1e5),
    "lstm-huge-weights": lambda: huge(layers.LSTM),
    "gru-huge-weights": lambda: huge(layers.GRU),
}


@pytest.mark.parametrize("name", SATURATED)
def test_gates_that_are_saturated_and_do_not_learn_are_told(name):
    callback = watching()
    train(compiled(SATURATED[name], adam(), metrics=None), data(25), callback)

    found = [event for event in callback.events if event["event"] == "health" and event["code"] == "ACT307"]
    assert found
    assert "/" in found[0]["where"]


def test_an_epsilon_that_is_larger_than_the_moments_is_told():
    callback = sampling()
    train(compiled(mlp, lambda: keras.optimizers.Adam(1e-3, epsilon=100.0), metrics=None), data(), callback)

    assert told(callback) == (["OPT607"] if BACKEND != "jax" else [])


def test_updates_that_replace_the_weights_are_told():
    callback = watching(health_every_n_steps=10)
    optimizer = lambda: keras.optimizers.AdamW(1.0, 0.9, beta_1=0.0, beta_2=0.0)  # noqa: E731
    train(compiled(lambda: mlp("tanh"), optimizer, metrics=None), data(150), callback)

    assert "OPT606" in told(callback)


def test_updates_that_are_lost_in_rounding_are_told_and_those_that_are_gathered_are_not():
    codes = []
    for options in ({"learning_rate": 1e-12}, {"learning_rate": 1e-3, "gradient_accumulation_steps": 4}):
        callback = watching(health_every_n_steps=2)
        train(compiled(mlp, lambda options=options: keras.optimizers.SGD(**options), metrics=None), data(115), callback)
        codes.append(told(callback))

    assert codes == [["OPT606"], []]


def test_a_layer_in_half_precision_that_is_near_its_end_is_told():
    def half(size):
        large = layers.Dense(
            8, dtype=keras.DTypePolicy("mixed_float16"), bias_initializer=keras.initializers.Constant(size)
        )
        small = layers.Dense(1, dtype="float32", kernel_initializer=keras.initializers.Constant(1e-9))
        return keras.Sequential([layers.Input((4,)), large, small])

    codes = []
    for size in (50_000.0, 10.0):
        callback = watching()
        train(
            compiled(lambda size=size: half(size), lambda: keras.optimizers.SGD(1e-9), metrics=None), data(), callback
        )
        codes.append([code for code in told(callback) if code == "ACT306"])

    assert codes == [["ACT306"], []]


# -- healthy runs are told of nothing ----------------------------------------------------------------------------------


def residual():
    inputs = layers.Input((4,))
    hidden = layers.Dense(16)(inputs)
    for _ in range(3):
        inner = layers.Activation("relu")(layers.BatchNormalization()(hidden))
        hidden = layers.Add()([hidden, layers.Dense(16, kernel_initializer="zeros")(inner)])
    return keras.Model(inputs, layers.Dense(1)(hidden))


def convolution():
    return keras.Sequential(
        [
            layers.Input((4,)),
            layers.Reshape((2, 2, 1)),
            layers.Conv2D(8, 2, padding="same", activation="relu"),
            layers.Conv2D(8, 2, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1),
        ]
    )


def attention():
    inputs = layers.Input((4,))
    hidden = layers.Dense(8)(layers.Reshape((4, 1))(inputs))
    hidden = layers.LayerNormalization()(hidden + layers.MultiHeadAttention(2, 4)(hidden, hidden))
    return keras.Model(inputs, layers.Dense(1)(layers.GlobalAveragePooling1D()(hidden)))


def fine_tuned():
    body = mlp("tanh")
    body.layers[1].kernel.assign(body.layers[1].kernel * 100.0)
    for layer in body.layers[:-1]:
        layer.trainable = False
    return body


def two_heads():
    """The first answer is soon sure; the second one keeps its noise."""
    inputs = layers.Input((4,))
    hidden = layers.Dense(32, activation="relu")(inputs * ops.convert_to_tensor([20.0, 1.0, 1.0, 1.0]))
    hidden = layers.Dense(32, activation="relu")(hidden)
    sure = layers.Dense(1, activation="sigmoid", name="sure")(hidden)
    return keras.Model(inputs, [sure, layers.Dense(1, name="unsure")(hidden)])


def decided(make, *biases):
    """A forecast with gates that are open, or closed, from the start."""

    def model():
        layer = make(16)
        made = forecast(layer)
        bias = np.repeat(np.float32(biases), 16)
        layer.cell.bias.assign(bias if len(layer.cell.bias.shape) == 1 else np.stack([bias, 0 * bias]))
        return made

    return model


HEALTHY = {
    "relu": (mlp, adam()),
    "relu-sgd": (mlp, lambda: keras.optimizers.SGD(0.02)),
    "tanh": (lambda: mlp("tanh"), adam()),
    "lstm": (recurrent, adam(1e-2)),
    "lstm-that-remembers": (decided(layers.LSTM, 0.0, 9.0, 0.0, 0.0), adam()),
    "lstm-whose-gates-are-open": (decided(layers.LSTM, 9.0, 9.0, 0.0, 9.0), adam()),
    "gru-with-sure-gates": (decided(layers.GRU, -9.0, 9.0, 0.0), adam()),
    "residual": (residual, adam()),
    "convolution": (convolution, adam()),
    "attention": (attention, adam()),
    "fine-tuned": (fine_tuned, adam()),
    "noise": (network, adam(1e-2)),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_is_told_nothing_of(name, samples):
    make, optimizer = HEALTHY[name]
    callback = sampling(every=5 if BACKEND == "tensorflow" else 1)

    train(compiled(make, optimizer, metrics=None), data(STEPS // 3), callback, epochs=3)

    assert [event["message"] for event in callback.events if event["event"] == "health"] == []
    assert len(samples) >= STEPS // 5 - 1


def test_a_sure_head_beside_an_unsure_one_is_told_nothing_of():
    x, y = data(STEPS // 3)
    x[:, 0] = np.sign(x[:, 0])
    targets = [(x[:, :1] > 0).astype("float32"), y + 3 * np.random.default_rng(1).normal(size=y.shape)]
    callback = sampling()

    model = compiled(two_heads, adam(0.02), loss=["binary_crossentropy", "mse"], metrics=None)
    train(model, (x, targets), callback, epochs=3)

    assert told(callback) == []


def test_words_that_are_seldom_seen_are_told_nothing_of():
    def words():
        return keras.Sequential(
            [
                layers.Input((4,), dtype="int32"),
                layers.Embedding(5000, 8),
                layers.GlobalAveragePooling1D(),
                layers.Dense(8, activation="relu"),
                layers.Dense(1),
            ]
        )

    x, y = data(STEPS // 3)
    rows = np.minimum(np.abs(x) * 1600, 4999).astype("int32")
    callback = sampling(every=5)
    train(compiled(words, adam(), metrics=None), (rows, y), callback, epochs=3)

    assert told(callback) == []


def test_text_with_padding_is_told_nothing_of(samples):
    callback = sampling(every=3)
    train(compiled(text, adam(1e-2), metrics=None), as_text(data(STEPS // 3)), callback, epochs=3)

    assert told(callback) == []
    assert sum(layer.name.endswith("gate") for layer in samples[-1].layers) == 2 * 3 + 2


def test_gates_that_have_made_up_their_minds_are_seen_as_such(samples):
    train(compiled(decided(layers.LSTM, 9.0, 9.0, 0.0, 9.0), adam(), metrics=None), data(), sampling())

    seen = {layer.name.rpartition("/")[2]: layer.saturated_share for layer in samples[-1].layers}
    assert min(seen[f"{name}_gate"] for name in ("input", "forget", "output")) > 0.9
    assert seen["candidate"] < 0.5


def test_a_batch_of_many_rows_is_looked_at_in_part(samples):
    x, y = data(20)
    train(compiled(mlp, adam(), metrics=None), (x, y), sampling(), batch_size=10 * BATCH)

    assert samples
    assert all(sample.layers for sample in samples)
