"""Building a model on TensorFlow that only its own train step knows how to call."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def build_in_step(model: Any, batch: Any) -> None:
    """Trace the model's train step without running it: it builds what it uses, as it would in Keras' first trace.

    On TensorFlow Keras itself never calls a model with the inputs of a batch before its step does, which may hand it
    something else: a whole graph, say, of which the batch names some nodes.

    Args:
        model: A compiled model.
        batch: What its step will be handed.
    """

    @tf.autograph.experimental.do_not_convert
    def step(data: Any) -> Any:
        return model.train_step(data)

    tf.function(step).get_concrete_function(batch)
