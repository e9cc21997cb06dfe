"""Evidence that the torch laboratory gathers: the batch beside the recent ones, guilty rows, layers, settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nan_callbacks.checkup.concerns import concerns_of
from nan_callbacks.checkup.constant import loss_of_a_constant
from nan_callbacks.checkup.labels import CLASSIFYING
from nan_callbacks.checkup.magnified import magnified_parts
from nan_callbacks.core.finding import Finding
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.diagnosis.batch_evidence import batch_parts
from nan_callbacks.diagnosis.evidence import BatchPart, Evidence, History, Role
from nan_callbacks.diagnosis.guilty_samples import guilty_samples
from nan_callbacks.diagnosis.known_issues import Environment, installed_versions, issues_at
from nan_callbacks.diagnosis.likeness import are_alike
from nan_callbacks.diagnosis.origin import ReplayResult
from nan_callbacks.torch.call_kinds import matrices_of
from nan_callbacks.torch.checkup_facts import FirstLook, StepFacts, facts_of
from nan_callbacks.torch.first_look import first_look
from nan_callbacks.torch.gate import optimizer_parameters
from nan_callbacks.torch.lab import TorchLab
from nan_callbacks.torch.lab_batch import named_arrays, roles_of
from nan_callbacks.torch.recorder import Recorder

REPLAY_SHARE = 0.4
"""Of the time that a diagnosis has, at most for the traced replay."""


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
    look = first_look(lab)
    step = facts_of(look, lab.bench.module, lab.recent_batches)
    whole = _up_to_its_end(look, step, lab)
    targets = {facts.name for facts in whole.inputs if facts.use == "target"}
    picking = (step.picking | whole.picking) - targets
    lab.learn_uses(targets, picking)
    parts, layers = parts_of(lab, targets, picking), lab.layers()
    environment = Environment(
        versions=installed_versions(),
        devices=(settings.get("device", "cpu"),),
        precision=settings.get("precision", "float32"),
    )
    return Evidence(
        classifies=any(loss.kind in CLASSIFYING for loss in step.losses),
        constant_loss=loss_of_a_constant(step.losses, seen.loss),
        concerns=concerns_of(step.inputs, step.losses, step.rows_read, step.hazards),
        known_issues=issues_at(replay.origin, environment),
        seen=seen,
        findings=tuple(findings),
        replay=replay,
        batch=parts,
        prepared=magnified_parts(step.inputs, lab.rows),
        rows=lab.rows,
        guilty_rows=guilty_samples(lab, findings, replay, parts, seconds),
        history=history,
        layers=layers,
        trains_nothing=lab.trains_nothing,
        in_no_optimizer=in_no_optimizer(lab.bench.module, lab.bench.optimizers, look.gradients),
        zero_weights=zero_weights_of(lab.bench.module),
        alike_weights=alike_weights_of(lab.bench.module, look.recorder),
        labels_used={facts.name for facts in step.inputs if facts.use in ("target", "mask")},
        picking=picking,
        **settings,
    )


def _up_to_its_end(look: FirstLook, step: StepFacts, lab: TorchLab) -> StepFacts:
    """What a step says that ran to its end: where the failed one raised an error, that of a batch which had passed.

    Args:
        look: The failed step.
        step: What it says.
        lab: The laboratory.
    """
    if not look.raised or not lab.bench.recent:
        return step
    passed = first_look(lab, lab.bench.recent[-1][0])
    return step if passed.raised else facts_of(passed, lab.bench.module)


def zero_weights_of(module: nn.Module) -> tuple[str, ...]:
    """Trained matrices that are nothing but zeros."""
    matrices = ((name, each) for name, each in module.named_parameters() if each.requires_grad and each.dim() >= 2)
    return tuple(name for name, each in matrices if each.numel() and not bool(each.detach().any()))


def in_no_optimizer(module: nn.Module, optimizers: Sequence[Any], gradients: Mapping[int, Tensor]) -> tuple[str, ...]:
    """Parts of a module that get gradients and no update, if two optimizers of one kind hold the same parameters.

    Whoever leaves a net out of all optimizers may mean to, or train it by two kinds of optimizer in turn.

    Args:
        module: The module.
        optimizers: Its optimizers.
        gradients: Of its parameters, by ``id``.
    """
    holdings = [(type(each), frozenset(map(id, optimizer_parameters(each)))) for each in optimizers]
    if len(set(holdings)) == len(holdings):
        return ()
    held = frozenset().union(*(parameters for _, parameters in holdings))
    reached: dict[str, None] = {}
    trained: set[str] = set()
    for name, each in module.named_parameters():
        part = name.partition(".")[0]
        if id(each) in held:
            trained.add(part)
        elif id(each) in gradients and bool(gradients[id(each)].any()):
            reached[part] = None
    return tuple(part for part in reached if part not in trained)


def alike_weights_of(module: nn.Module, recorder: Recorder) -> tuple[str, ...]:
    """Trained matrices in which many units have the very same weights.

    Args:
        module: The module.
        recorder: Its recorded step: what that multiplied by is made of units; scales, which begin at one, and tables,
            whose rows are no units, are not.
    """
    multiplied = {id(each) for call in recorder.calls for each in matrices_of(call)}
    units = {
        name: each.detach().float().cpu().numpy()
        for name, each in module.named_parameters()
        if each.requires_grad and id(each) in multiplied
    }
    return tuple(name for name, each in units.items() if are_alike(each))


def parts_of(lab: TorchLab, targets: Collection[str] = (), picking: Collection[str] = ()) -> tuple[BatchPart, ...]:
    """The batch that is to blame beside the recent ones.

    Args:
        lab: The laboratory.
        targets: Parts that the step was seen to compare with what its layers return, whatever they are called.
        picking: Parts by which the step was seen to move values between its layers: no targets, wherever they stand.
    """
    failed = lab.failed_batch
    arrays, roles = named_arrays(failed), roles_of(failed, targets, picking)
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
        "all_frozen": not any(parameter.requires_grad for parameter in module.parameters()),
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
