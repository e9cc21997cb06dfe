"""Optimisers, schedules, agents and graphs: what happens around the model as much as in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, runaway
from benchmarks.diagnosis.tables import digits, regression

# -- rates -----------------------------------------------------------------------------------------------------------


class OnPlateau(LightningModule):
    """The rate falls when the monitored value gets no better."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=1)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": plateau, "monitor": "loss", "interval": "step"},
        }


@enter(
    finite(Happens.STALL, "OPT602", rows=None),
    "https://github.com/FunctionLab/selene/issues/115",
    "https://github.com/Lightning-AI/pytorch-lightning/issues/673",
)
def plateau_of_a_falling_loss() -> LightningRun:
    """The scheduler was made for an accuracy, mode="max", and watches the loss: while that falls, so does the rate."""
    return LightningRun(OnPlateau(), in_order(*digits(1600), size=32), {"max_epochs": 2})


class Positional(LightningModule):
    """A regression whose optimiser gets its numbers by position."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        momentum, rate = 0.9, 0.01
        return torch.optim.SGD(self.parameters(), momentum, rate)


@enter(
    runaway("OPT601"),
    "https://github.com/pytorch/examples/issues/736",
    "https://github.com/tensorflow/tensorflow/issues/38796",
)
def rate_and_momentum_exchanged() -> LightningRun:
    """SGD takes the rate before the momentum, and gets 0.9 and 0.01 in the other order."""
    return LightningRun(Positional(), in_order(*regression(1600), size=32), {"max_epochs": 1})


# -- optimisers ------------------------------------------------------------------------------------------------------


class Orthogonal(Optimizer):
    """Momentum, made orthogonal by Newton and Schulz; vectors take plain steps."""

    def __init__(self, parameters: Any, lr: float = 0.02) -> None:
        super().__init__(parameters, {"lr": lr})

    @staticmethod
    def orthogonalise(update: Tensor) -> Tensor:
        x = update / update.norm()
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
        return x

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(self.orthogonalise(p.grad) if p.ndim == 2 else p.grad, alpha=group["lr"])
        return loss


class Experts(LightningModule):
    """Two experts; each row belongs to one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 1)) for _ in range(2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        row, target, whose = batch
        guesses = torch.stack([expert(row) for expert in self.experts], 1)
        return F.huber_loss((guesses * F.one_hot(whose, 2).unsqueeze(2)).sum(1), target)

    def configure_optimizers(self) -> Any:
        return Orthogonal(self.parameters())


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("OPT605",), phase="optimizer", rows=None),
    "https://github.com/pytorch/pytorch/pull/159465",
    "https://github.com/marin-community/levanter/pull/1253",
)
def update_of_an_idle_expert() -> LightningRun:
    """An optimiser divides each gradient by its norm; in batch 27 one expert has no row, and its gradient is 0."""
    x, y = regression(32 * 45)
    whose = np.random.default_rng(1901).integers(0, 2, len(x))
    whose[27 * 32 : 28 * 32] = 0
    return LightningRun(Experts(), in_order(x, y, whose, size=32), {"max_epochs": 1})


# -- graphs and kernels ----------------------------------------------------------------------------------------------


class SumPassing(LightningModule):
    """Four rounds of messages, summed over the neighbours, and a mean over the nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.rounds = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))
        self.out = nn.Linear(16, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        nodes, edges, target = batch
        states = F.relu(self.first(nodes))
        for layer in self.rounds:
            states = states + F.relu(layer(edges @ states)) / 2
        return F.mse_loss(self.out(states.mean(1)), target)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    finite(Happens.SPIKE, ("DATA503", "GRAD203"), rows=(7,)),
    "https://github.com/weihua916/powerful-gnns/pull/6",
    "https://github.com/pyg-team/pytorch_geometric/pull/1603",
)
def ring_in_which_everybody_knows_everybody() -> LightningRun:
    """Messages are summed over friends; people have two or three of them, one circle of 24 is complete."""
    rng = np.random.default_rng(1904)
    nodes = rng.normal(size=(12 * 50, 24, 6)).astype("float32")
    place = np.arange(24)
    ring = (np.abs(place[:, None] - place) % 22 == 1).astype("float32")
    edges = np.repeat(ring[None], len(nodes), 0)
    chords = rng.integers(0, 24, (len(nodes), 3, 2))
    for graph, pairs in enumerate(chords):
        edges[graph, pairs[:, 0], pairs[:, 1]] = edges[graph, pairs[:, 1], pairs[:, 0]] = 1
    edges[34 * 12 + 7] = 1 - np.eye(24)
    target = nodes[:, :, 0].mean(1, keepdims=True) * 4
    return LightningRun(SumPassing(), in_order(nodes, edges, target, size=12), {"max_epochs": 1})


class DeepKernel(LightningModule):
    """A Gaussian process on learnt features, fitted to one experiment after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 3))
        self.log_noise = nn.Parameter(torch.tensor(-20.0))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        setting, measured = batch
        feature = setting + self.net(setting)
        apart = (feature.unsqueeze(1) - feature.unsqueeze(0)).square().sum(-1)
        covariance = torch.exp(-0.5 * apart) + self.log_noise.exp() * torch.eye(len(feature))
        factor = torch.linalg.cholesky(covariance)
        solved = torch.cholesky_solve(measured, factor)
        return 0.5 * (measured * solved).mean() + factor.diagonal().log().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("NAN114",),
        kind="exception",
        operations=("_LinAlgError", "LinAlgError"),
        modules=("",),
        line="factor = torch.linalg.cholesky(covariance)",
        rows=None,
    ),
    "https://github.com/meta-pytorch/botorch/issues/2828",
    "https://github.com/cornellius-gp/gpytorch/issues/620",
    "https://github.com/GPflow/GPflow/issues/900",
)
def experiment_that_was_repeated() -> LightningRun:
    """The noise of a kernel is next to nothing; one experiment has each setting twice, so its matrix is singular."""
    rng = np.random.default_rng(1905)
    batches = []
    for number in range(40):
        setting = rng.uniform(-2, 2, (8, 3))
        if number == 24:
            setting[4:] = setting[:4]
        measured = np.sin(setting.sum(1, keepdims=True)) + 0.01 * rng.normal(size=(8, 1))
        batches.append([torch.from_numpy(a.astype("float32")) for a in (setting, measured)])
    return LightningRun(DeepKernel(), DataLoader(batches, batch_size=None), {"max_epochs": 1})  # type: ignore[arg-type]
