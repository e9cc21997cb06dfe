"""What the layers of a model do with one batch: activations, weights, gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from nan_callbacks.core.gates import GateObservation, taken_together
from nan_callbacks.diagnosis.evidence import LayerEvidence
from nan_callbacks.keras.activations import shares_of
from nan_callbacks.keras.gates import gates_of
from nan_callbacks.keras.lab_batch import is_floating
from nan_callbacks.keras.layer_probe import Noted
from nan_callbacks.keras.replay_layers import place_of

MOST_VALUES = 1 << 20
"""Values looked at per tensor, evenly spaced: a standard deviation of more is none the better."""


def evidence_of(layers: Sequence[Noted], gradients: Mapping[str, float]) -> tuple[LayerEvidence, ...]:
    """The measurements, those of the gates of recurrent layers behind their layers.

    Args:
        layers: In the order of the forward pass, with their outputs in float32.
        gradients: Norm of the gradient of each variable, by path.
    """
    made = []
    for each in layers:
        made.append(_evidence(each.layer, each.tensors[0], gradients))
        made += [_of_gate(each.layer, gate) for gate in taken_together(gates_of(each.layer, each.fed))]
    return tuple(made)


def _of_gate(layer: Any, gate: GateObservation) -> LayerEvidence:
    return LayerEvidence(
        name=f"{place_of(layer).path}/{gate.path}",
        kind=gate.activation,
        saturated_share=gate.saturated_share,
        dead_share=gate.dead_share,
    )


def _evidence(layer: Any, output: np.ndarray, gradients: Mapping[str, float]) -> LayerEvidence:
    variables = list(getattr(layer, "trainable_variables", []))
    norms = [gradients[variable.path] for variable in variables if variable.path in gradients]
    weight = weight_of(layer, variables)
    flat = output.reshape(-1)
    flat = flat[:: max(1, flat.size // MOST_VALUES)]
    flat = flat[np.isfinite(flat)].astype(np.float64)
    saturated, dead = shares_of(layer, output, flat)
    return LayerEvidence(
        name=place_of(layer).path,
        kind=type(layer).__name__,
        activation_std=float(flat.std()) if flat.size else None,
        activation_max=float(np.abs(flat).max()) if flat.size else None,
        saturated_share=saturated,
        dead_share=dead,
        weight_norm=None if weight is None else float(np.linalg.norm(weight)),
        weight_scale=None if weight is None else float(weight.std()) * math.sqrt(weight[..., 0].size),
        grad_norm=math.hypot(*norms) if norms or (variables and gradients) else None,
        trained=_is_trained(layer, output, bool(norms)),
    )


def _is_trained(layer: Any, output: np.ndarray, has_gradients: bool) -> bool | None:
    if matrix_of(layer, list(getattr(layer, "variables", []))) is not None:
        return has_gradients
    return False if _keeps_a_constant_matrix(layer, output) else None


def _keeps_a_constant_matrix(layer: Any, output: np.ndarray) -> bool:
    """Whether a layer without any variable holds an array with a column for each of its outputs.

    An array with a row for each place of a sequence is a table of positions.
    """
    if getattr(layer, "variables", None) or output.ndim < 2:
        return False
    held = [value for value in vars(layer).values() if isinstance(value, np.ndarray) or ops.is_tensor(value)]
    shapes = [tuple(value.shape) for value in held if is_floating(value)]
    return any(len(each) == 2 and each[1] == output.shape[-1] and each[0] != output.shape[-2] for each in shapes)


def matrix_of(layer: Any, variables: list[Any]) -> Any:
    """The first matrix of a layer that multiplies its input; an embedding's only looks its rows up."""
    if isinstance(layer, keras.layers.Embedding):
        return None
    return next((v for v in variables if len(v.shape) >= 2 and "bias" not in v.name), None)


def weight_of(layer: Any, variables: list[Any]) -> np.ndarray | None:
    """The numbers of that matrix."""
    matrix = matrix_of(layer, variables)
    if matrix is None:
        return None
    return np.asarray(ops.convert_to_numpy(ops.cast(matrix.value, "float32")), np.float64)
