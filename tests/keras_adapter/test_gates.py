"""Gates inside of recurrent layers: what is computed of them is what Keras itself computes."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from nan_callbacks.diagnosis.lab import Variation
from nan_callbacks.keras.activations import BOUNDED
from nan_callbacks.keras.checkup_probe import passages_of
from nan_callbacks.keras.gates import gates_of
from nan_callbacks.keras.lab import KerasLab

FEATURES, UNITS, STEPS, ROWS = 3, 5, 6, 4

LARGE = {
    "kernel_initializer": keras.initializers.RandomNormal(stddev=4.0, seed=1),
    "recurrent_initializer": keras.initializers.RandomNormal(stddev=4.0, seed=2),
    "bias_initializer": keras.initializers.RandomNormal(stddev=2.0, seed=3),
}
"""Weights with which a good part of the gates is saturated."""

LAYERS = {
    "lstm": lambda **more: layers.LSTM(UNITS, **LARGE, **more),
    "lstm-without-bias": lambda **more: layers.LSTM(UNITS, use_bias=False, **LARGE, **more),
    "lstm-hard": lambda **more: layers.LSTM(UNITS, recurrent_activation="hard_sigmoid", **LARGE, **more),
    "gru": lambda **more: layers.GRU(UNITS, **LARGE, **more),
    "gru-without-bias": lambda **more: layers.GRU(UNITS, use_bias=False, **LARGE, **more),
    "gru-reset-before": lambda **more: layers.GRU(UNITS, reset_after=False, **LARGE, **more),
    "simple": lambda **more: layers.SimpleRNN(UNITS, **LARGE, **more),
    "simple-relu": lambda **more: layers.SimpleRNN(UNITS, activation="relu", **LARGE, **more),
    "rnn-of-a-cell": lambda **more: layers.RNN(layers.LSTMCell(UNITS, **LARGE), **more),
}
OPTIONS = {
    "plain": {},
    "sequences": {"return_sequences": True},
    "backwards": {"go_backwards": True},
    "states-too": {"return_sequences": True, "return_state": True},
}


def model_of(layer, *, masked=False):
    inputs = layers.Input((STEPS, FEATURES))
    made = layer(layers.Masking()(inputs) if masked else inputs)
    first = made[0] if isinstance(made, list | tuple) else made
    model = keras.Model(inputs, layers.Dense(1)(first if len(first.shape) == 2 else layers.Flatten()(first)))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def batch(*, masked=False):
    x = np.random.default_rng(0).normal(size=(ROWS, STEPS, FEATURES)).astype("float32")
    if masked:
        x[0, 2:], x[1, :3], x[2, 1] = 0.0, 0.0, 0.0
    return x, np.zeros((ROWS, 1), "float32")


def shares_by_hand(layer, x, known=None):
    """Share of values at a bound, gate by gate, from the cell's own activations at every step."""
    cell, seen = layer.cell, []
    names = [name for name in ("recurrent_activation", "activation") if hasattr(cell, name)]
    originals = {name: getattr(cell, name) for name in names}

    def watched(name):
        def call(z):
            made = originals[name](z)
            seen.append((name, ops.convert_to_numpy(made)))
            return made

        return call

    states = cell.get_initial_state(batch_size=1)
    rows = []
    for row in range(len(x)):
        states = cell.get_initial_state(batch_size=1)
        for at in reversed(range(STEPS)) if layer.go_backwards else range(STEPS):
            if known is not None and not known[row, at]:
                continue
            seen.clear()
            for name in names:
                object.__setattr__(cell, name, watched(name))
            try:
                _, states = cell(ops.convert_to_tensor(x[row : row + 1, at]), states)
            finally:
                for name in names:
                    object.__setattr__(cell, name, originals[name])
            rows.append(list(seen))
    return rows, originals


def told(model, data):
    lab = KerasLab(model, data)
    passages = passages_of(lab)
    passage = next(each for each in passages.layers if isinstance(each.layer, layers.RNN))
    return lab.held_still_for(lambda: gates_of(passage.layer, passage.fed))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", LAYERS)
def test_gates_are_those_of_the_cell_at_every_step(kind, options, masked):
    layer = LAYERS[kind](**OPTIONS[options])
    model, data = model_of(layer, masked=masked), batch(masked=masked)
    known = (data[0] != 0).any(-1) if masked else None

    gates = told(model, data)

    rows, originals = shares_by_hand(layer, data[0], known)
    total = {"recurrent_activation": [], "activation": []}
    for row in rows:
        inner = [values for name, values in row if name == "activation"]
        total["activation"].append(inner[0])  # an LSTM applies it to its new state as well
        total["recurrent_activation"] += [values for name, values in row if name == "recurrent_activation"]
    assert {gate.activation for gate in gates} == {each.__name__ for each in originals.values()}
    for name, activation in originals.items():
        own = [gate for gate in gates if gate.name.endswith("gate") == (name == "recurrent_activation")]
        values = np.stack(total[name])
        if activation.__name__ == "relu":
            assert own[0].dead_share == pytest.approx(float((values == 0).all((0, 1)).mean()))
            continue
        low, high = BOUNDED[activation.__name__]
        margin = 0.01 * (high - low)
        share = float(((values < low + margin) | (values > high - margin)).mean())
        assert np.mean([gate.saturated_share for gate in own]) == pytest.approx(share, abs=1e-3)
        assert 0.05 < share < 1.0


def test_gates_begin_with_the_state_that_they_were_given():
    sequence, start = layers.Input((STEPS, FEATURES)), layers.Input((UNITS,))
    layer = layers.GRU(UNITS, **LARGE)
    model = keras.Model([sequence, start], layers.Dense(1)(layer(sequence, initial_state=start)))
    model.compile("sgd", "mse")
    x, y = batch()

    without, given = (told(model, ((x, np.full((ROWS, UNITS), size, "float32")), y)) for size in (0.0, 50.0))

    assert [gate.saturated_share for gate in without] != [gate.saturated_share for gate in given]


def test_both_directions_are_looked_at():
    inputs = layers.Input((STEPS, FEATURES))
    model = keras.Model(inputs, layers.Dense(1)(layers.Bidirectional(layers.LSTM(UNITS))(inputs)))
    model.compile("sgd", "mse")

    evidence = KerasLab(model, batch()).layers()

    assert len([each for each in evidence if each.name.endswith("/gates")]) == 2


def test_a_layer_of_another_kind_is_passed_over():
    class Own(layers.LSTMCell):
        def call(self, inputs, states, training=False):
            return super().call(inputs, states, training=training)

    unknown = layers.LSTM(UNITS, activation="softsign")
    for layer in (layers.RNN(Own(UNITS)), unknown, layers.RNN([layers.LSTMCell(UNITS), layers.GRUCell(UNITS)])):
        model = model_of(layer)
        assert told(model, batch()) == ()
        assert KerasLab(model, batch()).run(Variation()).supported


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_gates_are_a_part_of_the_evidence(scale):
    layer = layers.LSTM(UNITS)
    model = model_of(layer)
    for variable in layer.trainable_variables:
        variable.assign(variable * scale)

    (gates,) = [each for each in KerasLab(model, batch()).layers() if each.name.endswith("/gates")]

    assert (gates.saturated_share > 0.8) == (scale > 1)
