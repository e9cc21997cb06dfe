"""What goes into and comes out of every layer of a Keras model, once, as arrays."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from nan_callbacks.keras.lab import KerasLab
from nan_callbacks.keras.lab_hands import ModelRaised, Unsupported
from nan_callbacks.keras.lab_layers import leaves_of
from nan_callbacks.keras.patches import Patches


@dataclass(frozen=True, eq=False)
class Passage:
    """One layer's first call."""

    layer: Any
    received: np.ndarray
    returned: np.ndarray


@dataclass(frozen=True)
class Passages:
    """One forward pass."""

    layers: tuple[Passage, ...] = ()
    """In the order of the calls."""
    outputs: tuple[np.ndarray, ...] = ()
    """Of the model, in the order of its structure; none if it raised an error."""
    raised: str = ""


class PassageProbe:
    """Watches the first call of every leaf layer; see :class:`nan_callbacks.keras.lab_hands.Probe`.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        self.layers: list[Any] = []
        self.seen: list[Any] = []
        self._patches = Patches()
        for layer in leaves_of(model):
            self._patches.plan(layer, "call", self._watched(layer))

    @contextmanager
    def watching(self) -> Iterator[list[Any]]:
        """Inside, what goes into and comes out of each layer is added to the list."""
        self.layers.clear()
        self.seen = []
        with self._patches.applied():
            yield self.seen

    def _watched(self, layer: Any) -> Callable[..., Any]:
        original = layer.call

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            output = original(*args, **kwargs)
            received, returned = _first((args, kwargs)), _first(output)
            is_new = all(layer is not each for each in self.layers)
            if is_new and received is not None and returned is not None:
                self.layers.append(layer)
                self.seen.extend((received, returned))
            return output

        return call


def passages_of(lab: KerasLab) -> Passages:
    """Run the lab's batch through the model once, in training mode, on copies of its state."""
    model, probe = lab.model, PassageProbe(lab.model)
    inputs = keras.utils.unpack_x_y_sample_weight(lab.failed_batch)[0]
    training = {"training": True} if model._call_has_training_arg else {}
    counted: list[int] = []

    def call() -> None:
        tensors = keras.tree.map_structure(lambda part: part if part is None else ops.convert_to_tensor(part), inputs)
        outputs = keras.tree.flatten(model(tensors, **training))
        counted[:] = [len(outputs)]
        probe.seen.extend(outputs)

    try:
        arrays = lab.look(probe, call)
    except Unsupported as reason:
        return Passages(raised=str(reason))
    except ModelRaised as error:
        cause = error.__cause__
        return Passages(raised=f"{type(cause).__name__}: {cause}")
    end = len(arrays) - counted[0]
    pairs = zip(probe.layers, arrays[0:end:2], arrays[1:end:2], strict=True)
    return Passages(tuple(Passage(*each) for each in pairs), tuple(arrays[end:]))


def _first(value: Any) -> Any:
    for leaf in keras.tree.flatten(value):
        if getattr(leaf, "shape", None) is not None and getattr(leaf, "dtype", None) is not None:
            return leaf
    return None


def key_of(array: np.ndarray) -> tuple[int, int]:
    """By which the same values are known again, in whatever shape: a path through layers that change nothing."""
    return array.size, hash(np.ascontiguousarray(array, np.float32).tobytes())


def spread(array: np.ndarray) -> float | None:
    """Standard deviation over the rows around each unit's mean."""
    flat = array.reshape(len(array), -1).astype(np.float64) if array.ndim else array.reshape(1, 1)
    if not flat.size or not np.isfinite(flat).all():
        return None
    centred = flat - flat.mean(0) if len(flat) > 1 else flat
    return float(np.sqrt(np.square(centred).mean()))


def rms(array: np.ndarray) -> float:
    """Root mean square of the finite values."""
    finite = array[np.isfinite(array)].astype(np.float64)
    return math.sqrt(float(np.square(finite).mean())) if finite.size else 0.0
