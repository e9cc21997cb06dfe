"""Runs that look dangerous and are right: odd losses, large numbers, long steps, labels that are to be ignored."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import LightningRun, enter, healthy
from benchmarks.diagnosis.tables import digits, regression, two_blobs


class _Adam(LightningModule):
    """Adam at a rate of each model's own."""

    rate = 3e-3

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.rate)


def _run(module: LightningModule, *columns: np.ndarray, size: int, **trainer: Any) -> LightningRun:
    narrow = [column.astype("float32") if column.dtype == np.float64 else column for column in columns]
    return LightningRun(module, in_order(*narrow, size=size), {"max_epochs": 1, **trainer})


class Logarithms(_Adam):
    """Digits, through a log_softmax and then through a cross entropy, which applies it again."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10), nn.LogSoftmax(dim=1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        image, label = batch
        return F.cross_entropy(self.net(image), label)


@enter(healthy(), "https://github.com/AICPS/hw2vec/issues/23")
def logarithm_of_a_softmax_applied_twice() -> LightningRun:
    """Logarithms of probabilities are scores as good as any: a second log_softmax leaves them as they are."""
    return _run(Logarithms(), *digits(1440), size=24)


class Spread(_Adam):
    """Mean and log-variance of a target in small units."""

    rate = 1e-2

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        mean, log_variance = self.net(x).unbind(1)
        return F.gaussian_nll_loss(mean, y.squeeze(1), log_variance.clamp(-12, 12).exp())


@enter(healthy(), "https://pytorch.org/docs/stable/generated/torch.nn.GaussianNLLLoss.html")
def likelihood_that_falls_below_zero() -> LightningRun:
    """Densities may be larger than 1, so their negative logarithm goes below 0: targets are a few hundredths."""
    x, y = regression(1440, seed=77)
    return _run(Spread(), x, y * np.float32(0.04), size=24)


class Visits(_Adam):
    """How often will a page be seen? From numbers between nothing and millions, by their logarithms."""

    rate = 1e-2

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        counts, seen = batch
        return F.mse_loss(self.net(torch.log1p(counts)).squeeze(1), torch.log1p(seen) / 5)


@enter(healthy(), "https://pytorch.org/docs/stable/generated/torch.log1p.html")
def visits_from_none_to_millions() -> LightningRun:
    """Counts of six magnitudes, zeros among them, but the model takes log1p of them first and normalises."""
    rng = np.random.default_rng(7703)
    counts = np.floor(np.exp(rng.uniform(0, 14, (24 * 50, 6))) - 1)
    return _run(Visits(), counts, np.floor(counts[:, 0] / 3 + counts[:, 1] / 5), size=24)


class Logistic(LightningModule):
    """Logistic regression by gradient descent at a rate of 2."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(8, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return F.binary_cross_entropy_with_logits(self.score(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=2.0)


@enter(healthy(), "https://pytorch.org/docs/stable/generated/torch.optim.SGD.html")
def logistic_regression_at_a_rate_of_two() -> LightningRun:
    """A convex loss of standardised columns has little curvature, and a rate of 2 is none too high for it."""
    x, y = two_blobs(1200, gap=0.8, seed=78)
    return _run(Logistic(), x, y, size=48)


class Drum(_Adam):
    """A round drum under load, by its differential equation; the distance from the centre is a root with an epsilon."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (point,) = batch
        point = point.requires_grad_()
        radius = torch.sqrt(point.square().sum(1, keepdim=True) + 1e-3)
        height = (1 - radius.square()) * self.net(radius)
        slope = torch.autograd.grad(height.sum(), point, create_graph=True)[0]
        curve = [torch.autograd.grad(slope[:, i].sum(), point, create_graph=True)[0][:, i] for i in range(2)]
        return (curve[0] + curve[1] + 1).square().mean()


@enter(healthy(), "https://github.com/prateekbhustali/Physics-Informed-Neural-Networks/issues/1")
def drum_with_a_careful_centre() -> LightningRun:
    """Second derivatives of a distance, with the centre itself among the points; an epsilon keeps the root off zero."""
    rng = np.random.default_rng(7705)
    point = rng.uniform(-0.7, 0.7, (32 * 45, 2))
    point[::32] = 0
    return _run(Drum(), point, size=32)


class Triplets(_Adam):
    """Digits as points; another picture of the same digit should be nearer than one of another digit."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 8))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        anchor, same, other = (self.net(part) for part in batch)
        return F.triplet_margin_loss(anchor, same, other, margin=0.3)


@enter(healthy(), "https://pytorch.org/docs/stable/generated/torch.nn.TripletMarginLoss.html")
def triplets_that_are_told_apart() -> LightningRun:
    """A loss with a margin becomes exactly 0 for most triplets, and for some batches all gradients do: it is done."""
    rng = np.random.default_rng(7706)
    images, labels = digits(1797)
    zeros, ones = images[labels == 0], images[labels == 1]
    draw = [zeros[rng.integers(0, len(zeros), 720)], zeros[rng.integers(0, len(zeros), 720)]]
    return _run(Triplets(), *draw, ones[rng.integers(0, len(ones), 720)], size=12)


class Clouds(_Adam):
    """Where are clouds in a small picture? By one minus the intersection over union, with 1 added above and below."""

    rate = 1e-2

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        sky, cloud = batch
        chance = torch.sigmoid(self.net(sky))
        both = (chance * cloud).sum((1, 2, 3))
        either = chance.sum((1, 2, 3)) + cloud.sum((1, 2, 3)) - both
        return 1 - ((both + 1) / (either + 1)).mean()


@enter(healthy(), "https://github.com/qubvel-org/segmentation_models.pytorch/issues/463")
def skies_without_a_cloud() -> LightningRun:
    """Half of the masks are empty; what is added above and below the line makes their quotient 1 and not 0/0."""
    rng = np.random.default_rng(7707)
    blocks = (rng.uniform(size=(16 * 60, 1, 4, 4)) < 0.3) * (rng.uniform(size=(16 * 60, 1, 1, 1)) < 0.5)
    cloud = np.kron(blocks, np.ones((1, 1, 3, 3)))
    return _run(Clouds(), cloud + 0.3 * rng.normal(size=cloud.shape), cloud, size=16)


class Patches(_Adam):
    """Kinds of land, pixel by pixel; most pixels of a picture have no label, which is written as -100."""

    rate = 1e-2

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        land, kind = batch
        return F.cross_entropy(self.net(land), kind, ignore_index=-100)


@enter(healthy(), "https://pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html")
def pixels_that_nobody_labelled() -> LightningRun:
    """Nine of ten labels are -100, far below every class, and the loss is told to ignore exactly these."""
    rng = np.random.default_rng(7708)
    kind = rng.integers(0, 4, (16 * 50, 8, 8))
    colour = rng.normal(size=(4, 3)) * 1.5
    land = np.moveaxis(colour[kind], 3, 1) + 0.4 * rng.normal(size=(len(kind), 3, 8, 8))
    return _run(Patches(), land, np.where(rng.uniform(size=kind.shape) < 0.1, kind, -100), size=16)
