"""Training gone wrong as in courses and first projects, and programs that only look as if it had."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from pytorch_lightning import LightningDataModule, LightningModule
from sklearn.datasets import load_breast_cancer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, healthy, runaway
from benchmarks.diagnosis.tables import digits


class Courses(LightningDataModule):
    """Tensors in batches, without shuffling."""

    def __init__(self, *arrays: np.ndarray, size: int = 32) -> None:
        super().__init__()
        self.data, self.size = TensorDataset(*map(torch.from_numpy, arrays)), size

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.data, self.size)


# -- GRAD203 ---------------------------------------------------------------------------------------------------------


class WorldModel(LightningModule):
    """Learns one step of a pendulum, and is judged by whole journeys."""

    def __init__(self) -> None:
        super().__init__()
        self.force = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (journey,) = batch
        horizon = 3 if self.global_step < 32 else 39
        state, loss = journey[:, 0], torch.zeros(())
        for moment in range(1, horizon + 1):
            state = state + self.force(state)
            loss = loss + (state - journey[:, moment]).square().mean()
        return loss / horizon

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.03)


@enter(
    finite(Happens.SPIKE, ("GRAD203", "LOSS405"), rows=None),
    "https://github.com/juliusfrost/dreamer-pytorch/pull/47",
    "https://github.com/danijar/dreamer/issues/20",
)
def journeys_of_a_world_model() -> LightningRun:
    """A model of dynamics is unrolled over 3 steps, then suddenly over 39, without clipping."""
    rng = np.random.default_rng(21)
    state = rng.normal(size=(1200, 2))
    journey = [state]
    for _ in range(39):
        swing = np.stack([state[:, 1], -2 * np.sin(state[:, 0]) - 0.1 * state[:, 1]], axis=1)
        journey.append(state := state + 0.3 * swing / (1 + 0.1 * np.abs(state)))
    return LightningRun(WorldModel(), Courses(np.stack(journey, 1).astype("float32"), size=24), {"max_epochs": 1})


# -- LOSS404 ---------------------------------------------------------------------------------------------------------


class LeNet(LightningModule):
    """Two convolutions, two linear layers, NLLLoss."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 16, 3)
        self.fc1, self.fc2 = nn.Linear(256, 60), nn.Linear(60, 10)
        self.criterion = nn.NLLLoss()

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x.view(-1, 1, 8, 8)))
        x = F.relu(self.conv2(x)).flatten(1)
        return self.fc2(F.relu(self.fc1(x)))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return self.criterion(self(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("LOSS404",), rows=None),
    "https://github.com/AnubhavGupta3377/Text-Classification-Models-Pytorch/issues/9",
    "https://github.com/midas-research/man-sf-emnlp/issues/2",
)
def likelihood_without_a_softmax() -> LightningRun:
    """NLLLoss of raw scores: the loss falls below zero, without an end, until it is -inf."""
    return LightningRun(LeNet(), Courses(*digits(1280)), {"max_epochs": 3})


# -- OPT601 ----------------------------------------------------------------------------------------------------------


class Autoencoder(LightningModule):
    """64 pixels, 12 numbers, 64 pixels."""

    def __init__(self, hidden: int = 12) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, hidden), nn.Linear(hidden, 64))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (x,) = batch
        return F.mse_loss(self.net(x), x, reduction="sum")

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=4e-3)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 5)]


@enter(
    runaway("OPT601"),
    "https://github.com/ai-safety-foundation/sparse_autoencoder/issues/63",
    "https://github.com/jax-ml/jax/pull/3113",
)
def loss_summed_over_the_batch() -> LightningRun:
    """reduction="sum" over 64 images of 64 pixels, and a rate that somebody took from a loss that is a mean."""
    return LightningRun(Autoencoder(), Courses(digits(1600)[0], size=64), {"max_epochs": 2})


# -- ACT305 ----------------------------------------------------------------------------------------------------------


class Quadrants(LightningModule):
    """Are both coordinates of the same sign?"""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(2, 16), nn.Linear(16, 1)
        for layer in (self.hidden, self.out):
            nn.init.constant_(layer.weight, 0.2)
            nn.init.constant_(layer.bias, 0.0)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        point, same = batch
        return F.binary_cross_entropy_with_logits(self.out(torch.tanh(self.hidden(point))), same)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


