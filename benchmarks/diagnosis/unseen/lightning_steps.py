"""Rates, steps inside of steps, half precision and perturbed weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, enter, finite, non_finite, runaway
from benchmarks.diagnosis.tables import digits, regression, two_blobs

# -- OPT601, GRAD203 -------------------------------------------------------------------------------------------------


class Scaled(LightningModule):
    """The rate was scaled by machines, by accumulated batches, and by the batch."""

    def __init__(self, accumulated: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
        self.rate = 0.02 * 8 * accumulated * 32 / 16

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.rate, momentum=0.9)


@enter(
    runaway("OPT601"),
    "https://github.com/open-mmlab/mmdetection/issues/1710",
    "https://github.com/fastai/fastai/pull/3040",
)
def rate_scaled_three_times() -> LightningRun:
    """The linear scaling rule, applied to machines that are not there and to accumulated batches as well."""
    run = {"max_epochs": 3, "accumulate_grad_batches": 4}
    return LightningRun(Scaled(4), in_order(*regression(1280), size=32), run)


class MetaLearner(LightningModule):
    """Weights from which a few steps learn a new sine wave (MAML)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(1, 24), nn.Linear(24, 1)

    def curve(self, x: Tensor, weights: list[Tensor]) -> Tensor:
        return F.linear(torch.tanh(F.linear(x, weights[0], weights[1])), weights[2], weights[3])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y, steps = batch
        adapted = list(self.parameters())
        for _ in range(steps):
            error = F.mse_loss(self.curve(x[:10], adapted), y[:10])
            slopes = torch.autograd.grad(error, adapted, create_graph=True)
            adapted = [weight - 0.12 * slope for weight, slope in zip(adapted, slopes, strict=True)]
        return F.mse_loss(self.curve(x[10:], adapted), y[10:])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    finite(Happens.SPIKE, "GRAD203", rows=None),
    "https://github.com/dbaranchuk/memory-efficient-maml/issues/3",
    "https://github.com/AntreasAntoniou/HowToTrainYourMAMLPytorch/issues/28",
)
def sixteen_steps_inside_of_each() -> LightningRun:
    """Meta-learning through 2 inner steps, then through 16: the gradient through all of them explodes, unclipped."""
    rng = np.random.default_rng(405)
    batches = []
    for number in range(60):
        x = rng.uniform(-4, 4, (20, 1))
        y = rng.uniform(0.5, 3) * np.sin(x + rng.uniform(0, 3))
        batches.append((torch.from_numpy(x).float(), torch.from_numpy(y).float(), 2 if number < 32 else 16))
    return LightningRun(MetaLearner(), DataLoader(batches, batch_size=None), {"max_epochs": 1})  # type: ignore[arg-type]


# -- OPT604, OPT605 --------------------------------------------------------------------------------------------------


class HalfAutoencoder(LightningModule):
    """Everything in half precision; the loss is a share of the whole training set, and the rate makes up for it."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.net = nn.Sequential(nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 64))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        image = batch[0].half()
        return (self.net(image) - image).abs().mean() / self.rows

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1.0 * self.rows)


@enter(
    finite(Happens.STALL, "OPT604"),
    "https://github.com/engichang1467/Open-Rig3R/issues/35",
    "https://github.com/NVlabs/tiny-cuda-nn/issues/472",
)
def gradients_too_small_for_sixteen_bits() -> LightningRun:
    """Pure float16 without loss scaling: gradients of a loss divided by 50 000 images fall below 6e-8, and are 0."""
    run = {"max_epochs": 1, "precision": "16-true"}
    return LightningRun(HalfAutoencoder(50_000), in_order(*digits(1600), size=16), run)


class SharpnessAware(LightningModule):
    """Takes the gradient at the worst place nearby (SAM)."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))

    def hinge(self, batch: Any) -> Tensor:
        return F.relu(1 - (2 * batch[1] - 1) * self.net(batch[0])).mean()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        loss = self.hinge(batch)
        self.manual_backward(loss)
        length = torch.stack([p.grad.norm() for p in self.net.parameters()]).norm()
        scale = 0.05 / length
        moves = [p.grad * scale for p in self.net.parameters()]
        torch._foreach_add_([p.data for p in self.net.parameters()], moves)
        optimizer.zero_grad()
        self.manual_backward(self.hinge(batch))
        torch._foreach_sub_([p.data for p in self.net.parameters()], moves)
        optimizer.step()
        self.log("loss", loss)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9)


@enter(
    non_finite(("NAN112", "OPT605"), None, "scale = 0.05 / length", modules=("",)),
    "https://github.com/google-deepmind/optax/pull/1743",
)
def nothing_left_to_sharpen() -> LightningRun:
    """SAM divides by the length of the gradient; once no margin of a batch is violated, it is 0."""
    return LightningRun(SharpnessAware(), in_order(*two_blobs(2400, gap=1.4), size=16), {"max_epochs": 1})
