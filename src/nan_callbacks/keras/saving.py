"""Keras variables and batches on their way into a saved step, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from nan_callbacks.diagnosis.saved_step import SavedStep, StoredArray, map_leaves, write_step
from nan_callbacks.keras.lab_batch import as_numpy, dtype_of
from nan_callbacks.keras.lab_state import variable_groups_of_step
from nan_callbacks.keras.model_parts import unique

MOST_RECENT_SAVED = 4
"""Recent batches in a saved step: enough for a usual range, without making the folder much larger."""


def save_incident(
    folder: Path,
    *,
    model: Any,
    failed: Any,
    recent: Sequence[Any] = (),
    state: Any = None,
    about: Mapping[str, Any],
) -> None:
    """Write a failed step of a Keras model down.

    Args:
        folder: Where to.
        model: With the weights that it had before the step.
        failed: Its batch.
        recent: Batches of accepted steps, oldest first.
        state: JAX only: what ``fit`` hands around while the model's variables hold nothing.
        about: Facts, plain JSON.
    """
    live: dict[int, Any] = {}
    for variables, values in zip(variable_groups_of_step(model), state or (), strict=False):
        live.update({id(variable): value for variable, value in zip(variables, values, strict=True)})
    weights = {
        f"{index:04d} {variable.path}": _stored(_value(variable, live))
        for index, variable in enumerate(_weights(model))
    }
    facts = {
        **about,
        "framework": "keras",
        "backend": keras.backend.backend(),
        "model": type(model).__qualname__,
        "keras": keras.version(),
    }
    write_step(
        folder,
        SavedStep(
            batches=[stored(failed)],
            recent=[stored(batch) for batch in recent[-MOST_RECENT_SAVED:]],
            batch_indices=[int(about.get("batch_index") or 0)],
            weights=weights,
            facts=facts,
        ),
    )


def load_weights(model: Any, step: SavedStep) -> None:
    """Give a model the weights of a saved step; they are matched by their order, as names may be numbered anew.

    Args:
        model: Of the same structure as the saved one, built.
        step: The saved step.

    Raises:
        ValueError: If shapes differ: which ones.
    """
    weights, saved = _weights(model), [step.weights[name] for name in sorted(step.weights)]
    if len(weights) != len(saved):
        raise ValueError(
            f"expected a model with {len(saved)} variables as saved, received one with {len(weights)}; build it with "
            "the same arguments."
        )
    for variable, array in zip(weights, saved, strict=True):
        if tuple(variable.shape) != array.values.shape:
            raise ValueError(
                f"expected {variable.path} of shape {list(array.values.shape)} as saved, received "
                f"{list(variable.shape)}; build the model with the same arguments."
            )
    for variable, array in zip(weights, saved, strict=True):
        variable.assign(tensor_of(array))


def batches_of(step: SavedStep) -> tuple[Any, list[Any]]:
    """The failed batch and the recent ones, as tensors."""
    return map_leaves(step.batches[0], tensor_of), [map_leaves(batch, tensor_of) for batch in step.recent]


def stored(batch: Any) -> Any:
    """A batch with its parts ready to be written."""
    return keras.tree.map_structure(lambda part: _stored(part) if hasattr(part, "dtype") else part, batch)


def tensor_of(array: StoredArray) -> Any:
    """The tensor again."""
    return ops.convert_to_tensor(array.values, array.dtype)


def _stored(part: Any) -> Any:
    # float32 holds bfloat16 and float8 exactly.
    values = as_numpy(part)
    return part if values is None else StoredArray(np.array(values), dtype_of(part))


def _value(variable: Any, live: Mapping[int, Any]) -> Any:
    known = live.get(id(variable))
    return variable.value if known is None else known  # while `fit` runs on JAX, variables have none to be asked for


def _weights(model: Any) -> list[Any]:
    """Weights, running statistics and seeds; no metrics."""
    metrics = {id(variable) for variable in model.metrics_variables}
    return [variable for variable in unique(list(model.variables)) if id(variable) not in metrics]
