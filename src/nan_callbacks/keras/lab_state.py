"""Trials leave nothing behind: dtype policies, Python attributes and random streams are put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from nan_callbacks.diagnosis.kept_arrays import KeptArrays
from nan_callbacks.keras.model_parts import optimizers_of, unique
from nan_callbacks.keras.patches import Patches


def variable_groups_of_step(model: Any) -> tuple[list[Any], ...]:
    """The variables in the order of the state that JAX training hands around."""
    moments = model.optimizer.variables if model.optimizer is not None else []
    groups = (model.trainable_variables, model.non_trainable_variables, moments, model.metrics_variables)
    return tuple(list(group) for group in groups)


@contextmanager
def attributes_kept(model: Any) -> Iterator[None]:
    """Attributes of layers, losses, metrics and optimizers, what they hold, and their own random streams are put back.

    What a step counts or appends in Python happens once per compilation in a real run; in a laboratory at every trial.
    """
    layers = list(model._flatten_layers(include_self=True, recursive=True))
    parts = unique([*layers, *model.metrics, *optimizers_of(model), *loss_objects(model)])
    owners = [each for each in parts if hasattr(each, "__dict__")]
    attributes = [(vars(owner), dict(vars(owner))) for owner in owners]
    values = [value for _, before in attributes for value in before.values() if isinstance(value, list | dict | set)]
    held = unique([_contents(value) for value in values])
    contents = [(container, _copied(container)) for container in held]
    everything = [value for _, before in attributes for value in before.values()]
    streams = unique([each for each in everything if isinstance(each, np.random.Generator)])
    drawn = [(stream, stream.bit_generator.state) for stream in streams]
    arrays = KeptArrays()
    for each in everything:
        arrays.keep(each)
    try:
        yield
    finally:
        for stream, state in drawn:
            stream.bit_generator.state = state
        arrays.restore()
        for namespace, before in attributes:
            if namespace.keys() != before.keys() or any(namespace[key] is not before[key] for key in before):
                namespace.clear()
                namespace.update(before)
        for container, before in contents:
            _refill(container, before)


def loss_objects(model: Any) -> list[Any]:
    """The losses of a compiled model, which may count or anneal by themselves."""
    flat = getattr(getattr(model, "_compile_loss", None), "_flat_losses", None) or ()
    named = [*(each.loss for each in flat), *keras.tree.flatten(getattr(model, "loss", None))]
    return unique([each for each in named if isinstance(each, keras.losses.Loss)])


def _contents(container: Any) -> Any:
    """The container itself, or the one that TensorFlow's wrapper around it keeps."""
    storage = getattr(container, "_storage", None)
    return storage if isinstance(storage, list) else getattr(container, "__wrapped__", container)


def _copied(container: Any) -> Any:
    # The built-in classes' own methods: Keras' tracking containers would register what is put into them.
    if isinstance(container, list):
        return list.copy(container)
    return dict.copy(container) if isinstance(container, dict) else set.copy(container)


def _refill(container: Any, before: Any) -> None:
    if isinstance(container, list):
        if len(container) != len(before) or any(a is not b for a, b in zip(container, before, strict=True)):
            list.__setitem__(container, slice(None), before)
    elif isinstance(container, dict):
        if list(container) != list(before) or any(container[key] is not before[key] for key in before):
            dict.clear(container)
            dict.update(container, before)
    elif container != before:
        set.clear(container)
        set.update(container, before)


@contextmanager
def computing_in(model: Any, dtype: str) -> Iterator[None]:
    """Layers, losses and metrics of a model compute in a dtype.

    Args:
        model: The model.
        dtype: ``float32`` or ``float64``.
    """
    policy = keras.dtype_policies.DTypePolicy(dtype)
    patches = Patches()
    for each in model._flatten_layers(include_self=True, recursive=True):
        if "_dtype_policy" in vars(each):
            patches.plan(each, "_dtype_policy", policy)
    for each in _reducers(model):
        patches.plan(each, "_dtype_policy", policy)
        patches.plan(each, "_dtype", dtype)
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(policy)
    try:
        with patches.applied():
            yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


def _reducers(model: Any) -> list[Any]:
    """Losses and metrics, those inside of others included."""
    found: list[Any] = []
    waiting = [getattr(model, "_compile_loss", None), getattr(model, "_compile_metrics", None), *model.metrics]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list | tuple):
            waiting += each
        elif isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, keras.losses.Loss | keras.metrics.Metric) and all(each is not one for one in found):
            found.append(each)
            waiting += [value for value in vars(each).values() if isinstance(value, list | tuple | dict)]
            waiting += [v for v in vars(each).values() if isinstance(v, keras.losses.Loss | keras.metrics.Metric)]
    return [each for each in found if "_dtype" in vars(each)]
