"""What a compiled Keras model compares its outputs with, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from nan_callbacks.checkup.facts import LossFacts
from nan_callbacks.keras.checkup_probe import Passages, key_of
from nan_callbacks.keras.lab_layers import weight_of
from nan_callbacks.keras.model_parts import has_stock_step
from nan_callbacks.keras.replay_batch import named_parts

KINDS = {
    "sparse_categorical_crossentropy": "cross_entropy",
    "categorical_crossentropy": "soft_cross_entropy",
    "categorical_focal_crossentropy": "soft_cross_entropy",
    "binary_crossentropy": "binary_cross_entropy",
    "binary_focal_crossentropy": "binary_cross_entropy",
    "mean_squared_error": "squared_error",
    "mean_absolute_error": "absolute_error",
    "mean_squared_logarithmic_error": "unknown",
    "huber": "absolute_error",
    "log_cosh": "absolute_error",
    "poisson": "poisson",
    "kl_divergence": "kl_divergence",
    "cosine_similarity": "cosine",
    "hinge": "hinge",
    "squared_hinge": "hinge",
}
"""By the name of the function that a loss wraps."""

SEEN = frozenset(KINDS.values()) - {"unknown"}
"""Kinds of losses that are known to compare."""

OWN = "own loss"

TAKING_LOGITS = frozenset({"cross_entropy", "soft_cross_entropy", "binary_cross_entropy"})

ACTIVATIONS = {
    "softmax": "softmax", "sigmoid": "sigmoid", "tanh": "tanh", "relu": "relu", "softplus": "softplus",
    "exponential": "exp", "linear": "linear", "log_softmax": "log_softmax", "log_sigmoid": "log_sigmoid",
    "hard_sigmoid": "sigmoid", "hard_tanh": "tanh", "relu6": "relu",
}  # fmt: skip
"""Keras' names of activations, of functions and (in lower case) of layers."""


def losses_of(model: Any, batch: Any, passages: Passages, all_rows: dict[str, np.ndarray]) -> tuple[LossFacts, ...]:
    """The loss of each output.

    Args:
        model: The model.
        batch: The first batch.
        passages: Its way through the model.
        all_rows: Parts of the batch over all rows that were read, by name.
    """
    targets = [(name, part) for name, part in named_parts(batch) if name.partition("[")[0] == "y"]
    losses = compiled_losses(model) or _own_losses(model, len(targets))
    if not (len(targets) == len(passages.outputs) == len(losses)):
        return ()
    if len(losses) > 1:
        targets, losses = _in_order_of_outputs(model, targets, losses)
    made = []
    for (name, part), outputs, (output_name, loss) in zip(targets, passages.outputs, losses, strict=False):
        facts = _loss(loss, output_name, outputs, np.asarray(keras.ops.convert_to_numpy(part)), all_rows.get(name))
        if facts is not None:
            made.append(_with_activation(facts, passages, outputs))
    return tuple(made)


