"""The plain supervised module and loaders that most of the healthy runs are made of."""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

MakeOptimizer = Callable[[LightningModule], Optimizer]
MakeScheduler = Callable[[Optimizer], Any]


class Supervised(LightningModule):
    """A network, a loss of (prediction, target), an optimizer, and a scheduler stepped every batch."""

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, targets = batch
        loss = self.loss(self(inputs), targets)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self)
        if self.make_scheduler is None:
            return optimizer
        schedule = {"scheduler": self.make_scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def adam(lr: float, **options: Any) -> MakeOptimizer:
    """Adam over all the parameters of the module."""
    return lambda module: torch.optim.Adam(module.parameters(), lr=lr, **options)


def adamw(lr: float, **options: Any) -> MakeOptimizer:
    """AdamW over all the parameters of the module."""
    return lambda module: torch.optim.AdamW(module.parameters(), lr=lr, **options)


def sgd(lr: float, **options: Any) -> MakeOptimizer:
    """SGD over all the parameters of the module."""
    return lambda module: torch.optim.SGD(module.parameters(), lr=lr, **options)


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """A multilayer perceptron of the given widths, without an activation at its end."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def shuffled(*arrays: Tensor, batch_size: int, seed: int, **options: Any) -> DataLoader[Any]:
    """A loader over tensors that is shuffled by a generator of its own."""
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(TensorDataset(*arrays), batch_size, shuffle=True, generator=generator, **options)


class _Stream(IterableDataset[Any]):
    def __init__(self, make_batches: Callable[[], Iterable[Any]]) -> None:
        self.make_batches = make_batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.make_batches())


def streamed(make_batches: Callable[[], Iterable[Any]]) -> DataLoader[Any]:
    """A loader over batches that a generator function makes one after the other."""
    return DataLoader(_Stream(make_batches), batch_size=None)
