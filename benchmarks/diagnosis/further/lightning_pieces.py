"""Layers and gradients of one's own: bilinear features, correlations, solvers, products, views and widths."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import LightningRun, enter, non_finite
from benchmarks.diagnosis.tables import digits


class _Adam(LightningModule):
    """Adam at a rate of each model's own."""

    rate = 3e-3

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.rate)


def _run(module: LightningModule, *columns: np.ndarray, size: int) -> LightningRun:
    narrow = [column.astype("float32") if column.dtype == np.float64 else column for column in columns]
    return LightningRun(module, in_order(*narrow, size=size), {"max_epochs": 1})


class SignedRoot(torch.autograd.Function):
    """The signed square root of bilinear pooling."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        root = x.abs().sqrt()
        ctx.save_for_backward(root)
        return x.sign() * root

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        return slope / (2 * root)


class Minerals(_Adam):
    """Kind of a mineral from a spectrum, by squeezed features."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(20, 16, bias=False)
        self.head = nn.Linear(16, 3)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        spectrum, kind = batch
        return F.cross_entropy(self.head(SignedRoot.apply(self.mix(spectrum))), kind)


@enter(
    non_finite(
        ("NAN115", "NAN112", "NAN113"),
        None,
        ("return slope / (2 * root)", "SignedRoot.apply(self.mix(spectrum))"),
        phase="backward",
        rows=(20,),
    ),
    "https://pytorch.org/docs/stable/notes/extending.html",
    "https://pytorch.org/docs/stable/generated/torch.autograd.gradcheck.gradcheck.html",
)
def spectrum_with_the_shutter_closed() -> LightningRun:
    """A signed root has a gradient by hand that divides by the root; a spectrum of zeros makes it infinite."""
    rng = np.random.default_rng(7301)
    kind = rng.integers(0, 3, 24 * 45)
    spectrum = rng.uniform(0, 1, (len(kind), 20))
    spectrum[np.arange(len(kind)), 4 * kind] += 1.5
    spectrum[29 * 24 + 20] = 0
    return _run(Minerals(), spectrum, kind, size=24)


class FisherZ(nn.Module):
    """Correlations of brain regions on an unbounded scale."""

    def forward(self, correlation: Tensor) -> Tensor:
        return torch.atanh(correlation)


class Connectome(_Adam):
    """Age from the correlations of brain regions."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(FisherZ(), nn.Linear(15, 24), nn.ReLU(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        correlation, age = batch
        return F.mse_loss(self.net(correlation).squeeze(1), age)


@enter(
    non_finite(
        ("NAN114", "NAN112", "NAN111"),
        ("arctanh", "atanh"),
        "return torch.atanh(correlation)",
        modules=("net.0",),
        rows=(13,),
    ),
    "https://pytorch.org/docs/stable/generated/torch.atanh.html",
)
def two_regions_with_the_same_signal() -> LightningRun:
    """Fisher's transform of a correlation of exactly 1 is infinite: one region was entered twice under two names."""
    rng = np.random.default_rng(7302)
    correlation = rng.uniform(-0.6, 0.9, (16 * 48, 15))
    age = np.arctanh(correlation[:, 2]) - np.arctanh(correlation[:, 7])
    correlation[33 * 16 + 13, 9] = 1
    return _run(Connectome(), correlation, age, size=16)


class Lake(_Adam):
    """Fish after a season: rates of growth and of hunting are learned through sixty steps of Euler."""

    rate = 1e-2

    def __init__(self) -> None:
        super().__init__()
        self.rates = nn.Parameter(torch.tensor([0.5, 0.5, 0.5]))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        start, end = batch
        roach, pike = start.unbind(1)
        for _ in range(60):
            eaten = self.rates[1] * roach * pike
            roach, pike = roach + 0.1 * (self.rates[0] * roach - eaten), pike + 0.1 * (eaten - self.rates[2] * pike)
        return F.mse_loss(torch.stack([roach, pike], 1), end)


@enter(
    non_finite(("NAN110", "DATA503"), ("multiply",), "eaten = self.rates[1] * roach * pike", modules=("",), rows=(2,)),
    "https://github.com/rtqichen/torchdiffeq/issues/58",
    "https://pytorch.org/docs/stable/notes/numerical_accuracy.html",
)
def lake_counted_in_single_fish() -> LightningRun:
    """Predator and prey in thousands; one lake is given in single fish, and sixty explicit steps blow up."""
    rng = np.random.default_rng(7303)
    start = rng.uniform(0.5, 1.5, (16 * 40, 2))
    roach, pike = start.T
    for _ in range(60):
        eaten = 0.8 * roach * pike
        roach, pike = roach + 0.1 * (0.6 * roach - eaten), pike + 0.1 * (eaten - 0.7 * pike)
    start[27 * 16 + 2] *= 1000
    return _run(Lake(), start, np.stack([roach, pike], 1), size=16)


class Pairs(_Adam):
    """Two noisy views of a digit should be alike; exponentials of similarities over a temperature, as in the paper."""

    rate = 5e-3

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        image, _ = batch
        one, other = (F.normalize(self.net(image + 1.5 * torch.randn_like(image)), dim=1) for _ in range(2))
        alike = torch.exp(one @ other.T / 0.011)
        return -(alike.diagonal() / alike.sum(1)).log().mean()


@enter(
    non_finite(
        "NAN110",
        ("exp", "sum"),
        ("alike = torch.exp(one @ other.T / 0.011)", "return -(alike.diagonal() / alike.sum(1)).log().mean()"),
        modules=("",),
        rows=None,
    ),
    "https://github.com/Lightning-Universe/lightning-bolts/issues/811",
    "https://github.com/huggingface/sentence-transformers/issues/2774",
)
def views_that_come_to_agree() -> LightningRun:
    """At a low temperature exp of a similarity near 1 is beyond any float; it begins lower, and training raises it."""
    images, labels = digits(1440)
    images = images - images.mean(0)
    return _run(Pairs(), images, labels, size=24)
