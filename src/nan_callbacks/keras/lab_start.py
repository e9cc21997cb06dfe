"""States that a trial begins with: the last good snapshot, and fresh weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from nan_callbacks.diagnosis.lab import Start
from nan_callbacks.keras.backend import Backend
from nan_callbacks.keras.lab_state import variable_groups_of_step
from nan_callbacks.keras.model_parts import (
    global_seed,
    leaf_optimizers,
    learning_rate_variables,
    optimizers_of,
    recurrent_states,
    unique,
)

RECTIFIERS = ("relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "swish", "mish", "softplus")
"""Activations after which about half of the signal is left: He et al. 2015."""

ONES = ("gamma", "scale", "weight", "moving_variance")
"""Vectors that multiply, by name; others add."""


def values_in_slot(model: Any, backend: Backend, slot: int) -> dict[int, Any]:
    """What a snapshot of a fit holds, by ``id`` of the variable; learning rates left out.

    Args:
        model: The model.
        backend: Its guarded step.
        slot: Of the snapshot.
    """
    snapshot, optimizers = backend.slots[slot], optimizers_of(model)
    groups = getattr(backend, "groups", None)
    if groups is not None:
        variables = groups.all
    else:  # JAX: the groups of its state, then the global seed
        known = variable_groups_of_step(model)
        seeds = [each for each in global_seed() if all(each is not one for one in known[1])]
        variables = [variable for group in (*known, seeds) for variable in group]
    rates = learning_rate_variables(optimizers)
    values = tree.flatten(snapshot.values)
    return {id(v): value for v, value in zip(variables, values, strict=True) if id(v) not in rates}


def begin_with(model: Any, values: Mapping[int, Any], *, start: Start = Start.SNAPSHOT) -> None:
    """Fill the stand-ins from a snapshot; what it does not hold stays as it is.

    Args:
        model: The model.
        values: Of the snapshot, by ``id`` of the variable.
        start: What is filled: all of it, the trained variables alone, or these and the optimizers.
    """
    moments = [variable for optimizer in optimizers_of(model) for variable in optimizer.variables]
    filled = {
        Start.WEIGHTS: list(model.trainable_variables),
        Start.TRAINED: [*model.trainable_variables, *moments],
    }
    everything = [*model.variables, *recurrent_states(model), *moments, *global_seed()]
    for variable in unique(filled.get(start, everything)):
        if id(variable) in values:
            variable.assign(values[id(variable)])


def course_of_rate(model: Any) -> Callable[[int], float]:
    """The largest learning rate of a model's optimizers, by the number of updates from now on; 0 without any."""
    leaves = [leaf for each in optimizers_of(model) for leaf in leaf_optimizers(each)]
    if not leaves:
        return lambda updates: 0.0
    leader = max(leaves, key=lambda leaf: float(ops.convert_to_numpy(leaf.learning_rate)))
    schedule, made = leader._learning_rate, int(ops.convert_to_numpy(leader.iterations))
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return lambda updates: float(ops.convert_to_numpy(schedule(made + updates)))
    rate = float(ops.convert_to_numpy(leader.learning_rate))
    return lambda updates: rate


def begin_afresh(model: Any) -> None:
    """Newly drawn weights and empty optimizers.

    Not by the layers' own initialisers, which may be what is under suspicion: matrices are drawn from a normal
    distribution of variance 2 / fan-in before a rectifier (He et al. 2015) and 2 / (fan-in + fan-out) elsewhere
    (Glorot and Bengio 2010), recurrent ones orthogonal (Saxe et al. 2014), embeddings uniform within 0.05 (as Keras
    does it); a vector is 1 if its name says that it multiplies, 0 otherwise.

    Args:
        model: The model, whose variables are stand-ins.
    """
    generator = np.random.default_rng(0)
    drawn: set[int] = set()
    for layer in model._flatten_layers(include_self=True, recursive=True):
        own = [*getattr(layer, "_trainable_variables", []), *getattr(layer, "_non_trainable_variables", [])]
        for variable in own:
            if id(variable) in drawn or not keras.backend.is_float_dtype(variable._dtype):
                continue
            drawn.add(id(variable))
            if variable.trainable or variable.name.startswith("moving_"):
                variable.assign(_drawn(layer, variable, generator).astype("float32"))
    for optimizer in optimizers_of(model):
        _empty(optimizer, model)


def _drawn(layer: Any, variable: Any, generator: np.random.Generator) -> np.ndarray:
    shape, name = tuple(variable.shape), variable.name
    if len(shape) < 2 or "bias" in name or "beta" in name:
        return np.full(shape, 1.0 if any(word in name for word in ONES) else 0.0)
    if isinstance(layer, keras.layers.Embedding):
        return generator.uniform(-0.05, 0.05, shape)
    if name == "recurrent_kernel" and len(shape) == 2 and shape[1] % shape[0] == 0:
        blocks = [np.linalg.qr(generator.normal(size=(shape[0], shape[0])))[0] for _ in range(shape[1] // shape[0])]
        return np.concatenate(blocks, axis=1)
    field = math.prod(shape[:-2])
    fan_in, fan_out = shape[-2] * field, shape[-1] * field
    activation = getattr(getattr(layer, "activation", None), "__name__", "")
    variance = 2.0 / fan_in if activation in RECTIFIERS else 2.0 / (fan_in + fan_out)
    return generator.normal(0.0, math.sqrt(variance), shape)


def _empty(optimizer: Any, model: Any) -> None:
    """An optimizer as it is before its first step, with its present learning rate."""
    rates = learning_rate_variables([optimizer])
    starts = _first_values(optimizer, model)
    for index, variable in enumerate(optimizer.variables):
        if id(variable) in rates:
            continue
        start = starts[index] if index < len(starts) else None
        same = start is not None and tuple(start.shape) == tuple(variable.shape)
        variable.assign(start if same else np.zeros(tuple(variable.shape), "float32"))


def _first_values(optimizer: Any, model: Any) -> list[np.ndarray]:
    try:
        twin = type(optimizer).from_config(optimizer.get_config())
        twin.build(list(getattr(optimizer, "_trainable_variables", None) or model.trainable_variables))
        return [np.asarray(ops.convert_to_numpy(variable.value)) for variable in twin.variables]
    except Exception:  # a user's own optimizer may not be able to do this; most begin with zeros
        return []
