"""What the layers of a model do with one batch: activations, weights, gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from nan_callbacks.diagnosis.evidence import LayerEvidence
from nan_callbacks.keras.lab_batch import is_floating
from nan_callbacks.keras.model_parts import unique
from nan_callbacks.keras.patches import Patches
from nan_callbacks.keras.replay_layers import place_of

BOUNDED: dict[str, tuple[float, float]] = {
    "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "hard_sigmoid": (0.0, 1.0), "hard_tanh": (-1.0, 1.0),
}  # fmt: skip
"""Activations with two bounds."""

RECTIFIERS = frozenset({"relu", "relu6"})
"""Activations that are exactly zero for negative inputs."""

SATURATED_WITHIN = 0.01
"""Of the distance between the bounds; what :attr:`.LayerEvidence.saturated_share` says."""

MOST_VALUES = 1 << 20
"""Values looked at per tensor, evenly spaced: a standard deviation of more is none the better."""


class LayerProbe:
    """Watches the layers without layers inside, the recurrent ones, and activations in a functional graph.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        self.layers: list[Any] = []
        """What was called, in order; of one that is called repeatedly, only the first call."""
        self.seen: list[Any] = []
        """What was noted of them, in the same order."""
        self._patches = Patches()
        for layer in leaves_of(model):
            self._patches.plan(layer, "call", self._watched(layer))

    @contextmanager
    def watching(self) -> Iterator[list[Any]]:
        """Inside, what is noted of every watched layer is added to the list."""
        self.layers.clear()
        self.seen = []
        with self._patches.applied():
            yield self.seen

    def noted(self, arguments: Any, output: Any) -> tuple[Any, ...]:
        """The tensors to note of a layer's call; none: the call does not count."""
        first = output[0] if isinstance(output, list | tuple) and output else output
        return (first,) if is_floating(first) else ()

    def _watched(self, layer: Any) -> Callable[..., Any]:
        original = layer.call

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            output = original(*args, **kwargs)
            if all(layer is not each for each in self.layers):
                noted = self.noted((args, kwargs), output)
                self.seen.extend(noted)
                self.layers.extend([layer] if noted else [])
            return output

        return call


def forward(model: Any, inputs: Any) -> Any:
    """Call a model as its training step does."""
    tensors = keras.tree.map_structure(lambda part: part if part is None else ops.convert_to_tensor(part), inputs)
    training = {"training": True} if model._call_has_training_arg else {}
    return model(tensors, **training)


def leaves_of(model: Any) -> list[Any]:
    """Layers without layers inside, the recurrent ones, and activations in a functional graph."""
    layers = list(model._flatten_layers(include_self=True, recursive=True))
    recurrent = [layer for layer in layers if isinstance(layer, keras.layers.RNN)]
    inside = {id(each) for layer in recurrent for each in layer._flatten_layers(include_self=False, recursive=True)}
    own = [layer for layer in layers if layer in recurrent or not getattr(layer, "_layers", None)]
    nodes = [node for layer in layers for node in getattr(layer, "operations", None) or []]
    activations = [node for node in nodes if not isinstance(node, keras.layers.Layer) and activation_of(node)]
    skipped = (keras.layers.InputLayer,)
    chosen = [each for each in own if id(each) not in inside and not isinstance(each, skipped) and each is not model]
    return unique([*chosen, *activations])


def activation_of(layer: Any) -> str:
    """Name of the activation that a layer ends with; empty if there is none that has bounds or a dead side."""
    named = getattr(getattr(layer, "activation", None), "__name__", "")
    kind = type(layer).__name__.lower()
    return next((name for name in (named, kind) if name in BOUNDED or name in RECTIFIERS), "")


def evidence_of(
    layers: Sequence[Any], outputs: Sequence[np.ndarray], gradients: Mapping[str, float]
) -> tuple[LayerEvidence, ...]:
    """The measurements.

    Args:
        layers: In the order of the forward pass.
        outputs: Of each layer, float32.
        gradients: Norm of the gradient of each variable, by path.
    """
    return tuple(_evidence(layer, output, gradients) for layer, output in zip(layers, outputs, strict=True))


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
        grad_norm=math.hypot(*norms) if norms else None,
    )


def weight_of(layer: Any, variables: list[Any]) -> np.ndarray | None:
    """The first matrix of a layer that multiplies its input; an embedding's only looks its rows up."""
    if isinstance(layer, keras.layers.Embedding):
        return None
    matrices = [v for v in variables if len(v.shape) >= 2 and "bias" not in v.name]
    return np.asarray(ops.convert_to_numpy(ops.cast(matrices[0].value, "float32")), np.float64) if matrices else None


def shares_of(layer: Any, output: np.ndarray, finite: np.ndarray) -> tuple[float | None, float | None]:
    """Share of saturated outputs and of dead units; None where the layer's activation has none.

    Args:
        layer: The layer.
        output: What it returned.
        finite: The finite values of that, or some of them.
    """
    kind = activation_of(layer)
    if not finite.size:
        return None, None
    saturated = saturated_share(finite, BOUNDED[kind]) if kind in BOUNDED else None
    return saturated, dead_share(layer, output) if kind in RECTIFIERS and output.ndim > 1 else None


def saturated_share(values: np.ndarray, bounds: tuple[float, float]) -> float:
    """Share of values within 1 % of a bound."""
    low, high = bounds
    margin = SATURATED_WITHIN * (high - low)
    return float(((values < low + margin) | (values > high - margin)).mean())


def dead_share(layer: Any, output: np.ndarray) -> float:
    """Share of units that are zero for the whole batch."""
    axis = 1 if getattr(layer, "data_format", "") == "channels_first" else output.ndim - 1
    alive = np.moveaxis(output != 0, axis, -1).reshape(-1, output.shape[axis]).any(axis=0)
    return float((~alive).mean())
