"""Healthy and borderline runs in Lightning: what looks wrong in them is meant, or harmless."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.program import LightningRun, enter, healthy
from benchmarks.diagnosis.tables import digits, regression, two_blobs


def loader(*arrays: np.ndarray, batch_size: int = 32) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*map(torch.from_numpy, arrays)), batch_size=batch_size)


class Simple(LightningModule):
    """A network, a loss, an optimizer."""

    def __init__(self, net: nn.Module, loss: Any, optimizer: Any) -> None:
        super().__init__()
        self.net, self.loss, self.optimizer = net, loss, optimizer

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return self.optimizer([p for p in self.parameters() if p.requires_grad])


class Causal(nn.Module):
    """Attention by hand with a mask of minus infinities."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(8, 16)
        self.head = nn.Linear(16, 10)
        self.register_buffer("mask", torch.full((8, 8), float("-inf")).triu(1))

    def forward(self, images: Tensor) -> Tensor:
        rows = images.view(-1, 8, 8)
        scores = self.q(rows) @ self.k(rows).transpose(1, 2) / 4 + self.mask
        return self.head((scores.softmax(-1) @ self.v(rows))[:, -1])


def adam(lr: float) -> Any:
    return lambda parameters: torch.optim.Adam(parameters, lr=lr)


@enter(healthy(), "https://github.com/pytorch/pytorch/issues/41508")
def causal_mask_of_infinities() -> LightningRun:
    """Minus infinity in an attention mask is legal."""
    return LightningRun(Simple(Causal(), F.cross_entropy, adam(3e-3)), loader(*digits()), {"max_epochs": 2})


@enter(healthy(), "https://github.com/udlbook/udlbook/issues/87")
def large_inputs_into_a_norm() -> LightningRun:
    """Inputs of a million, but a normalisation comes first."""
    images, labels = digits()
    net = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return LightningRun(Simple(net, F.cross_entropy, adam(3e-3)), loader(1e6 * images, labels), {"max_epochs": 2})


@enter(healthy(), "https://github.com/vitoralbiero/img2pose/issues/46")
def heavy_tails_under_huber() -> LightningRun:
    """Targets with heavy tails, under a loss that is made for them."""
    x, y = regression()
    y = y + 0.3 * np.random.default_rng(4).standard_t(2, y.shape).astype("float32")
    net = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1))
    return LightningRun(Simple(net, nn.HuberLoss(), adam(3e-3)), loader(x, y), {"max_epochs": 2})


@enter(healthy(), "https://github.com/NVIDIA/apex/issues/358")
def sure_classifier() -> LightningRun:
    """A classifier so sure that the loss underflows; the loss is the library's own."""
    x, y = two_blobs(gap=6.0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    return LightningRun(Simple(net, F.binary_cross_entropy_with_logits, adam(5e-2)), loader(x, y), {"max_epochs": 2})


@enter(healthy(), "https://theneuralbase.com/deep-learning-fundamentals/learn/beginner/dead-neurons-relu/")
def sparse_features() -> LightningRun:
    """Nine of ten rectified units are silent by design (a negative bias)."""
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    nn.init.constant_(net[0].bias, -0.6)
    return LightningRun(Simple(net, F.cross_entropy, adam(3e-3)), loader(*digits()), {"max_epochs": 2})


@enter(healthy(), "https://github.com/zylo117/Yet-Another-EfficientDet-Pytorch/issues/328")
def frozen_backbone() -> LightningRun:
    """Only the head is trained."""
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    for parameter in net[0].parameters():
        parameter.requires_grad_(False)
    return LightningRun(Simple(net, F.cross_entropy, adam(1e-2)), loader(*digits()), {"max_epochs": 2})


@enter(healthy(), "https://github.com/tensorflow/tensorflow/issues/38495")
def bfloat16_network() -> LightningRun:
    """bfloat16-mixed precision, nothing else."""
    net = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10))
    module = Simple(net, F.cross_entropy, adam(3e-3))
    return LightningRun(module, loader(*digits()), {"max_epochs": 2, "precision": "bf16-mixed"})


@enter(
    healthy(),
    "https://datascience.stackexchange.com/questions/15962/why-is-learning-rate-causing-my-neural-networks-weights-to-skyrocket",
)
def high_but_workable_rate() -> LightningRun:
    """A learning rate close to the edge: the loss jumps about, and falls."""
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    module = Simple(net, F.cross_entropy, lambda parameters: torch.optim.SGD(parameters, lr=0.7))
    return LightningRun(module, loader(*digits()), {"max_epochs": 2})


@enter(healthy(), "https://github.com/pytorch/pytorch/issues/23395")
def where_with_a_safe_argument() -> LightningRun:
    """A root behind `where`, with the argument made safe first, as it should be."""

    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            safe = torch.where(x > 0, x, torch.ones_like(x))
            return torch.where(x > 0, safe.sqrt(), torch.zeros_like(x))

    net = nn.Sequential(nn.Linear(64, 64), Root(), nn.Linear(64, 10))
    return LightningRun(Simple(net, F.cross_entropy, adam(3e-3)), loader(*digits()), {"max_epochs": 2})
