"""The checkup of a Lightning module without a trainer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from nan_callbacks.checkup.notice import CheckupReport
from nan_callbacks.lightning.lab import LightningLab, TrainingStep, can_be_held_still
from nan_callbacks.lightning.step_diagnosis import alone, optimizers_of
from nan_callbacks.torch.checkup import examine, read
from nan_callbacks.torch.dataset_rows import rows_of_data
from nan_callbacks.torch.lab import TorchLab
from nan_callbacks.torch.lab_bench import Bench, Fed
from nan_callbacks.torch.rng import RngState

OWN = ("lightning.", "pytorch_lightning.")
"""Where hooks come from that nobody has overridden."""


def look_over_fit(trainer: Any, module: Any, session: Any, ignore: Collection[str]) -> CheckupReport:
    """Look over a fit that is about to make its first step.

    Args:
        trainer: The trainer.
        module: Its module.
        session: The guard's session.
        ignore: Codes that are not to be told.
    """
    obstacle = can_be_held_still(trainer, module)
    if any(isinstance(each, torch.jit.ScriptModule) for each in module.modules()):
        obstacle = "TorchScript counts its runs, and compiles after some of them"
    if obstacle:
        return CheckupReport(notes=(f"not looked over: {obstacle}",))
    lab = LightningLab(trainer, module, tuple(session.window.batches), random_streams=RngState())
    precision = str(getattr(trainer.precision_plugin, "precision", "") or "")
    used = {type(trainer.strategy).__name__, precision, *(type(each).__name__ for each in trainer.callbacks)}
    if trainer.accumulate_grad_batches > 1:
        rest = trainer.num_training_batches % trainer.accumulate_grad_batches  # NaN of data without a length
        used |= {"accumulate_grad_batches", *(("accumulate_grad_batches:rest",) if rest > 0 else ())}
    return examine(
        lab,
        of_data=None if _changes_batches(module) else rows_of_data(trainer.train_dataloader),
        framework="lightning",
        ignore=ignore,
        components=used,
        is_scheduled=bool(trainer.lr_scheduler_configs),
        resumed=bool(trainer.ckpt_path),
        precision=_dtype_of(precision),
    )


def _changes_batches(module: Any) -> bool:
    """Whether batches are changed after the loader: then rows of the data set are no rows of batches."""
    hooks = ("on_before_batch_transfer", "on_after_batch_transfer", "transfer_batch_to_device")
    return any(not getattr(type(module), hook).__module__.startswith(OWN) for hook in hooks)


def _dtype_of(precision: str) -> str | None:
    known = {"16": "float16", "bf": "bfloat16", "64": "float64"}
    return known.get(precision[:2])


def checkup(
    module: Any,
    data: Any,
    *,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    ignore: Collection[str] = (),
    strict: bool = False,
) -> CheckupReport:
    """Look a Lightning module and its data over before the first step. Nothing is changed, nothing is logged.

    Args:
        module: The module; its ``training_step`` is run in training mode.
        data: A data loader, a data module (its ``train_dataloader`` is read), or any iterable of batches.
        optimizer: The optimizer (or those of manual optimisation), for virtual steps. None: what
            ``configure_optimizers`` makes, if it can do so without a trainer.
        ignore: Codes of the catalogue that are not to be told, such as ``["DATA502"]``.
        strict: Whether an error of the checkup itself is raised rather than noted in the report.

    Returns:
        The notices, the gravest first.
    """
    streams = RngState()
    try:
        if hasattr(data, "train_dataloader"):
            data.prepare_data()
            data.setup("fit")
            data = data.train_dataloader()
        batches = read(data)
        optimizers = optimizers_of(module, optimizer)
    finally:
        streams.restore()
    step = TrainingStep(module, optimizers)
    bench = Bench(
        module=module,
        failed=(Fed(batches[0]),),
        loss_of=step.loss_of,
        by_hand=None if module.automatic_optimization else step.by_hand,
        optimizers=optimizers,
        inside=lambda: alone(module),
        random_streams=RngState(),
    )
    return examine(TorchLab(bench), batches[1:], framework="lightning", ignore=ignore, strict=strict)
