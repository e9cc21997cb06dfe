"""What a replay must not change: variables, and the random streams of Python and numpy."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nan_callbacks.keras.model_parts import (
    forget_global_seed,
    global_seed,
    optimizers_of,
    recurrent_states,
    unique,
)

BYSTANDERS = frozenset({"IPython", "debugpy", "ipykernel", "pydevd", "rich", "tensorboard", "tqdm", "wandb", "zmq"})
"""Packages whose threads do not draw random numbers."""


def all_variables(model: Any) -> list[Any]:
    """Every Keras variable that a step of a model may write."""
    moments = [variable for optimizer in optimizers_of(model) for variable in optimizer.variables]
    return unique([*model.variables, *recurrent_states(model), *moments, *model.metrics_variables, *global_seed()])


@contextmanager
def python_streams_kept() -> Iterator[None]:
    """Python's and numpy's global random streams stand after the block where they stood before.

    Keras' generator for unseeded draws is forgotten if it came into being inside: the next draw makes the same again.
    While threads are alive which may be those that load the data, the streams are theirs as well, and are left alone:
    what is drawn inside the block, hardly ever anything, is then missing from them.
    """
    before, unborn = (random.getstate(), np.random.get_state()), not global_seed()  # noqa: NPY002
    try:
        yield
    finally:
        if unborn:
            forget_global_seed()
        if not any(map(_may_draw, threading.enumerate())):
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002


def _may_draw(thread: threading.Thread) -> bool:
    """Whether a thread may load data: it is not this one, nor one that shows progress, or serves a notebook."""
    if thread is threading.current_thread():
        return False
    homes = (type(thread).__module__, getattr(getattr(thread, "_target", None), "__module__", None) or "")
    return not any(home.partition(".")[0] in BYSTANDERS for home in homes)


@contextmanager
def layer_losses_kept(model: Any) -> Iterator[None]:
    """Losses that layers have added stay those of the last real step."""
    layers = [layer for layer in model._flatten_layers(include_self=True, recursive=True) if hasattr(layer, "_losses")]
    before = [list(layer._losses) for layer in layers]
    try:
        yield
    finally:
        for layer, losses in zip(layers, before, strict=True):
            layer._losses[:] = losses
