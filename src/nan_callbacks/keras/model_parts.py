"""What a training step of a model works on: optimizers, variables, loss trackers."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import keras
from keras import ops


def optimizers_of(model: Any) -> list[Any]:
    """All optimizers that a model's step may call, the compiled one first; those inside another one left out."""
    found: dict[int, Any] = {}
    for value in [model.optimizer, *vars(model).values()]:
        members = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        for member in members:
            if isinstance(member, keras.optimizers.Optimizer):
                found.setdefault(id(member), member)
    inner = {id(leaf) for each in found.values() for leaf in leaf_optimizers(each) if leaf is not each}
    return [each for key, each in found.items() if key not in inner]


def leaf_optimizers(optimizer: Any) -> list[Any]:
    """The optimizers that hold learning rates: those inside wrappers, or the optimizer itself."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return leaf_optimizers(optimizer.inner_optimizer)
    members = getattr(optimizer, "optimizers", None)
    if isinstance(members, list | tuple):
        return [leaf for member in members for leaf in leaf_optimizers(member)]
    return [optimizer]


def scales_loss(optimizer: Any) -> bool:
    """Whether an optimizer is a dynamic loss scaler."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def has_stock_step(model: Any) -> bool:
    """Whether the model trains with Keras' own ``train_step``."""
    return type(model).train_step is keras.Model.train_step and "train_step" not in vars(model)


def state_of(model: Any) -> list[Any]:
    """Variables that a step may write beside its updates: running statistics, seeds, and whatever custom code keeps.

    Keras' own step never writes the variables of frozen layers, so that copies of a frozen backbone are spared. A
    custom step may write weights by hand, those of an average that follows the others and those that it trains
    (sharpness-aware minimisation climbs and comes back), which replicas of a distributed model may not.
    """
    frozen: set[int] = set()
    by_hand: list[Any] = []
    if has_stock_step(model):
        for layer in model._flatten_layers(include_self=True, recursive=True):
            if not layer.trainable:
                frozen.update(id(variable) for variable in layer.variables)
    elif getattr(model, "_distribute_strategy", None) is None:
        by_hand = model.trainable_variables
    own = [variable for variable in model.non_trainable_variables if id(variable) not in frozen]
    return unique([*own, *by_hand, *recurrent_states(model), *global_seed()])


def recurrent_states(model: Any) -> list[Any]:
    """States of stateful recurrent layers: Keras counts them among no model's variables, and steps write them.

    On JAX they do not: what a compiled step assigns to them is lost.
    """
    if keras.backend.backend() == "jax":
        return []
    layers = model._flatten_layers(include_self=False, recursive=True)
    # No look at `states` of other layers: it may be a property of their own that raises an error.
    stateful = [layer for layer in layers if isinstance(layer, keras.layers.RNN) or getattr(layer, "stateful", False)]
    held: list[Any] = []
    for layer in stateful:
        with suppress(Exception):
            held += keras.tree.flatten(getattr(layer, "states", None))
    return unique([each for each in held if isinstance(each, keras.Variable)])


def running_variances(model: Any) -> list[Any]:
    """Running variances of the trainable normalisation layers."""
    layers = model._flatten_layers(include_self=False, recursive=True)
    return [
        layer.moving_variance
        for layer in layers
        if isinstance(layer, keras.layers.BatchNormalization) and layer.built and layer.trainable
    ]


def loss_trackers(model: Any) -> list[Any]:
    """Running means that are fed the raw loss of each batch: Keras' own, and those that custom steps name "loss"."""
    own = getattr(model, "_loss_tracker", None)
    named = [metric for metric in model.metrics if isinstance(metric, keras.metrics.Mean) and metric.name == "loss"]
    return unique([each for each in (own, *named) if each is not None])


def global_seed() -> list[Any]:
    """State of the seed generator behind unseeded ``keras.random`` calls, if there is one."""
    try:
        from keras.src.backend.common import global_state

        generator = global_state.get_global_attribute("global_seed_generator")
    except ImportError:
        return []
    return [] if generator is None else [generator.state]


def seed_states(model: Any) -> list[Any]:
    """States of all seed generators that a model's step may draw from."""
    layers = model._flatten_layers(include_self=True, recursive=True)
    generators = [generator for layer in layers for generator in getattr(layer, "_seed_generators", ())]
    return unique([*(generator.state for generator in generators), *global_seed()])


def forget_global_seed() -> None:
    """Let Keras make its generator for unseeded draws anew when it is next needed."""
    with suppress(ImportError):
        from keras.src.backend.common import global_state

        global_state.set_global_attribute("global_seed_generator", None)


def learning_rate_variables(optimizers: list[Any]) -> set[int]:
    """``id`` of the variables that hold learning rates which other callbacks assign."""
    leaves = [leaf for optimizer in optimizers for leaf in leaf_optimizers(optimizer)]
    held = [getattr(leaf, "_learning_rate", None) for leaf in leaves]
    return {id(variable) for variable in held if isinstance(variable, keras.Variable)}


def metrics_result(model: Any, logs: Any) -> Any:
    """The logs of a step, computed anew from the metrics; the logs themselves if they are something else."""
    result = model.get_metrics_result()
    return result if isinstance(logs, dict) and set(result) == set(logs) else logs


def is_finite(value: Any) -> bool:
    """Whether a logged value is a finite number."""
    try:
        return bool(ops.convert_to_numpy(ops.all(ops.isfinite(value))))
    except (TypeError, ValueError):
        return True


def unique(items: list[Any]) -> list[Any]:
    """Each object once, in order."""
    return list({id(item): item for item in items}.values())


def obstacle_of(model: Any) -> str:
    """Why a model has no laboratory; empty if it has one."""
    if keras.distribution.distribution() is not None or getattr(model, "_distribute_strategy", None) is not None:
        return "the model is distributed over several devices"
    return ""
