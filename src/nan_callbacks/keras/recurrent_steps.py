"""The steps of Keras' recurrent cells in numpy, by the formulas of their ``call``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from keras import ops

Function = Callable[[np.ndarray], np.ndarray]

FUNCTIONS: dict[str, Function] = {
    "sigmoid": lambda x: 0.5 * (1.0 + np.tanh(0.5 * x)),
    "tanh": np.tanh,
    "hard_sigmoid": lambda x: np.clip(x / 6.0 + 0.5, 0.0, 1.0),
    "hard_tanh": lambda x: np.clip(x, -1.0, 1.0),
    "relu": lambda x: np.maximum(x, 0.0),
    "linear": lambda x: x,
}
"""Activations that can be computed here; layers with others are passed over."""

MOST_STEPS = 128
"""Steps that are looked at, from the first that no mask hides."""

Weights = dict[str, Any]
States = list[np.ndarray]
Step = Callable[[Any, Weights, np.ndarray, States], tuple[States, States]]
"""Of a cell, its weights, inputs and states: the values of its gates, and the next states."""


def values_of(
    layer: Any, step: Step, inputs: np.ndarray, mask: np.ndarray, states: list[np.ndarray]
) -> Iterator[list[np.ndarray]]:
    """Values of the gates, step by step, of the rows that are not masked at that step.

    Args:
        layer: The layer.
        step: One step of its cell.
        inputs: Shape [rows, steps, features].
        mask: Shape [rows, steps]; where it is false, the state stays as it is.
        states: Before the first step, shape [rows, units]; none: zeros.
    """
    cell = layer.cell
    weights = {name: _array(getattr(cell, name, None)) for name in ("kernel", "recurrent_kernel", "bias")}
    if layer.go_backwards:
        inputs, mask = inputs[:, ::-1], mask[:, ::-1]
    if not states:
        zeros = np.zeros((len(inputs), cell.units), np.float32)
        states = [zeros, zeros]
    seen = np.flatnonzero(mask.any(axis=0))
    for at in seen[:MOST_STEPS]:
        values, new = step(cell, weights, inputs[:, at], states)
        valid = mask[:, at]
        states = [np.where(valid[:, None], made, old) for made, old in zip(new, states, strict=False)]
        yield [value[valid] for value in values]


def _array(variable: Any) -> Any:
    if variable is None:
        return np.float32(0.0)
    return np.asarray(ops.convert_to_numpy(ops.cast(variable, "float32")))


def lstm(cell: Any, weights: Weights, x: np.ndarray, states: States) -> tuple[States, States]:
    """Input gate, forget gate, candidate, output gate; the next states."""
    h, c = states
    total = x @ weights["kernel"] + h @ weights["recurrent_kernel"] + weights["bias"]
    inner, gate = FUNCTIONS[cell.activation.__name__], FUNCTIONS[cell.recurrent_activation.__name__]
    i, f, g, o = np.split(total, 4, axis=-1)
    values = [gate(i), gate(f), inner(g), gate(o)]
    c = values[1] * c + values[0] * values[2]
    return values, [values[3] * inner(c), c]


def gru(cell: Any, weights: Weights, x: np.ndarray, states: States) -> tuple[States, States]:
    """Reset gate, update gate, candidate; the next state."""
    h, recurrent, bias = states[0], weights["recurrent_kernel"], weights["bias"]
    inner, gate = FUNCTIONS[cell.activation.__name__], FUNCTIONS[cell.recurrent_activation.__name__]
    units = h.shape[-1]
    for_input, for_state = bias if np.ndim(bias) > 1 else (bias, np.zeros(3 * units, np.float32))
    update, reset, new = np.split(x @ weights["kernel"] + for_input, 3, axis=-1)
    kept = h @ recurrent[:, : 2 * units] + for_state[: 2 * units]
    z, r = gate(update + kept[:, :units]), gate(reset + kept[:, units:])
    if cell.reset_after:
        old = r * (h @ recurrent[:, 2 * units :] + for_state[2 * units :])
    else:
        old = (r * h) @ recurrent[:, 2 * units :]
    candidate = inner(new + old)
    return [r, z, candidate], [z * h + (1.0 - z) * candidate]


def simple(cell: Any, weights: Weights, x: np.ndarray, states: States) -> tuple[States, States]:
    """The hidden state, which is all there is."""
    total = x @ weights["kernel"] + states[0] @ weights["recurrent_kernel"] + weights["bias"]
    made = FUNCTIONS[cell.activation.__name__](total)
    return [made], [made]
