"""What goes into and comes out of the layers of a model while it is called."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from nan_callbacks.keras.activations import activation_of
from nan_callbacks.keras.gates import fed_to
from nan_callbacks.keras.lab_batch import is_floating
from nan_callbacks.keras.model_parts import unique
from nan_callbacks.keras.patches import Patches


@dataclass(frozen=True, eq=False)
class Noted:
    """One layer's first call, as arrays."""

    layer: Any
    tensors: tuple[np.ndarray, ...]
    fed: tuple[np.ndarray, ...] = ()
    """What :func:`.gates_of` needs of a recurrent layer."""


class LayerProbe:
    """Watches the layers without layers inside, the recurrent ones, and activations in a functional graph.

    Args:
        model: The model.
    """

    each = 1
    """Tensors that are noted of every layer."""

    def __init__(self, model: Any) -> None:
        self.layers: list[Any] = []
        """What was called, in order; of one that is called repeatedly, only the first call."""
        self.seen: list[Any] = []
        """What was noted of them, in the same order."""
        self._counts: list[int] = []
        """Of how many tensors that is, layer by layer."""
        self._patches = Patches()
        for layer in leaves_of(model):
            self._patches.plan(layer, "call", self._watched(layer))

    @contextmanager
    def watching(self) -> Iterator[list[Any]]:
        """Inside, what is noted of every watched layer is added to the list."""
        self.layers.clear()
        self._counts.clear()
        self.seen = []
        with self._patches.applied():
            yield self.seen

    def by_layer(self, arrays: Sequence[np.ndarray]) -> list[Noted]:
        """What was noted of each layer.

        Args:
            arrays: What was noted, as arrays; more may follow.
        """
        waiting = iter(arrays)
        found = []
        for layer, count in zip(self.layers, self._counts, strict=True):
            own = tuple(itertools.islice(waiting, count))
            found.append(Noted(layer, own[: self.each], own[self.each :]))
        return found

    def noted(self, arguments: Any, output: Any) -> tuple[Any, ...]:
        """The tensors to note of a layer's call; none: the call does not count."""
        first = output[0] if isinstance(output, list | tuple) and output else output
        return (first,) if is_floating(first) else ()

    def _watched(self, layer: Any) -> Callable[..., Any]:
        original = layer.call

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            is_first = all(layer is not each for each in self.layers)
            fed = fed_to(layer, args, kwargs) if is_first else ()
            output = original(*args, **kwargs)
            noted = self.noted((args, kwargs), output) if is_first else ()
            if noted:
                self.seen.extend([*noted, *fed])
                self.layers.append(layer)
                self._counts.append(len(noted) + len(fed))
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
