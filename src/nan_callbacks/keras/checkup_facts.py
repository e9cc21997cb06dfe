"""Facts for the checkup of a Keras model: where its inputs go, and what its layers do with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from nan_callbacks.checkup.facts import InputFacts, LayerFacts, Lookup
from nan_callbacks.core.gates import taken_together
from nan_callbacks.keras.activations import activation_of, shares_of
from nan_callbacks.keras.checkup_probe import Passage, Passages, key_of, rms, spread
from nan_callbacks.keras.gates import gates_of
from nan_callbacks.keras.lab_batch import as_numpy
from nan_callbacks.keras.lab_layers import weight_of
from nan_callbacks.keras.loss_facts import compiled_losses, names_of
from nan_callbacks.keras.model_parts import leaf_optimizers, optimizers_of
from nan_callbacks.keras.replay_batch import named_parts
from nan_callbacks.keras.replay_layers import place_of
from nan_callbacks.keras.table_probe import Asked

NORMALISING = tuple(
    getattr(keras.layers, name)
    for name in (
        "BatchNormalization",
        "LayerNormalization",
        "GroupNormalization",
        "UnitNormalization",
        "RMSNormalization",
    )
    if hasattr(keras.layers, name)
)


def inputs_of(model: Any, batch: Any, passages: Passages, all_rows: Mapping[str, np.ndarray]) -> tuple[InputFacts, ...]:
    """The inputs, each with the first layer with weights that it reaches.

    Args:
        model: The model.
        batch: The first batch.
        passages: Its way through the model.
        all_rows: Parts of the batch over all rows that were read, by name.
    """
    parts = [(name, as_numpy(part)) for name, part in named_parts(batch) if name.partition("[")[0] == "x"]
    known = [(name, array) for name, array in parts if array is not None]
    sources = {key_of(array): name for name, array in known}
    reached: dict[str, Passage] = {}
    normalised = {key_of(each.received) for each in passages.layers if isinstance(each.layer, NORMALISING)}
    for passage in passages.layers:
        name = sources.get(key_of(passage.received))
        if name is None:
            continue
        if _takes(passage.layer):
            reached.setdefault(name, passage)
        else:
            sources[key_of(passage.returned)] = name
    if len(known) == 1 and not reached:  # computed with before its first layer: that receives what became of it
        first = next((passage for passage in passages.layers if _takes(passage.layer)), None)
        if first is not None and len(first.received) == len(known[0][1]):
            reached[known[0][0]] = first
    lookups = _lookups(passages.asked, known, all_rows, sources)
    return tuple(
        replace(
            _input(name, all_rows.get(name, array), reached.get(name), lookups.get(name, ()), normalised),
            batch_has_gaps=array.dtype.kind == "f" and not np.isfinite(array).all(),
        )
        for name, array in known
    )


def _lookups(
    asked: Asked,
    known: Sequence[tuple[str, np.ndarray]],
    all_rows: Mapping[str, np.ndarray],
    sources: Mapping[tuple[int, int], str],
) -> dict[str, tuple[Lookup, ...]]:
    """What the tables received, by the input that it comes from."""
    whole = {key_of(array): name for name, array in known}
    found: dict[str, tuple[Lookup, ...]] = {}
    for layer, received in asked:
        key = key_of(received)
        name = whole.get(key) or sources.get(key) or _holding(received, known)
        if name is None:
            continue
        values = all_rows.get(name, received) if key in whole and _may_take_an_input(layer) else received
        told = Lookup(table=place_of(layer).path, rows=int(layer.input_dim), values=values)
        found[name] = (*found.get(name, ()), told)
    return found


def _may_take_an_input(layer: Any) -> bool:
    """Whether a table is fed by an input as it is; known of a model that is a graph, and taken for so of others.

    What caps or hashes large ids changes nothing in a batch that has none.
    """
    nodes = getattr(layer, "_inbound_nodes", ())
    fed = [tensor for node in nodes for tensor in node.arguments.keras_tensors]
    return all(isinstance(tensor._keras_history.operation, keras.layers.InputLayer) for tensor in fed)


def _holding(received: np.ndarray, known: Sequence[tuple[str, np.ndarray]]) -> str | None:
    """The input that some indices come from: the only one, or the first one that holds all of them."""
    if len(known) == 1:
        return known[0][0]
    return next((name for name, array in known if np.isin(received, array).all()), None)


def _takes(layer: Any) -> bool:
    """Whether a layer looks rows up or multiplies by weights."""
    return isinstance(layer, keras.layers.Embedding) or _multiplies(layer)


def _multiplies(layer: Any) -> bool:
    if isinstance(layer, (*NORMALISING, keras.layers.Embedding)):
        return False
    return (
        weight_of(layer, list(getattr(layer, "trainable_variables", []) or getattr(layer, "variables", []))) is not None
    )


def _input(
    name: str, values: np.ndarray, passage: Passage | None, lookups: tuple[Lookup, ...], normalised: set[Any]
) -> InputFacts:
    if passage is None:
        use = "indices" if lookups else "mask" if values.dtype.kind == "b" else "unknown"
        return InputFacts(name=name, values=values, use=use, lookups=lookups)
    layer = passage.layer
    path = place_of(layer).path
    if isinstance(layer, keras.layers.Embedding):
        return InputFacts(name=name, values=values, use="indices", first_layer=path, lookups=lookups)
    first = getattr(layer, "data_format", "") == "channels_first" and values.ndim > 3
    return InputFacts(
        name=name,
        values=values,
        use="numbers",
        first_layer=path,
        received=passage.received,
        normalised_after=key_of(passage.returned) in normalised,
        channel_axis=1 if first else -1,
        lookups=lookups,
    )


# -- layers ----------------------------------------------------------------------------------------------------------


def layers_of(passages: Passages, gradients: Mapping[str, float]) -> tuple[LayerFacts, ...]:
    """The layers in the order of the forward pass.

    Args:
        passages: The first batch's way through the model.
        gradients: Norm of the gradient of each variable, by path.
    """
    ends = ends_of(passages)
    weights = {id(each.layer): _weight(each.layer) for each in passages.layers}
    made: list[LayerFacts] = []
    for index, passage in enumerate(passages.layers):
        following = (weights[id(each.layer)] for each in passages.layers[index + 1 :])
        behind = next((weight for weight in following if weight is not None), None)
        is_output = id(passage) in ends
        made.append(_layer(passage, len(made), weights[id(passage.layer)], behind, is_output, gradients))
        made += _gates(passage, len(made), is_output)
    return tuple(made)


def _gates(passage: Passage, depth: int, is_output: bool) -> list[LayerFacts]:
    """The gates inside of a recurrent layer, as activations of their own."""
    return [
        LayerFacts(
            name=f"{place_of(passage.layer).path}/{gate.path}",
            kind=gate.activation,
            depth=depth + index,
            is_output=is_output,
            saturated_share=gate.saturated_share,
            dead_share=gate.dead_share,
        )
        for index, gate in enumerate(taken_together(gates_of(passage.layer, passage.fed)))
    ]


def ends_of(passages: Passages) -> set[int]:
    """Passages between the last weights and the outputs, the last weights among them."""
    keys = {key_of(output) for output in passages.outputs}
    found = set()
    for passage in reversed(passages.layers):
        if key_of(passage.returned) in keys:
            found.add(id(passage))
            if not _multiplies(passage.layer):
                keys.add(key_of(passage.received))
    return found


def _weight(layer: Any) -> np.ndarray | None:
    if not _multiplies(layer):
        return None
    return weight_of(layer, list(layer.trainable_variables or layer.variables))


def _layer(
    passage: Passage,
    depth: int,
    weight: np.ndarray | None,
    behind: np.ndarray | None,
    is_output: bool,
    gradients: Mapping[str, float],
) -> LayerFacts:
    layer, returned = passage.layer, passage.returned
    kind = activation_of(layer)
    flat = returned[np.isfinite(returned)]
    saturated, dead = shares_of(layer, returned, flat)
    shared: dict[str, Any] = {
        "name": place_of(layer).path,
        "kind": kind if weight is None and kind else type(layer).__name__,
        "depth": depth,
        "is_output": is_output,
        "is_normalisation": isinstance(layer, NORMALISING),
        "saturated_share": saturated,
        "dead_share": dead,
        "trainable": bool(layer.trainable) if hasattr(layer, "trainable") else True,
    }
    if weight is None:
        return LayerFacts(**shared)
    matrix = max((v for v in layer.trainable_variables if len(v.shape) >= 2), key=lambda v: v.shape[-1], default=None)
    norm = None if matrix is None else gradients.get(matrix.path)
    grad = None if norm is None else norm / math.sqrt(max(weight.size, 1))
    size = rms(passage.received)
    in_std, in_level = _signal_in(passage)
    return LayerFacts(
        **shared,
        has_weights=True,
        in_std=in_std,
        in_level=in_level,
        out_std=spread(returned),
        # A weight's gradient is that of the output times the input.
        grad_out_std=None if grad is None or not size else grad / size,
        weight_scale=float(weight.std()) * math.sqrt(weight[..., 0].size),
        weights_all_zero=not weight.any(),
        weights_all_equal=weight.shape[-1] > 1 and bool((weight == weight[..., :1]).all()),
        gradients_all_equal=_alike(layer, returned, behind),
    )


def _signal_in(passage: Passage) -> tuple[float | None, float]:
    """Standard deviation of the strongest signal, of a recurrent layer perhaps its state, and the size of the same."""
    known = [(spread(array), array) for array in (passage.received, *passage.fed[2:])]
    std, strongest = max(known, key=lambda pair: pair[0] or 0.0)
    return std, rms(strongest)


def _alike(layer: Any, returned: np.ndarray, behind: np.ndarray | None) -> bool:
    """Whether all units return the same and are used in the same way, so that they get the same gradient."""
    axis = 1 if getattr(layer, "data_format", "") == "channels_first" and returned.ndim > 3 else -1
    units = np.moveaxis(returned, axis, -1)
    same = bool((units == units[..., :1]).all())
    return same and (behind is None or bool((behind == behind[..., :1, :]).all()))


def components_of(model: Any) -> set[str]:
    """Names of what a model uses, for known issues."""
    layers = list(model._flatten_layers(include_self=True, recursive=True))
    found = {type(each).__name__ for each in layers} | names_of(compiled_losses(model))
    if any(getattr(layer, "activity_regularizer", None) is not None for layer in layers):
        found.add("activity_regularizer")
    if any(getattr(layer, "lora_enabled", False) for layer in layers):
        found.add("lora")
    if any(isinstance(layer, keras.layers.GRU) and layer.recurrent_dropout for layer in layers):
        found.add("GRU:recurrent_dropout")
    for optimizer in optimizers_of(model):
        found.add(type(optimizer).__name__)
        for leaf in leaf_optimizers(optimizer):
            found.add(type(leaf).__name__)
            found |= {"gradient_accumulation_steps"} if getattr(leaf, "gradient_accumulation_steps", None) else set()
            found |= {"use_ema"} if getattr(leaf, "use_ema", False) else set()
    return found


def rows_of_parts(batches: Sequence[Any]) -> dict[str, np.ndarray]:
    """The parts of some batches by name, one behind the other where their shapes allow it."""
    found: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        for name, part in named_parts(batch):
            array = as_numpy(part)
            known = found.setdefault(name, [])
            if array is not None and array.ndim and (not known or array.shape[1:] == known[0].shape[1:]):
                known.append(array)
    return {name: np.concatenate(arrays) for name, arrays in found.items() if arrays}
