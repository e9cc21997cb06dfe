"""Evidence that the torch laboratory gathers: the batch beside the recent ones, guilty rows, layers, settings."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from nan_callbacks.core.finding import Finding
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.diagnosis.batch_evidence import batch_parts
from nan_callbacks.diagnosis.bisection import guilty_rows
from nan_callbacks.diagnosis.evidence import BatchPart, Evidence, History, Role
from nan_callbacks.diagnosis.lab import Trial, Variation
from nan_callbacks.diagnosis.origin import OriginKind, ReplayResult
from nan_callbacks.torch.lab import TorchLab
from nan_callbacks.torch.lab_batch import named_arrays, roles_of

MOST_BISECTIONS = 48
"""Runs of the step that the search for guilty rows may cost; one bad row of 256 takes about 20."""

BISECTION_SHARE = 0.4
"""Of the time that a diagnosis has; the rest is for experiments."""

REPLAY_SHARE = 0.4
"""Of the time that a diagnosis has, at most for the traced replay."""

FEW = 0.25
"""Share of the rows that the batch's own statistics may accuse before there are too many suspects to begin with."""


def gather(
    lab: TorchLab,
    seen: StepObservation,
    findings: Sequence[Finding],
    replay: ReplayResult,
    *,
    history: History,
    settings: dict[str, Any],
    seconds: float,
) -> Evidence:
    """Everything that is known about an incident before suspicions are tried out.

    Args:
        lab: Its laboratory.
        seen: The failed step.
        findings: What was found about it.
        replay: The traced replay.
        history: The run so far.
        settings: Further fields of :class:`.Evidence`, such as ``optimizer``.
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
        **settings,
    )


def parts_of(lab: TorchLab) -> tuple[BatchPart, ...]:
    """The batch that is to blame beside the recent ones."""
    failed = lab.failed_batch
    arrays, roles = named_arrays(failed), roles_of(failed)
    recent = [named_arrays(batch) for batch in lab.recent_batches]
    return batch_parts(arrays, recent, [roles.get(array.name, Role.UNKNOWN) for array in arrays])


def settings_of(module: nn.Module, optimizers: Sequence[Any]) -> dict[str, Any]:
    """What can be read off a module and its optimizers."""
    first = next(iter(module.parameters()), None)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    epsilons = [group["eps"] for group in groups if isinstance(group.get("eps"), float)]
    return {
        "backend": "torch",
        "recurrent": any(isinstance(each, nn.RNNBase | nn.RNNCellBase) for each in module.modules()),
        "optimizer": ", ".join(dict.fromkeys(type(optimizer).__name__ for optimizer in optimizers)),
        "optimizer_epsilon": min(epsilons, default=None),
        "device": "cpu" if first is None else first.device.type,
    }


def narrowest(module: nn.Module, autocast: torch.dtype | None = None) -> str:
    """The narrowest floating dtype that a module computes in.

    Args:
        module: The module.
        autocast: The dtype of mixed precision, None without it.
    """
    dtypes = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
    if autocast is not None:
        dtypes.add(autocast)
    order = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    return next((str(dtype).removeprefix("torch.") for dtype in order if dtype in dtypes), "float32")


def _guilty(
    lab: TorchLab, findings: Sequence[Finding], replay: ReplayResult, parts: Sequence[BatchPart], seconds: float
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
    found = guilty_rows(
        is_good, rows, suspects=few if len(few) <= max(1, int(FEW * rows)) else (), max_trials=MOST_BISECTIONS
    )
    return found.rows


def succeeds(trial: Trial, findings: Sequence[Finding], replay: ReplayResult) -> bool | None:
    """Whether a trial of the failed batch does without the failure; None if it cannot tell."""
    if not trial.supported:
        return None
    is_exception = replay.origin is not None and replay.origin.kind is OriginKind.EXCEPTION
    if trial.raised:
        # The same class of error is the failure; another one only says that the step cannot run like this.
        return False if is_exception and trial.raised.startswith(replay.origin.operation or "") else None  # type: ignore[union-attr]
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