def _in_order_of_outputs(
    model: Any, targets: list[tuple[str, Any]], losses: list[tuple[str, Any]]
) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Targets and losses of several outputs in the order in which Keras flattens these, as it pairs them itself.

    By the output's key or place; targets in a dictionary beside outputs in a list by the outputs' names. Nothing of
    structures that are paired in another way.
    """
    flat = getattr(getattr(model, "_compile_loss", None), "_flat_losses", None) or ()
    paths = [tuple(each.path) for each in flat]
    if len(paths) != len(losses) or any(len(path) != 1 for path in paths):
        return (targets, losses) if not flat else ([], [])
    keys = [path[0] for path in paths]
    if len({type(key) for key in keys}) > 1:
        return [], []
    order = sorted(range(len(keys)), key=lambda index: keys[index])
    by_name = dict(targets)
    names = getattr(model, "output_names", None) or []
    found = []
    for place, index in enumerate(order):
        key = keys[index]
        by_output = f"y[{names[key]!r}]" if isinstance(key, int) and key < len(names) else f"y[{place}]"
        name = next((each for each in (f"y[{key!r}]", by_output) if each in by_name), None)
        if name is None:
            return [], []
        found.append((name, by_name[name]))
    return found, [losses[index] for index in order]


def compiled_losses(model: Any) -> list[tuple[str, Any]]:
    """Name of the output (empty if there is one only) and loss, in the order of the outputs."""
    flat = getattr(getattr(model, "_compile_loss", None), "_flat_losses", None)
    if flat:
        several = len(flat) > 1
        return [(str(each.name or "") if several else "", each.loss) for each in flat]
    return [("", each) for each in keras.tree.flatten(getattr(model, "loss", None)) if each is not None]


def _own_losses(model: Any, count: int) -> list[tuple[str, Any]]:
    """Of a model that computes its loss by itself, one nameless loss per target."""
    overridden = type(model).compute_loss is not keras.Model.compute_loss
    return [("", OWN)] * count if overridden or not has_stock_step(model) else []


def _loss(loss: Any, output: str, outputs: np.ndarray, target: np.ndarray, every: Any) -> LossFacts | None:
    function = getattr(loss, "fn", loss)
    settings: dict[str, Any] = getattr(loss, "_fn_kwargs", {})
    named = function if isinstance(function, str) else getattr(function, "__name__", "")
    kind = KINDS.get(named, "unknown")
    kind = "own" if loss == OWN or _takes_shapes_as_they_are(loss) else kind
    several = kind in ("cross_entropy", "soft_cross_entropy")
    ignored = settings.get("ignore_class")
    return LossFacts(
        kind=kind,
        from_logits=bool(settings.get("from_logits", False)) if kind in TAKING_LOGITS | {"poisson"} else None,
        predictions=outputs,
        targets=_shaped(target, outputs, kind),
        all_targets=None if every is None else _shaped(every, outputs, kind),
        class_axis=settings.get("axis", -1) if several and outputs.ndim > 1 else (0 if several else None),
        ignore_index=ignored if isinstance(ignored, int) else None,
        name=named + (f" of output '{output}'" if output else ""),
    )


def _takes_shapes_as_they_are(loss: Any) -> bool:
    """Whether Keras hands targets to a loss in the rank in which they came, as it does to subclasses of ``Loss``."""
    return isinstance(loss, keras.losses.Loss) and not hasattr(loss, "fn")


def _shaped(target: np.ndarray, outputs: np.ndarray, kind: str) -> np.ndarray:
    """As Keras brings targets to the rank of the outputs before it compares them."""
    if kind == "own":
        return target
    if kind == "cross_entropy":
        return target[..., 0] if target.ndim == outputs.ndim and target.shape[-1] == 1 else target
    if target.ndim == outputs.ndim - 1 and outputs.shape[-1] == 1:
        return target[..., None]
    return target


def _with_activation(facts: LossFacts, passages: Passages, outputs: np.ndarray) -> LossFacts:
    return replace(facts, activation=last_activation(passages, outputs))


def last_activation(passages: Passages, outputs: np.ndarray) -> str:
    """Neutral name of what made an output; ``linear`` for weights without activation; empty if unknown."""
    key = key_of(outputs)
    for passage in reversed(passages.layers):
        if key_of(passage.returned) != key or key_of(passage.received) == key:
            continue
        return _activation(passage.layer)
    return ""


def _activation(layer: Any) -> str:
    named = getattr(getattr(layer, "activation", None), "__name__", "")
    kind = type(layer).__name__.lower()
    known = ACTIVATIONS.get(named) or ACTIVATIONS.get(kind)
    if known:
        return known
    has_weights = weight_of(layer, list(getattr(layer, "trainable_variables", []))) is not None
    return "linear" if has_weights and not named and type(layer).__module__.startswith("keras.") else ""


def names_of(losses: Sequence[tuple[str, Any]]) -> set[str]:
    """Classes and functions of losses, for known issues."""
    found = set()
    for _, loss in losses:
        found.add(type(loss).__name__)
        settings = getattr(loss, "_fn_kwargs", {})
        if settings.get("label_smoothing"):
            found.add(f"{type(loss).__name__}:label_smoothing")
    return found
