"""What goes into and comes out of every layer of a Keras model, once, as arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from nan_callbacks.keras.lab import KerasLab
from nan_callbacks.keras.lab_batch import dtype_of
from nan_callbacks.keras.lab_hands import ModelRaised, Unsupported
from nan_callbacks.keras.layer_probe import LayerProbe, forward
from nan_callbacks.keras.replay_result import message_of
from nan_callbacks.keras.table_probe import Asked, asked_of_tables

NUMBERS = ("float", "bfloat", "int", "uint", "bool")
"""What the names of numeric dtypes begin with."""


@dataclass(frozen=True, eq=False)
class Passage:
    """One layer's first call."""

    layer: Any
    received: np.ndarray
    returned: np.ndarray
    fed: tuple[np.ndarray, ...] = ()
    """What :func:`.gates_of` needs of a recurrent layer."""


@dataclass(frozen=True)
class Passages:
    """One forward pass."""

    layers: tuple[Passage, ...] = ()
    """In the order of the calls."""
    outputs: tuple[np.ndarray, ...] = ()
    """Of the model, in the order of its structure; none if it raised an error."""
    raised: str = ""
    asked: Asked = ()
    """What the model's tables were asked for."""


class PassageProbe(LayerProbe):
    """Notes what goes into and comes out of every leaf layer, and the model's outputs.

    Args:
        model: The model.
    """

    each = 2

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._model = model
        self._outputs = 0

    def noted(self, arguments: Any, output: Any) -> tuple[Any, ...]:
        """The first tensor on either side, of whatever dtype."""
        pair = (_first(arguments), _first(output))
        return () if any(each is None for each in pair) else pair

    def call(self, inputs: Any) -> None:
        """Call the model; inside of :meth:`watching`."""
        outputs = keras.tree.flatten(forward(self._model, inputs))
        self._outputs = len(outputs)
        self.seen.extend(outputs)

    def passages(self, arrays: Sequence[np.ndarray]) -> Passages:
        """What was noted, as arrays, in the order of the layers."""
        end = len(arrays) - self._outputs
        noted = self.by_layer(arrays[:end])
        asked = ((each.layer, each.tensors[0]) for each in noted if isinstance(each.layer, keras.layers.Embedding))
        return Passages(
            tuple(Passage(each.layer, each.tensors[0], each.tensors[1], each.fed) for each in noted),
            tuple(arrays[end:]),
            asked=tuple(asked),
        )


def passages_of(lab: KerasLab) -> Passages:
    """Run the lab's batch through the model once, in training mode, on copies of its state."""
    probe = PassageProbe(lab.model)
    inputs = keras.utils.unpack_x_y_sample_weight(lab.failed_batch)[0]
    try:
        return probe.passages(lab.look(probe, lambda: probe.call(inputs)))
    except Unsupported as reason:
        return Passages(raised=str(reason))
    except ModelRaised as error:
        cause = error.__cause__
        return Passages(raised=f"{type(cause).__name__}: {message_of(cause)}", asked=asked_of_tables(lab))


def _first(value: Any) -> Any:
    """The first tensor of numbers: text, which a layer may take, is none."""
    for leaf in keras.tree.flatten(value):
        if getattr(leaf, "shape", None) is not None and dtype_of(leaf).startswith(NUMBERS):
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
