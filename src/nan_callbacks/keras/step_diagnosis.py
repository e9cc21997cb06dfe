"""One training step of a Keras model examined on its own, without a guard and without a fit."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras import ops

from nan_callbacks.core.finding import Action, Finding, Severity
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.diagnosis.diagnose import Budget
from nan_callbacks.diagnosis.diagnosis import Diagnosis
from nan_callbacks.diagnosis.evidence import History
from nan_callbacks.diagnosis.origin import OriginKind, ReplayResult
from nan_callbacks.diagnosis.saved_step import SavedStep
from nan_callbacks.errors import ConfigurationError
from nan_callbacks.keras.examiner import Examination
from nan_callbacks.keras.lab_hands import first_built
from nan_callbacks.keras.model_parts import leaf_optimizers, optimizers_of
from nan_callbacks.keras.saving import batches_of, load_weights, save_incident


def diagnose_step(
    model: Any,
    batch: Any,
    *,
    recent: Sequence[Any] = (),
    save_batch: Any = None,
    budget_s: float = 30.0,
) -> Diagnosis:
    """Examine one ``train_step``. What is changed for that is put back bit by bit.

    A model or an optimizer that has not been built is built from the batch; that is not undone.

    Args:
        model: A compiled model, with the weights to examine.
        batch: What its train step gets: ``(x, y)`` or ``(x, y, sample_weight)``; arrays or tensors, nested if need be.
        recent: Batches that went well, oldest first, to compare with.
        save_batch: Folder into which batch and weights are written; None: nothing is written.
        budget_s: Seconds that the examination may take.

    Returns:
        The cause, with what was tried.

    Raises:
        ConfigurationError: If the model is not compiled.
    """
    _check(model)
    first_built(model, batch)
    return _examine(model, batch, list(recent), save_batch, budget_s)


def replay_saved(model: Any, step: SavedStep, *, budget_s: float = 30.0) -> Diagnosis:
    """Examine a saved step again.

    Args:
        model: Compiled, of the same structure; it is given the saved weights.
        step: The saved step.
        budget_s: Seconds that the examination may take.

    Raises:
        ValueError: If the weights do not fit.
    """
    _check(model)
    failed, recent = batches_of(step)
    first_built(model, failed)
    load_weights(model, step)
    return _examine(model, failed, recent, None, budget_s)


def _check(model: Any) -> None:
    if not getattr(model, "compiled", False):
        raise ConfigurationError.of(
            "model", "a compiled Keras model", "one that is not compiled", "Call `model.compile(...)` first."
        )


def _examine(model: Any, batch: Any, recent: list[Any], save_batch: Any, budget_s: float) -> Diagnosis:
    began = time.perf_counter()
    # A first look without findings; the replay tells what a guard would have found.
    replay = Examination(model, StepObservation(step=0), (), batch, recent, History()).replay(budget_s)
    seen = _seen(model, replay)
    case = Examination(model, seen, _findings(seen, replay), batch, recent, History())
    diagnosis = case.diagnose(replay, Budget(seconds=budget_s))
    if save_batch is not None:
        facts = {"loss": seen.loss, "grad_norm": seen.grad_norm}
        save_incident(Path(save_batch), model=model, failed=batch, recent=recent, about=facts)
    return replace(diagnosis, seconds=time.perf_counter() - began)


def _seen(model: Any, replay: ReplayResult) -> StepObservation:
    bad = tuple(variable.path for variable in model.trainable_variables if not _is_finite(variable))
    leaves = [leaf for optimizer in optimizers_of(model) for leaf in leaf_optimizers(optimizer)]
    return StepObservation(
        step=0,
        loss=replay.loss,
        grad_norm=replay.grad_norm,
        non_finite_gradients=len(replay.non_finite_gradients),
        non_finite_names=(bad or replay.non_finite_gradients)[:3],
        non_finite_parameters=len(bad),
        applied=False,
        optimizer_name=", ".join(type(leaf).__name__ for leaf in leaves),
        learning_rates=tuple(float(ops.convert_to_numpy(leaf.learning_rate)) for leaf in leaves),
    )


def _is_finite(variable: Any) -> bool:
    return bool(ops.convert_to_numpy(ops.all(ops.isfinite(variable.value))))


def _findings(seen: StepObservation, replay: ReplayResult) -> list[Finding]:
    """What a guard would have found about the step on its own."""
    if replay.origin is not None and replay.origin.kind is OriginKind.EXCEPTION:
        return []
    common: dict[str, Any] = {"severity": Severity.ERROR, "action": Action.OBSERVE}
    if seen.non_finite_parameters:
        return [Finding.of(seen, code="NAN103", title="non-finite parameters", quantity="parameters", **common)]
    if seen.grad_norm is not None and not math.isfinite(seen.grad_norm):
        return [Finding.of(seen, code="NAN101", title="non-finite gradients", quantity="grad_norm", **common)]
    if seen.loss is not None and not math.isfinite(seen.loss):
        return [Finding.of(seen, code="NAN102", title="non-finite loss", quantity="loss", **common)]
    return []
