"""Cross-entropies that users call by themselves, in a loss, a ``compute_loss`` or a ``train_step`` of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import keras
import keras.src.ops as own_ops
import numpy as np

from nan_callbacks.checkup.facts import LossFacts
from nan_callbacks.diagnosis.lab import Variation
from nan_callbacks.keras.lab import KerasLab
from nan_callbacks.keras.lab_batch import as_numpy
from nan_callbacks.keras.layer_probe import forward
from nan_callbacks.keras.loss_facts import KINDS, SEEN
from nan_callbacks.keras.model_parts import has_stock_step
from nan_callbacks.keras.patches import Patches
from nan_callbacks.keras.replay_batch import named_parts

ENTROPIES = ("sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy")
"""Functions of ``keras.ops`` that all of Keras' cross-entropies end in."""

MOST_CALLS = 16
"""Calls of one step that are kept."""


def own_entropies(lab: KerasLab, known: Sequence[LossFacts], rows: Mapping[str, np.ndarray]) -> tuple[LossFacts, ...]:
    """What one step hands to Keras' cross-entropies, seen on copies of the state; empty if it cannot be seen.

    Args:
        lab: The step, held still.
        known: Losses that the compiled model told of. If all of them are Keras' own, there is nothing to be found.
        rows: Parts of the batch over all rows that were read, by name.
    """
    if known and all(loss.kind in SEEN for loss in known):
        return ()
    found: list[LossFacts] = []
    # What the model's code raises is told elsewhere; what was seen before it counts.
    with suppress(Exception), _noted(found):
        _step(lab)
    parts = [(rows.get(name), as_numpy(part)) for name, part in named_parts(lab.failed_batch)]
    return tuple(_with_all_rows(loss, parts) for loss in found)


def _with_all_rows(loss: LossFacts, parts: Sequence[tuple[Any, Any]]) -> LossFacts:
    """With the targets of all rows, if they are a part of the batch as it was fed."""
    for every, part in parts:
        same = every is not None and part.size == loss.targets.size
        if same and np.array_equal(part.reshape(-1), loss.targets.reshape(-1)):
            return replace(loss, all_targets=every.reshape(-1, *loss.targets.shape[1:]))
    return loss


def _step(lab: KerasLab) -> None:
    if keras.backend.backend() != "jax":
        lab.run_again(Variation())
    elif has_stock_step(lab.model):  # values that are being differentiated cannot be seen there
        x, y, weight = keras.utils.unpack_x_y_sample_weight(lab.failed_batch)
        lab.held_still_for(lambda: lab.model.compute_loss(x, y, forward(lab.model, x), weight))


@contextmanager
def _noted(found: list[LossFacts]) -> Iterator[None]:
    patches = Patches()
    for name in ENTROPIES:
        watched = _watched(name, getattr(own_ops, name), found)
        for module in (own_ops, keras.ops):
            patches.plan(module, name, watched)
    with patches.applied():
        yield


def _watched(name: str, original: Callable[..., Any], found: list[LossFacts]) -> Callable[..., Any]:
    def entropy(target: Any, output: Any, from_logits: bool = False, axis: int = -1, **more: Any) -> Any:
        if len(found) < MOST_CALLS:
            found.extend(_facts(name, target, output, bool(from_logits), axis))
        options = {} if name == "binary_crossentropy" else {"axis": axis}
        return original(target, output, from_logits=from_logits, **options, **more)

    return entropy


def _facts(name: str, target: Any, output: Any, from_logits: bool, axis: int) -> Iterator[LossFacts]:
    try:
        targets, predictions = (np.asarray(keras.ops.convert_to_numpy(each)) for each in (target, output))
    except Exception:  # inside of a compiled function, where there are no values yet
        return
    yield LossFacts(
        kind=KINDS[name],
        from_logits=from_logits,
        predictions=predictions,
        targets=targets,
        class_axis=None if name == "binary_crossentropy" else (axis if predictions.ndim > 1 else 0),
        name=name,
    )
