"""A look at the layers of a Keras model between two steps: a forward pass of some rows on copies of the state."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
from keras import ops

from nan_callbacks.core.layer_observation import LayerObservation
from nan_callbacks.keras.activations import shares_of
from nan_callbacks.keras.checkup_facts import ends_of
from nan_callbacks.keras.checkup_probe import Passage, PassageProbe, Passages
from nan_callbacks.keras.gates import gates_of
from nan_callbacks.keras.lab_batch import select_rows
from nan_callbacks.keras.lab_hands import ModelRaised, Unsupported, make_hands
from nan_callbacks.keras.lab_layers import matrix_of, weight_of
from nan_callbacks.keras.model_parts import leaf_optimizers, obstacle_of, optimizers_of
from nan_callbacks.keras.readings import Reading
from nan_callbacks.keras.replay_batch import batch_rows
from nan_callbacks.keras.replay_layers import place_of
from nan_callbacks.keras.weights_before import WeightsBefore

MOST_ROWS = 32
"""Rows that are looked at: enough to tell a dead unit from an idle one."""


class LayerWatch:
    """Looks at the layers of a model when it is asked to.

    Args:
        model: The model.
        state: JAX only: what ``fit`` hands around while the model's variables hold nothing.
    """

    def __init__(self, model: Any, state: Callable[[], Any]) -> None:
        self._model = model
        self._hands: Any = None
        self._state = state
        self._probe: PassageProbe | None = None
        self._before = WeightsBefore(model, state)

    def before_step(self, *, due: bool) -> None:
        """The coming step has not been made yet.

        Args:
            due: Whether it will be looked at.
        """
        self._before.take() if due else self._before.forget()

    def look(self, batch: Any, readings: Sequence[Reading]) -> tuple[tuple[LayerObservation, ...], float]:
        """What the layers do with some rows of a batch, and how many seconds that took.

        Args:
            batch: The batch of the step that was made last.
            readings: What was measured of that step.
        """
        began = time.perf_counter()
        if obstacle_of(self._model):
            return (), 0.0
        try:
            passages = self._passages(batch)
        except (Unsupported, ModelRaised):
            return (), time.perf_counter() - began + self._before.seconds
        gradients = _gradients(self._model, readings)
        handed_around = self._state() is not None  # on JAX the variables hold their values only while held still
        moments = {} if handed_around else _at_epsilon(self._model)
        with self._hands.held_still() if handed_around else nullcontext():
            ends = ends_of(passages)
            layers = [
                layer
                for each in passages.layers
                for layer in _observed(each, id(each) in ends, gradients, moments, self._before)
            ]
        spent = time.perf_counter() - began + self._before.seconds
        self._before.forget()
        return tuple(layers), spent

    def _passages(self, batch: Any) -> Passages:
        rows = batch_rows(batch)
        few = batch if rows is None or rows <= MOST_ROWS else select_rows(batch, range(MOST_ROWS), rows)
        inputs = keras.utils.unpack_x_y_sample_weight(few)[0]
        self._hands = self._hands or make_hands(self._model, self._state)
        self._probe = self._probe or PassageProbe(self._model)
        with self._hands.held_still():
            return self._probe.passages(self._hands.outputs(self._probe, self._probe.call, inputs))


def _gradients(model: Any, readings: Sequence[Reading]) -> dict[str, float]:
    """Norm of the gradient of each variable, by path. On torch, gradients stay with their variables."""
    found = {name: norm for each in readings for name, norm in zip(each.names, each.norms, strict=False)}
    if not found and keras.backend.backend() == "torch":
        from nan_callbacks.torch.activations import norm_of

        pairs = [(variable.path, variable.value.grad) for variable in model.trainable_variables]
        found = {path: norm_of([grad]) or 0.0 for path, grad in pairs if grad is not None and not grad.is_sparse}
    return found


def _observed(
    passage: Passage,
    is_output: bool,
    gradients: Mapping[str, float],
    moments: Mapping[str, float],
    before: WeightsBefore,
) -> Iterator[LayerObservation]:
    """A layer, and the gates inside of it."""
    layer, returned = passage.layer, passage.returned
    variables = list(getattr(layer, "trainable_variables", []))
    norms = [gradients[each.path] for each in variables if each.path in gradients]
    shares = [moments[each.path] for each in variables if each.path in moments]
    weight = weight_of(layer, variables)
    finite = returned[np.isfinite(returned)]
    saturated, dead = shares_of(layer, returned, finite)
    yield LayerObservation(
        name=place_of(layer).path,
        kind=type(layer).__name__,
        is_output=is_output,
        trainable=bool(variables),
        saturated_share=saturated,
        dead_share=dead,
        largest=float(np.abs(finite).max()) if finite.size else None,
        dtype=str(getattr(layer, "compute_dtype", None) or "float32"),
        weight_norm=None if weight is None else float(np.linalg.norm(weight)),
        grad_norm=float(np.linalg.norm(norms)) if norms else None,
        update_norm=None if weight is None else before.change(matrix_of(layer, variables), weight),
        at_epsilon=None if isinstance(layer, keras.layers.Embedding) else min(shares, default=None),
    )
    yield from _gates(passage, is_output, gradients)


def _gates(passage: Passage, is_output: bool, gradients: Mapping[str, float]) -> Iterator[LayerObservation]:
    gates = gates_of(passage.layer, passage.fed)
    if not gates:
        return
    # Not the weights of the input: their gradient is as large as an unscaled input; the state is never larger than 1.
    cell = passage.layer.cell
    own = [each for each in (cell.recurrent_kernel, getattr(cell, "bias", None)) if each is not None]
    norms = [gradients[each.path] for each in own if each.path in gradients]
    weights = [float(np.linalg.norm(ops.convert_to_numpy(ops.cast(each, "float32")))) for each in own]
    for gate in gates:
        yield LayerObservation(
            name=f"{place_of(passage.layer).path}/{gate.path}",
            kind=gate.activation,
            is_output=is_output,
            trainable=False,
            saturated_share=gate.saturated_share,
            dead_share=gate.dead_share,
            weight_norm=float(np.linalg.norm(weights)),
            grad_norm=float(np.linalg.norm(norms)) if norms else None,
        )


def _at_epsilon(model: Any) -> dict[str, float]:
    """Share of Adam's second moments whose root is below epsilon, by path of the variable."""
    found = {}
    for optimizer in optimizers_of(model):
        for leaf in leaf_optimizers(optimizer):
            epsilon, moments = getattr(leaf, "epsilon", None), getattr(leaf, "_velocities", None)
            trained = getattr(leaf, "_trainable_variables", [])
            if not isinstance(epsilon, float) or not isinstance(moments, list) or len(moments) != len(trained):
                continue
            for variable, moment in zip(trained, moments, strict=True):
                if len(variable.shape) >= 2:
                    values = np.asarray(ops.convert_to_numpy(moment.value), np.float32)
                    found[variable.path] = float((np.sqrt(values) < epsilon).mean())
    return found
