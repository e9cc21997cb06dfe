"""Evidence about a failed step of a Keras model: the batch beside recent ones, guilty rows, layers, settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from nan_callbacks.checkup.concerns import concerns_of
from nan_callbacks.checkup.constant import loss_of_a_constant
from nan_callbacks.checkup.labels import CLASSIFYING
from nan_callbacks.checkup.magnified import magnified_parts
from nan_callbacks.core.finding import Finding
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.diagnosis.batch_evidence import batch_parts
from nan_callbacks.diagnosis.evidence import BatchPart, Evidence, History
from nan_callbacks.diagnosis.guilty_samples import guilty_samples
from nan_callbacks.diagnosis.known_issues import Environment, installed_versions, issues_at
from nan_callbacks.diagnosis.likeness import are_alike
from nan_callbacks.diagnosis.origin import ReplayResult
from nan_callbacks.keras.checkup_facts import inputs_of, rows_of_parts
from nan_callbacks.keras.checkup_probe import Passage, Passages, passages_of
from nan_callbacks.keras.entropy_calls import own_entropies
from nan_callbacks.keras.lab import KerasLab
from nan_callbacks.keras.lab_batch import as_numpy, named_arrays, role_of
from nan_callbacks.keras.loss_facts import SEEN, losses_of
from nan_callbacks.keras.model_parts import leaf_optimizers, optimizers_of
from nan_callbacks.keras.own_losses import without_harmless_shapes

REPLAY_SHARE = 0.8
"""Of the time that a diagnosis has, at most for the traced replay. JAX compiles each kind of operation the first time,
which takes seconds; without the place where the failure began, all the rest is guesswork."""

KERNELS = frozenset({"kernel", "recurrent_kernel", "pointwise_kernel"})
"""What Keras calls the matrices of its own layers."""

NARROWEST_FIRST = ("float16", "bfloat16", "float32", "float64")


def gather(
    lab: KerasLab,
    seen: StepObservation,
    findings: Sequence[Finding],
    replay: ReplayResult,
    *,
    history: History,
    seconds: float,
) -> Evidence:
    """Everything that is known about an incident before suspicions are tried out.

    Args:
        lab: Its laboratory.
        seen: The failed step.
        findings: What was found about it.
        replay: The traced replay.
        history: The run so far.
        seconds: Time that the diagnosis has.
    """
    parts = parts_of(lab)
    passages = passages_of(lab)
    rows = rows_of_parts([lab.failed_batch, *lab.recent_batches])
    inputs, losses, zeros, alike = lab.held_still_for(
        lambda: (
            inputs_of(lab.model, lab.failed_batch, passages, rows),
            losses_of(lab.model, lab.failed_batch, passages, rows),
            zero_weights_of(lab.model),
            alike_weights_of(lab.model, passages),
        )
    )
    told = without_harmless_shapes(lab, losses)
    losses = (*told, *own_entropies(lab, losses, rows))
    settings = settings_of(lab.model)
    environment = Environment(
        versions=installed_versions(), precision=settings["precision"], backend=settings["backend"]
    )
    return Evidence(
        classifies=any(loss.kind in CLASSIFYING for loss in losses),
        constant_loss=loss_of_a_constant(losses, seen.loss),
        concerns=concerns_of(inputs, losses, max((len(array) for array in rows.values()), default=0)),
        known_issues=issues_at(replay.origin, environment),
        seen=seen,
        findings=tuple(findings),
        replay=replay,
        batch=parts,
        prepared=magnified_parts(inputs, lab.rows),
        rows=lab.rows,
        guilty_rows=guilty_samples(lab, findings, replay, parts, seconds),
        history=history,
        layers=lab.layers(),
        zero_weights=zeros,
        alike_weights=alike,
        labels_used={part.failed.name for part in parts} if any(loss.kind in SEEN for loss in told) else (),
        **settings,
    )


def zero_weights_of(model: Any) -> tuple[str, ...]:
    """Trained matrices that are nothing but zeros."""
    matrices = [variable for variable in model.trainable_variables if len(variable.shape) >= 2]
    return tuple(each.path for each in matrices if not np.asarray(as_numpy(each.value)).any())


def alike_weights_of(model: Any, passages: Passages) -> tuple[str, ...]:
    """Trained matrices in which many units have the very same weights.

    Args:
        model: The model.
        passages: What its layers receive and return: in layers that are not Keras' own, it tells a matrix from a
            scale, which begins at one, and from a table, whose rows are no units.
    """
    own = {id(each) for passage in passages.layers for each in _matrices_by_shape(passage)}
    matrices = [each for each in model.trainable_variables if each.name in KERNELS or id(each) in own]
    return tuple(
        each.path
        for each in matrices
        if len(each.shape) > 1 and are_alike(np.moveaxis(np.asarray(as_numpy(each.value)), -1, 0))
    )


def _matrices_by_shape(passage: Passage) -> list[Any]:
    """Variables of a layer, one row per feature that it receives and one column per feature that it returns."""
    ends = (passage.received.shape[-1:], passage.returned.shape[-1:])
    grid = passage.received.shape[-2:]  # an embedding of positions has this shape
    held = getattr(passage.layer, "trainable_variables", [])
    return [each for each in held if (each.shape[:1], each.shape[1:]) == ends and tuple(each.shape) != grid]


def parts_of(lab: KerasLab) -> tuple[BatchPart, ...]:
    """The failed batch beside the recent ones."""
    failed = named_arrays(lab.failed_batch)
    recent = [named_arrays(batch) for batch in lab.recent_batches]
    return batch_parts(failed, recent, [role_of(array.name) for array in failed])


def settings_of(model: Any) -> dict[str, Any]:
    """What can be read off a model and its optimizers: further fields of :class:`.Evidence`."""
    optimizers = optimizers_of(model)
    layers = list(model._flatten_layers(include_self=True, recursive=True))
    leaves = [leaf for optimizer in optimizers for leaf in leaf_optimizers(optimizer)]
    epsilons = [leaf.epsilon for leaf in leaves if isinstance(getattr(leaf, "epsilon", None), float)]
    limits = [getattr(leaf, name, None) for leaf in leaves for name in ("clipnorm", "global_clipnorm", "clipvalue")]
    return {
        "framework": "keras",
        "backend": keras.backend.backend(),
        "precision": narrowest(layers),
        "clipping": min((float(limit) for limit in limits if limit), default=None),
        "recurrent": any(isinstance(layer, keras.layers.RNN) for layer in layers),
        "optimizer": ", ".join(dict.fromkeys(type(leaf).__name__ for leaf in leaves)),
        "optimizer_epsilon": min(epsilons, default=None),
        "all_frozen": not model.trainable_variables,
    }


def narrowest(layers: Sequence[Any]) -> str:
    """The narrowest floating dtype that layers compute in."""
    dtypes = {getattr(layer, "compute_dtype", None) for layer in layers}
    return next((dtype for dtype in NARROWEST_FIRST if dtype in dtypes), "float32")
