"""TensorFlow's own variables that layers hold beside those of Keras, such as the queue of a contrastive loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@dataclass(frozen=True, eq=False)
class PlainVariable:
    """One of them, to be handled like a variable of Keras."""

    value: tf.Variable


def plain_variables(model: Any) -> list[PlainVariable]:
    """Those of a model, each once; none of a model on several devices, whose replicas may not put them back.

    Keras lists them nowhere. Of varying shape they are left out: the old and the new value fit no selection.

    Args:
        model: The model.
    """
    if getattr(model, "_distribute_strategy", None) is not None:
        return []
    layers = model._flatten_layers(include_self=True, recursive=True)
    held = {id(each): each for layer in layers for each in vars(layer).values() if isinstance(each, tf.Variable)}
    return [PlainVariable(each) for each in held.values() if each.shape.is_fully_defined()]
