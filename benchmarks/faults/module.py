"""The pieces that every faulty run is built from: a stream of batches and a plain LightningModule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

Batch = tuple[Tensor, ...]
Corruption = Callable[[int, Batch], Batch]
LearningRateFactor = Callable[[int], float]


@dataclass(frozen=True)
class Task:
    """A small training problem that goes well with its own learning rate.

    Attributes:
        make_net: Builds the network; the caller seeds torch first.
        make_optimizer: Parameters and learning rate to optimizer.
        learning_rate: A learning rate that trains this task well.
        draw: Random generator to one batch.
        loss: Network and batch to the scalar training loss.
        evaluate: Network to the held-out metric.
        higher_is_better: Whether the metric is an accuracy (True) or a loss (False).
        steps: Length of a run.
    """

    make_net: Callable[[], nn.Module]
    make_optimizer: Callable[[Any, float], torch.optim.Optimizer]
    learning_rate: float
    draw: Callable[[torch.Generator], Batch]
    loss: Callable[[nn.Module, Batch], Tensor]
    evaluate: Callable[[nn.Module], float]
    higher_is_better: bool
    steps: int


class BatchStream(Dataset[Batch]):
    """One batch per step, a function of the seed and the step alone: all arms draw the same data."""

    def __init__(self, task: Task, seed: int, corrupt: Corruption | None, steps: int) -> None:
        self.task, self.seed, self.corrupt, self.steps = task, seed, corrupt, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        batch = self.task.draw(generator)
        return batch if self.corrupt is None else self.corrupt(step, batch)


class FaultModule(LightningModule):
    """What a user writes in an afternoon: a net, a loss, an optimizer, perhaps a scheduler."""

    def __init__(self, task: Task, learning_rate: float, schedule: LearningRateFactor | None = None) -> None:
        super().__init__()
        self.task, self.learning_rate, self.schedule = task, learning_rate, schedule
        self.net = task.make_net()

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        return self.task.loss(self.net, batch)

    def configure_optimizers(self) -> Any:
        optimizer = self.task.make_optimizer(self.net.parameters(), self.learning_rate)
        if self.schedule is None:
            return optimizer
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


Built = tuple[LightningModule, DataLoader[Batch], dict[str, Any]]


def assemble(module: FaultModule, seed: int, corrupt: Corruption | None = None, **trainer_kwargs: Any) -> Built:
    """Module and fault to what `FaultyRun.build` returns."""
    stream = BatchStream(module.task, seed, corrupt, module.task.steps)
    return module, DataLoader(stream, batch_size=None), trainer_kwargs


def evaluate_net(module: LightningModule) -> float:
    """The task's held-out metric of the network in evaluation mode."""
    assert isinstance(module, FaultModule)
    module.net.eval()
    with torch.no_grad():
        return float(module.task.evaluate(module.net))
