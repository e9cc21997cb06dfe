"""Gates inside of Keras' recurrent layers: their values, computed anew from what a layer was given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from nan_callbacks.core.gates import GRU_GATES, LSTM_GATES, SIMPLE_GATES, GateObservation
from nan_callbacks.keras.activations import BOUNDED, is_saturated
from nan_callbacks.keras.recurrent_steps import FUNCTIONS, gru, lstm, simple, values_of

ROWS = 8
"""Rows that are looked at: each is a whole sequence."""

CELLS = (
    (keras.layers.LSTMCell, LSTM_GATES, lstm),
    (keras.layers.GRUCell, GRU_GATES, gru),
    (keras.layers.SimpleRNNCell, SIMPLE_GATES, simple),
)
"""Kinds of cells, their gates, and one step of each."""


def fed_to(layer: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """The tensors from which a layer's gates can be computed; none if it is no recurrent layer that is known.

    Args:
        layer: The layer.
        args: What its ``call`` was given.
        kwargs: The same by name.

    Returns:
        Sequences, mask, and the states before the first step, if they were given or kept.
    """
    names = ("sequences", "initial_state", "mask")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    sequences, mask, start = given.get("sequences"), given.get("mask"), given.get("initial_state")
    if not _known(layer)[0] or len(getattr(sequences, "shape", ())) != 3:
        return ()
    if start is None and layer.stateful:
        start = layer.states
    states = [] if start is None else [ops.convert_to_tensor(each) + 0 for each in keras.tree.flatten(start)]
    known = ops.ones(ops.shape(sequences)[:2]) if mask is None else keras.tree.flatten(mask)[0]
    return sequences, known, *states


def gates_of(layer: Any, fed: Sequence[np.ndarray]) -> tuple[GateObservation, ...]:
    """What the gates did with a few rows; without dropout, as in evaluation.

    Args:
        layer: A recurrent layer, whose variables hold their values.
        fed: What :func:`fed_to` returned, as arrays; nothing gives nothing.
    """
    names = _known(layer)[0]
    if not fed or not names or not fed[0].size:
        return ()
    rows = np.unique(np.linspace(0, len(fed[0]) - 1, ROWS).astype(int))
    sequences, mask, *states = (np.asarray(each[rows], np.float32) for each in fed)
    activations = _activations(layer.cell, names)
    counts = [_Count(activation) for activation in activations]
    with np.errstate(all="ignore"):  # numbers that overflow are a matter of others
        for values in values_of(layer, _known(layer)[1], sequences, mask.reshape(mask.shape[:2]) > 0, states):
            for count, value in zip(counts, values, strict=True):
                count.add(value)
    return tuple(count.observation(name) for name, count in zip(names, counts, strict=True))


def _known(layer: Any) -> tuple[tuple[str, ...], Any]:
    """The gates of a layer and its step; nothing if it is of another kind, or has activations of another kind."""
    cell = getattr(layer, "cell", None) if isinstance(layer, keras.layers.RNN) else None
    for kind, names, step in CELLS:
        if isinstance(cell, kind) and type(cell).call is kind.call:
            return (names, step) if all(each in FUNCTIONS for each in _activations(cell, names)) else ((), None)
    return (), None


def _activations(cell: Any, names: Sequence[str]) -> list[str]:
    """Names of the activations of some gates."""
    inner = [("recurrent_" if name.endswith("gate") else "") + "activation" for name in names]
    return [getattr(getattr(cell, each, None), "__name__", "") for each in inner]


class _Count:
    """Sums up the values of one gate."""

    def __init__(self, activation: str) -> None:
        self._activation = activation
        self._seen = self._saturated = 0
        self._alive: Any = False

    def add(self, values: np.ndarray) -> None:
        """Values of one step, shape [rows, units]."""
        if self._activation in BOUNDED:
            self._saturated += int(is_saturated(values, BOUNDED[self._activation]).sum())
            self._seen += int(np.isfinite(values).sum())
        self._alive = self._alive | (values != 0).any(axis=0)

    def observation(self, name: str) -> GateObservation:
        """What all of them say."""
        is_rectifier = self._activation == "relu" and np.ndim(self._alive) > 0
        return GateObservation(
            name=name,
            activation=self._activation,
            saturated_share=self._saturated / self._seen if self._seen else None,
            dead_share=float(1.0 - np.mean(self._alive)) if is_rectifier else None,
        )
