"""One step of a torch module examined on its own, without a guard and without a run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from nan_callbacks.core.finding import Action, Finding, Severity
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.diagnosis.diagnose import Budget, diagnose
from nan_callbacks.diagnosis.diagnosis import Diagnosis
from nan_callbacks.diagnosis.evidence import History
from nan_callbacks.diagnosis.origin import OriginKind, ReplayResult
from nan_callbacks.diagnosis.saved_step import SavedStep
from nan_callbacks.errors import ConfigurationError
from nan_callbacks.torch.gate import learning_rates
from nan_callbacks.torch.lab import TorchLab
from nan_callbacks.torch.lab_bench import Bench, Fed, Hands, Window
from nan_callbacks.torch.lab_evidence import REPLAY_SHARE, gather, narrowest, settings_of
from nan_callbacks.torch.measure import non_finite_tensors
from nan_callbacks.torch.rng import RngState
from nan_callbacks.torch.saving import load_weights, save_incident, streams_of, window_of


@dataclass(kw_only=True)
class LoneStep:
    """One step of a module: how it is run, and on what."""

    module: nn.Module
    failed: Window
    loss_of: Callable[[Fed], Tensor | None]
    by_hand: Callable[[Fed, Hands], Any] | None = None
    optimizers: Sequence[Optimizer] = ()
    recent: Sequence[Window] = ()
    framework: str = "torch"
    inside: Callable[[], AbstractContextManager[Any]] = nullcontext
    random_streams: RngState | None = None


def diagnose_step(
    module: nn.Module,
    batch: Any,
    *,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    optimizer: Optimizer | None = None,
    recent: Sequence[Any] = (),
    save_batch: Any = None,
    budget_s: float = 30.0,
) -> Diagnosis:
    """Examine one training step of a plain torch module. What is changed for that is put back bit by bit.

    Args:
        module: The module, with the weights to examine; it is run in the mode (training, evaluation) that it is in.
        batch: The batch, on the module's device.
        loss: Called as ``loss(module, batch)``; runs the forward pass and returns the loss, shape [].
        optimizer: The optimizer, for experiments that train a few steps; None: none are made.
        recent: Batches that went well, oldest first, to compare with.
        save_batch: Folder into which batch and weights are written; None: nothing is written.
        budget_s: Seconds that the examination may take.

    Returns:
        The cause, with what was tried.

    Raises:
        ConfigurationError: If there is no loss to call.
    """
    if not callable(loss):
        raise ConfigurationError.of(
            "loss", "a function (module, batch) -> loss", loss, "A plain torch module does not know its own loss."
        )
    step = LoneStep(
        module=module,
        failed=(Fed(batch),),
        loss_of=lambda fed: loss(module, fed.batch),
        optimizers=() if optimizer is None else (optimizer,),
        recent=[(Fed(each),) for each in recent],
    )
    return examine(step, save_batch=save_batch, budget_s=budget_s)


def examine(step: LoneStep, *, save_batch: Any = None, budget_s: float = 30.0) -> Diagnosis:
    """Examine a lone step.

    Args:
        step: The step.
        save_batch: Folder into which batch and weights are written; None: nothing is written.
        budget_s: Seconds that the examination may take.
    """
    began = time.perf_counter()
    streams = step.random_streams or RngState()
    lab = TorchLab(
        Bench(
            module=step.module,
            failed=step.failed,
            loss_of=step.loss_of,
            by_hand=step.by_hand,
            optimizers=step.optimizers,
            recent=step.recent,
            inside=step.inside,
            random_streams=streams,
        )
    )
    replay = lab.replay(budget_s * REPLAY_SHARE)
    seen = _seen(step, replay)
    evidence = gather(
        lab,
        seen,
        _findings(seen, replay),
        replay,
        history=History(),
        settings={
            **settings_of(step.module, step.optimizers),
            "framework": step.framework,
            "precision": narrowest(step.module),
        },
        seconds=budget_s,
    )
    diagnosis = diagnose(evidence, lab, Budget(seconds=budget_s))
    diagnosis = replace(diagnosis, seconds=time.perf_counter() - began)
    if save_batch is not None:
        save_incident(
            Path(save_batch),
            module=step.module,
            failed=step.failed,
            recent=step.recent,
            random_streams=streams,
            about={"framework": step.framework, "loss": seen.loss, "grad_norm": seen.grad_norm},
        )
    return diagnosis


def replay_saved(
    module: nn.Module,
    step: SavedStep,
    *,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    budget_s: float = 30.0,
) -> Diagnosis:
    """Examine a saved step of a plain torch module again.

    Args:
        module: Of the same structure; it is given the saved weights.
        step: The saved step.
        loss: As for :func:`diagnose_step`.
        budget_s: Seconds that the examination may take.

    Raises:
        ValueError: If there is no loss, or the weights do not fit.
    """
    if not callable(loss):
        raise ConfigurationError.of(
            "loss", "a function (module, batch) -> loss", loss, "A plain torch module does not know its own loss."
        )
    load_weights(module, step)
    failed, recent = window_of(step)
    lone = LoneStep(
        module=module,
        failed=failed,
        loss_of=lambda fed: loss(module, fed.batch),
        recent=recent,
        random_streams=streams_of(step),
    )
    return examine(lone, budget_s=budget_s)


def _seen(step: LoneStep, replay: ReplayResult) -> StepObservation:
    named = [(n, p) for n, p in step.module.named_parameters() if p.is_floating_point() or p.is_complex()]
    bad = non_finite_tensors([n for n, _ in named], [p for _, p in named])
    return StepObservation(
        step=0,
        batch_index=step.failed[0].index,
        loss=replay.loss,
        grad_norm=replay.grad_norm,
        non_finite_gradients=len(replay.non_finite_gradients),
        non_finite_names=(bad or replay.non_finite_gradients)[:3],
        non_finite_parameters=len(bad),
        non_finite_frozen=sum(not step.module.get_parameter(name).requires_grad for name in bad),
        applied=False,
        optimizer_name=", ".join(type(optimizer).__name__ for optimizer in step.optimizers),
        learning_rates=tuple(rate for optimizer in step.optimizers for rate in learning_rates(optimizer)),
    )


def _findings(seen: StepObservation, replay: ReplayResult) -> list[Finding]:
    """What a guard would have found about the step on its own."""
    raised = replay.origin is not None and replay.origin.kind is OriginKind.EXCEPTION
    if raised:
        return []
    common: dict[str, Any] = {"severity": Severity.ERROR, "action": Action.OBSERVE}
    if seen.non_finite_parameters:
        return [Finding.of(seen, code="NAN103", title="non-finite parameters", quantity="parameters", **common)]
    if seen.grad_norm is not None and not math.isfinite(seen.grad_norm):
        return [Finding.of(seen, code="NAN101", title="non-finite gradients", quantity="grad_norm", **common)]
    if seen.loss is not None and not math.isfinite(seen.loss):
        return [Finding.of(seen, code="NAN102", title="non-finite loss", quantity="loss", **common)]
    return []
