"""The checkup of a Lightning module without a trainer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch.optim import Optimizer

from nan_callbacks.checkup.notice import CheckupReport
from nan_callbacks.lightning.lab import TrainingStep
from nan_callbacks.lightning.step_diagnosis import alone, optimizers_of
from nan_callbacks.torch.checkup import examine, read
from nan_callbacks.torch.lab import TorchLab
from nan_callbacks.torch.lab_bench import Bench, Fed
from nan_callbacks.torch.rng import RngState


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
    if hasattr(data, "train_dataloader"):
        data.prepare_data()
        data.setup("fit")
        data = data.train_dataloader()
    batches = read(data)
    optimizers = optimizers_of(module, optimizer)
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
