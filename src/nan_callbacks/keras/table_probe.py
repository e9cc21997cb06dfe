"""What the embeddings of a Keras model are asked for, even where a look-up of what they do not have ends the step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from nan_callbacks.keras.lab import KerasLab
from nan_callbacks.keras.lab_hands import ModelRaised, Unsupported
from nan_callbacks.keras.layer_probe import LayerProbe, forward, leaves_of

Asked = tuple[tuple[Any, np.ndarray], ...]
"""Embeddings and the indices that they received, call by call."""


class TableProbe(LayerProbe):
    """Notes the indices of every look-up, and looks up only what there is, so that the forward pass goes on."""

    each = 1

    def _watched(self, layer: Any) -> Callable[..., Any]:
        original = layer.call
        if not isinstance(layer, keras.layers.Embedding):
            watched: Callable[..., Any] = original
            return watched

        @functools.wraps(original)
        def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            self.seen.append(ops.convert_to_tensor(inputs))
            self.layers.append(layer)
            self._counts.append(1)
            known = ops.clip(ops.cast(inputs, "int32"), 0, layer.input_dim - 1)
            return original(known, *args, **kwargs)

        return call

    def asked(self, arrays: Sequence[np.ndarray]) -> Asked:
        """What was noted, as arrays."""
        return tuple((each.layer, each.tensors[0]) for each in self.by_layer(arrays))


def asked_of_tables(lab: KerasLab) -> Asked:
    """Run the lab's batch through the model once more, for its tables alone.

    Args:
        lab: A step whose forward pass raises an error.
    """
    if not any(isinstance(each, keras.layers.Embedding) for each in leaves_of(lab.model)):
        return ()
    inputs = keras.utils.unpack_x_y_sample_weight(lab.failed_batch)[0]
    probe = TableProbe(lab.model)
    try:
        return probe.asked(lab.look(probe, lambda: forward(lab.model, inputs)))
    except (ModelRaised, Unsupported):
        return ()