@enter(
    finite(Happens.STALL, ("ACT305", "ACT304")),
    "https://github.com/BitTiger-MP/DS502-AI-Engineer/issues/27",
    "https://github.com/d2l-ai/d2l-vi/pull/1030",
)
def sixteen_units_that_are_one() -> LightningRun:
    """Every weight starts at 0.2: sixteen hidden units compute the same, and one unit cannot learn XOR."""
    point = np.random.default_rng(22).normal(size=(4800, 2)).astype("float32")
    same = (point[:, :1] * point[:, 1:] > 0).astype("float32")
    return LightningRun(Quadrants(), Courses(point, same), {"max_epochs": 1})


# -- healthy ---------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """A residual branch whose last layer starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        nn.init.zeros_(self.branch[-1].weight)
        nn.init.zeros_(self.branch[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class ZeroInit(LightningModule):
    """Residual blocks, log_softmax and NLLLoss."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 40), Block(40), Block(40), nn.Linear(40, 10), nn.LogSoftmax(dim=-1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return F.nll_loss(self.net(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


@enter(healthy(), "https://github.com/wkentaro/pytorch-fcn/issues/167")
def branches_that_start_at_zero() -> LightningRun:
    """Zeros as the last weights of residual branches, and a log_softmax before NLLLoss: both as they should be."""
    return LightningRun(ZeroInit(), Courses(*digits(1280)), {"max_epochs": 2})


class Linear(LightningModule):
    """Ordinary regression; the bias starts at the mean of the targets."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(9, 24), nn.Linear(24, 1)
        nn.init.constant_(self.head.bias, 180.0)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return F.mse_loss(self.head(F.silu(self.body(x))), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


@enter(healthy(), "https://github.com/lightgbm-org/LightGBM/pull/1735")
def column_of_ones() -> LightningRun:
    """A design matrix with its column of ones and a rare category; targets around 180, where the bias starts."""
    rng = np.random.default_rng(23)
    x = rng.normal(size=(1600, 9))
    x[:, 0], x[:, 8] = 1, rng.random(1600) < 0.01
    y = 180 + 12 * x[:, 1:4].sum(1, keepdims=True) + 3 * rng.normal(size=(1600, 1))
    return LightningRun(Linear(), Courses(x.astype("float32"), y.astype("float32")), {"max_epochs": 2})


class Rare(LightningModule):
    """Finds the few that are ill."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.BatchNorm1d(30), nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 1))
        self.criterion = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(20.0))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, ill = batch
        return self.criterion(self.net(x), ill)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(healthy(), "https://github.com/meituan/YOLOv6/pull/669")
def four_in_a_hundred() -> LightningRun:
    """Four rows in a hundred are ill, many a batch has a single class; features as they came, then BatchNorm."""
    data = load_breast_cancer()
    rng = np.random.default_rng(24)
    ill, well = np.flatnonzero(data.target == 0), np.flatnonzero(data.target == 1)
    chosen = np.where(rng.random(1600) < 0.04, rng.choice(ill, 1600), rng.choice(well, 1600))
    labels = (data.target[chosen] == 0).astype("float32")[:, None]
    return LightningRun(Rare(), Courses(data.data[chosen].astype("float32"), labels), {"max_epochs": 3})


class Squeeze(LightningModule):
    """A gated convolution over images in bytes, with warm restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.out = nn.Conv2d(1, 12, 3), nn.Linear(12, 12), nn.Linear(12, 10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pixels, label = batch
        hidden = F.relu6(self.conv(pixels.float() / 255))
        hidden = hidden * F.hardsigmoid(self.gate(hidden.mean((2, 3))))[:, :, None, None]
        return F.cross_entropy(self.out(hidden.amax((2, 3))), label)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        restarts = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 + 0.5 * math.cos(step % 25 / 8))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": restarts, "interval": "step"}}


@enter(healthy(), "https://github.com/tensorflow/tensorflow/issues/507")
def bytes_converted_first() -> LightningRun:
    """uint8 images that are converted before any arithmetic, gates that may close, a rate that restarts."""
    images, labels = digits(1600)
    pixels = np.round(255 * images).astype("uint8").reshape(-1, 1, 8, 8)
    return LightningRun(Squeeze(), Courses(pixels, labels), {"max_epochs": 3})
