"""Which layer is running: the calls of a model's layers, kept on a stack while a step is replayed."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras

from nan_callbacks.keras.model_parts import unique
from nan_callbacks.keras.patches import Patches
from nan_callbacks.keras.replay_source import is_user_file


@dataclass(frozen=True)
class Place:
    """A layer by name."""

    path: str = ""
    kind: str = ""
    is_custom: bool = False
    is_recurrent: bool = False
    """Whether this layer, or one around it, is recurrent."""


OUTSIDE = Place()
"""Outside of all layers."""


class LayerStack:
    """Knows the innermost running layer (or operation of a functional graph) of a model.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        self._stack: list[Place] = [OUTSIDE]
        self._patches = Patches()
        self.on_failure = OUTSIDE
        """Innermost layer that an error left."""
        self._failed = False
        for each in _callables(model):
            self._patches.plan(each, "call", self._watched(each))

    @property
    def top(self) -> Place:
        """The innermost running layer."""
        return self._stack[-1]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Calls are followed inside the block."""
        with self._patches.applied():
            yield

    def _watched(self, layer: Any) -> Callable[..., Any]:
        original = layer.call

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._stack.append(place_of(layer, self.top))
            try:
                return original(*args, **kwargs)
            except BaseException:
                if not self._failed:
                    self.on_failure, self._failed = self.top, True
                raise
            finally:
                self._stack.pop()

        return call


def owner_of(model: Any, variable: Any) -> Place:
    """The layer that holds a variable."""
    for layer in model._flatten_layers(include_self=True, recursive=True):
        if any(variable is each for each in getattr(layer, "_trainable_variables", [])) or any(
            variable is each for each in getattr(layer, "_non_trainable_variables", [])
        ):
            return place_of(layer, OUTSIDE)
    return OUTSIDE


def _callables(model: Any) -> list[Any]:
    layers = list(model._flatten_layers(include_self=True, recursive=True))
    nodes = [node for layer in layers for node in getattr(layer, "operations", None) or []]
    return [each for each in unique([*layers, *nodes]) if hasattr(each, "__dict__")]


def place_of(layer: Any, around: Place = OUTSIDE) -> Place:
    """A layer by name, called inside of another one."""
    kind = type(layer)
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return Place(
        path=getattr(layer, "path", None) or layer.name,
        kind=kind.__name__,
        is_custom=kind.__module__ == "__main__" if file is None else is_user_file(file),
        is_recurrent=around.is_recurrent or isinstance(layer, keras.layers.RNN),
    )
