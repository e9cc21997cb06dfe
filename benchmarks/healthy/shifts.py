"""Runs whose task changes on the way: harder data, alternating data, thawed layers, moving weights."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import BaseFinetuning
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from benchmarks.healthy.digits import digits
from benchmarks.healthy.registry import Parts, healthy_run
from benchmarks.healthy.regression import wavy
from benchmarks.healthy.supervised import Supervised, adam, mlp, shuffled, streamed

Batch = tuple[Tensor, Tensor]


def batches(inputs: Tensor, targets: Tensor, size: int, count: int) -> Iterator[Batch]:
    """Random batches, drawn with replacement."""
    for _ in range(count):
        rows = torch.randint(0, len(inputs), (size,))
        yield inputs[rows], targets[rows]


def curriculum(*phases: Iterable[Batch]) -> Callable[[], Iterator[Batch]]:
    """One phase after the other."""
    return lambda: (batch for phase in phases for batch in phase)


@healthy_run("curriculum: half-way the digits become noisy; the loss jumps 5 to 10 times, stays up")
def curriculum_x7(seed: int) -> Parts:
    inputs, labels = digits()
    images = inputs.view(-1, 8, 8)
    shifted = torch.cat([images, images.roll(1, 1), images.roll(1, 2)]).flatten(1)
    harder = shifted + 0.6 * torch.randn_like(shifted)
    module = Supervised(mlp(64, 96, 10), F.cross_entropy, adam(1e-3))
    stream = curriculum(batches(inputs, labels, 32, 350), batches(harder, labels.repeat(3), 32, 650))
    return module, streamed(stream), {"max_steps": 1000}


@healthy_run("curriculum: half-way the function gets a faster part; the loss jumps some 20 times")
def curriculum_x20(seed: int) -> Parts:
    inputs, values = wavy(3000)
    harder = values + torch.sin(5 * inputs[:, 4:5]) * inputs[:, 5:6]
    noise = 0.1 * torch.randn_like(values)
    module = Supervised(mlp(6, 96, 96, 1), F.mse_loss, adam(3e-3))
    stream = curriculum(batches(inputs, values + noise, 64, 500), batches(inputs, harder + noise, 64, 700))
    return module, streamed(stream), {"max_steps": 1200}


@healthy_run("two data sets in turn, 40 steps each, whose loss levels are a factor of ten and more apart")
def alternating_tasks(seed: int) -> Parts:
    inputs, values = wavy(3000)
    tidy, untidy = values + 0.1 * torch.randn_like(values), values + 1.5 * torch.randn_like(values)
    phases = [batches(inputs, tidy if turn % 2 == 0 else untidy, 32, 40) for turn in range(30)]
    module = Supervised(mlp(6, 64, 1), F.mse_loss, adam(2e-3))
    return module, streamed(curriculum(*phases)), {"max_steps": 1200}


class ThawBackbone(BaseFinetuning):
    """Freezes the first part of the network, and thaws it after some epochs with a tenth of the rate."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        self.freeze(pl_module.network[0])

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Optimizer) -> None:
        if epoch == self.epoch:
            self.unfreeze_and_add_param_group(pl_module.network[0], optimizer, initial_denom_lr=10)


@healthy_run("fine-tuning: a new head on a frozen backbone, then all is thawed and the gradient norm jumps")
def fine_tuning(seed: int) -> Parts:
    inputs, labels = digits()
    backbone, head = nn.Sequential(mlp(64, 128, 64), nn.ReLU()), nn.Linear(64, 10)
    pretraining = nn.Sequential(backbone, nn.Linear(64, 2))
    optimizer = torch.optim.Adam(pretraining.parameters(), lr=2e-3)
    for images, parity in batches(inputs, labels % 2, 64, 300):
        optimizer.zero_grad()
        F.cross_entropy(pretraining(images), parity).backward()
        optimizer.step()

    def only_trainable(module: nn.Module) -> Optimizer:
        return torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=3e-3)

    module = Supervised(nn.Sequential(backbone, head), F.cross_entropy, only_trainable)
    loader = shuffled(inputs, labels, batch_size=32, seed=seed, drop_last=True)
    return module, loader, {"max_steps": 700, "callbacks": [ThawBackbone(epoch=6)]}


class TwoTasks(LightningModule):
    """A shared trunk with a classifier and a regressor, whose weights in the loss change with time."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.classifier, self.regressor = mlp(64, 96), nn.Linear(96, 10), nn.Linear(96, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch
        hidden = self.trunk(images).relu()
        ink = (images.relu().sum(1, keepdim=True)) / 4
        classification = F.cross_entropy(self.classifier(hidden), labels)
        regression = F.mse_loss(self.regressor(hidden), ink)
        weight = 0.1 if self.global_step < 300 else 3.0 if self.global_step < 600 else 20.0
        self.log_dict({"classification": classification, "regression": regression})
        return classification + weight * regression

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@healthy_run("two tasks whose weights in the loss change by large factors at fixed steps")
def multi_task_weights(seed: int) -> Parts:
    inputs, labels = digits()
    return TwoTasks(), shuffled(inputs, labels, batch_size=32, seed=seed), {"max_steps": 900}
