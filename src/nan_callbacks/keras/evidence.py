"""Evidence about a failed step of a Keras model: the batch beside recent ones, guilty rows, layers, settings."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import keras

from nan_callbacks.core.finding import Finding
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.diagnosis.batch_evidence import batch_parts
from nan_callbacks.diagnosis.bisection import guilty_rows
from nan_callbacks.diagnosis.evidence import BatchPart, Evidence, History
from nan_callbacks.diagnosis.lab import Trial, Variation
from nan_callbacks.diagnosis.origin import OriginKind, ReplayResult
from nan_callbacks.keras.lab import KerasLab
from nan_callbacks.keras.lab_batch import named_arrays, role_of
from nan_callbacks.keras.model_parts import leaf_optimizers, optimizers_of

MOST_BISECTIONS = 48
"""Runs of the step that the search for guilty rows may cost; one bad row of 256 takes about 20."""

BISECTION_SHARE = 0.4
"""Of the time that a diagnosis has; the rest is for experiments."""

REPLAY_SHARE = 0.8
"""Of the time that a diagnosis has, at most for the traced replay. JAX compiles each kind of operation the first time,
which takes seconds; without the place where the failure began, all the rest is guesswork."""

FEW = 0.25
"""Share of the rows that the batch's own statistics may accuse before there are too many suspects to begin with."""

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
    return Evidence(
        seen=seen,
        findings=tuple(findings),
        replay=replay,
        batch=parts,
        guilty_rows=_guilty(lab, findings, replay, parts, seconds * BISECTION_SHARE),
        history=history,
        layers=lab.layers(),
        **settings_of(lab.model),
    )


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
    }


def narrowest(layers: Sequence[Any]) -> str:
    """The narrowest floating dtype that layers compute in."""
    dtypes = {getattr(layer, "compute_dtype", None) for layer in layers}
    return next((dtype for dtype in NARROWEST_FIRST if dtype in dtypes), "float32")


def _guilty(
    lab: KerasLab, findings: Sequence[Finding], replay: ReplayResult, parts: Sequence[BatchPart], seconds: float
) -> tuple[int, ...]:
    """Rows without which the step succeeds."""
    rows = lab.rows
    base = lab.run(Variation())
    if rows < 2 or not base.supported or succeeds(base, findings, replay) is not False:
        return ()
    until = time.perf_counter() + seconds

    def is_good(kept: Sequence[int]) -> bool | None:
        if time.perf_counter() > until:
            return None
        return succeeds(lab.run(Variation(only_rows=tuple(kept))), findings, replay)

    origin_rows = () if replay.origin is None or replay.origin.rows is None else replay.origin.rows
    data_rows = [row for part in parts for row in (*part.non_finite_rows, *part.outlier_rows)]
    few = [row for row in dict.fromkeys([*origin_rows, *data_rows]) if 0 <= row < rows]
    suspects = few if len(few) <= max(1, int(FEW * rows)) else ()
    return guilty_rows(is_good, rows, suspects=suspects, max_trials=MOST_BISECTIONS).rows


def succeeds(trial: Trial, findings: Sequence[Finding], replay: ReplayResult) -> bool | None:
    """Whether a trial of the failed batch does without the failure; None if it cannot tell."""
    if not trial.supported:
        return None
    origin = replay.origin
    if trial.raised:
        # The same class of error is the failure; another one only says that the step cannot run like this.
        same = origin is not None and origin.kind is OriginKind.EXCEPTION and trial.raised.startswith(origin.operation)
        return False if same else None
    if not all(map(math.isfinite, (*trial.losses, *trial.grad_norms))):
        return False
    for finding in findings:
        value = _judged(trial, finding.quantity)
        if finding.limit is not None and value is not None:
            return value <= finding.limit
    return True


def _judged(trial: Trial, quantity: str) -> float | None:
    if quantity == "statistics_jump":
        return trial.statistics_jump
    series = {"loss": trial.losses, "grad_norm": trial.grad_norms}.get(quantity, ())
    return series[-1] if series else None
