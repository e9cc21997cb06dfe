"""Likelihoods and scores written by hand: counts, directions, lifetimes, ranks and forecasts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import LightningRun, enter, non_finite


class _Perceptron(LightningModule):
    """Two layers and Adam; what is minimised is told by each model."""

    def __init__(self, inputs: int, outputs: int = 1, rate: float = 3e-3) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(inputs, 24), nn.Tanh(), nn.Linear(24, outputs))
        self.rate = rate

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.rate)


def _run(module: LightningModule, *columns: np.ndarray, size: int) -> LightningRun:
    narrow = [column.astype("float32") if column.dtype == np.float64 else column for column in columns]
    return LightningRun(module, in_order(*narrow, size=size), {"max_epochs": 1})


class Heading(_Perceptron):
    """Course of a ship, with a von Mises distribution whose concentration is one over the squared jitter."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        state, jitter, course = batch
        kappa = 1 / jitter.square()
        normaliser = torch.log(2 * math.pi * torch.special.i0(kappa))
        return (normaliser - kappa * torch.cos(course - self.net(state).squeeze(1))).mean()


@enter(
    non_finite("NAN110", ("i0", "bessel_i0"), "torch.special.i0(kappa)", modules=("",), rows=(4,)),
    "https://github.com/stan-dev/math/issues/1076",
    "https://github.com/pymc-devs/pymc/pull/2832",
)
def heading_of_a_moored_ship() -> LightningRun:
    """The Bessel function of a von Mises density overflows; one ship is moored and its compass hardly trembles."""
    rng = np.random.default_rng(7101)
    state = rng.normal(size=(24 * 45, 5))
    jitter = rng.uniform(0.3, 0.9, len(state))
    jitter[29 * 24 + 4] = 0.07
    course = np.tanh(state[:, 0] - state[:, 1]) + jitter * rng.normal(size=len(state))
    return _run(Heading(5), state, jitter, course, size=24)


class Parasites(_Perceptron):
    """Eggs counted in a sample, negative binomial."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        animal, eggs = batch
        mean, size = F.softplus(self.net(animal)).unbind(1)
        size = size + 0.1
        ways = torch.lgamma(size + eggs) - torch.lgamma(size) - torch.lgamma(eggs)
        chance = ways + size * torch.log(size / (size + mean)) + eggs * torch.log(mean / (size + mean) + 1e-8)
        return -chance.mean()


@enter(
    non_finite(("NAN114", "NAN111"), "lgamma", "- torch.lgamma(eggs)", modules=("",), rows=(2, 13)),
    "https://github.com/OmicsML/dance/issues/166",
    "https://github.com/scverse/scvi-tools/issues/2965",
)
def parasites_of_a_healthy_sheep() -> LightningRun:
    """The factorial of a count is lgamma(y + 1); the 1 was forgotten, and nobody saw it until two sheep had no eggs."""
    rng = np.random.default_rng(7102)
    animal = rng.normal(size=(32 * 42, 6))
    eggs = 1 + rng.poisson(np.exp(1 + 0.5 * animal[:, 0]))
    eggs[[33 * 32 + 2, 33 * 32 + 13]] = 0
    return _run(Parasites(6, 2), animal, eggs.astype("float64"), size=32)


class Ferry(_Perceptron):
    """Passengers of a ferry that has at least one: a Poisson distribution without its zero."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        weather, crossings, passengers = batch
        rate = crossings * torch.exp(self.net(weather).squeeze(1))
        somebody = torch.log(1 - torch.exp(-rate))
        return (rate - passengers * torch.log(rate + 1e-6) + somebody).mean()


@enter(
    non_finite("NAN111", "log", "somebody = torch.log(1 - torch.exp(-rate))", modules=("",), rows=(17,)),
    "https://github.com/stan-dev/stan/issues/2015",
    "https://github.com/pymc-devs/pymc/pull/1089",
)
def ferry_that_did_not_sail() -> LightningRun:
    """A truncated Poisson loss takes log(1 - exp(-rate)); on a stormy day there was not one crossing, and rate is 0."""
    rng = np.random.default_rng(7103)
    weather = rng.normal(size=(20 * 48, 4))
    crossings = rng.integers(1, 6, len(weather)).astype("float64")
    passengers = np.maximum(1, rng.poisson(crossings * np.exp(0.4 * weather[:, 1])))
    crossings[37 * 20 + 17] = 0
    return _run(Ferry(4), weather, crossings, passengers.astype("float64"), size=20)


class Gompertz(_Perceptron):
    """Age at death under the law of Gompertz: the hazard grows exponentially with age."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        person, age = batch
        level, pace = self.net(person).unbind(1)
        level, pace = level - 7, 0.08 + 0.02 * torch.tanh(pace)
        survived = torch.exp(level) / pace * (torch.exp(pace * age) - 1)
        return (survived - level - pace * age).mean()


@enter(
    non_finite(("NAN110", "DATA503", "DATA504"), "exp", "(torch.exp(pace * age) - 1)", modules=("",), rows=(9, 21)),
    "https://github.com/scipy/scipy/pull/16559",
    "https://pytorch.org/docs/stable/notes/numerical_accuracy.html",
)
def age_in_days_under_gompertz() -> LightningRun:
    """A hazard that is exponential in years meets two persons whose age was written down in days."""
    rng = np.random.default_rng(7104)
    person = rng.normal(size=(24 * 44, 5))
    age = np.clip(75 + 6 * person[:, 0] + 8 * rng.normal(size=len(person)), 20, 104)
    age[[26 * 24 + 9, 26 * 24 + 21]] *= 365.25
    return _run(Gompertz(5, 2), person, age, size=24)


class Exam(_Perceptron):
    """Share of the points in an exam; what is predicted is its logit."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        answers, share = batch
        return F.mse_loss(self.net(answers).squeeze(1), torch.logit(share))


@enter(
    non_finite(
        ("NAN111", "NAN112", "NAN114"),
        ("logit", "log", "divide"),
        "torch.logit(share)",
        modules=("",),
        rows=(6, 15),
    ),
    "https://pytorch.org/docs/stable/generated/torch.logit.html",
)
def student_with_full_marks() -> LightningRun:
    """The logit of a share of exactly 1 is infinite; two students had every point."""
    rng = np.random.default_rng(7105)
    answers = rng.normal(size=(16 * 60, 6))
    share = 1 / (1 + np.exp(-answers[:, 0] + 0.3 * answers[:, 1]))
    share = np.round(np.clip(share, 0.02, 0.98), 2)
    share[[41 * 16 + 6, 41 * 16 + 15]] = 1
    return _run(Exam(6), answers, share, size=16)


class Diversity(nn.Module):
    """Shannon's index of the shares of species, appended to them."""

    def forward(self, counts: Tensor) -> Tensor:
        share = counts / counts.sum(1, keepdim=True)
        index = -(share * torch.log2(share)).sum(1, keepdim=True)
        return torch.cat([share, index], 1)


class Meadow(LightningModule):
    """Yield of a meadow from the plants in a square metre of it."""

    def __init__(self) -> None:
        super().__init__()
        self.diversity = Diversity()
        self.net = nn.Sequential(nn.Linear(9, 24), nn.ReLU(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        counts, hay = batch
        return F.smooth_l1_loss(self.net(self.diversity(counts)).squeeze(1), hay)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


@enter(
    non_finite(
        "NAN111", ("log2", "log", "multiply"), "index = -(share * torch.log2(share))", modules=("diversity",), rows=(8,)
    ),
    "https://github.com/scikit-learn/scikit-learn/pull/10142",
    "https://pytorch.org/docs/stable/special.html#torch.special.xlogy",
)
def species_that_was_not_seen() -> LightningRun:
    """Shannon's index is a share times its logarithm; on one meadow a species is missing, and 0 times -Inf is NaN."""
    rng = np.random.default_rng(7107)
    counts = 1 + rng.poisson(4, (24 * 40, 8)).astype("float64")
    hay = np.log(counts[:, 0]) - 0.5 * np.log(counts[:, 3])
    counts[28 * 24 + 8, 5] = 0
    return _run(Meadow(), counts, hay, size=24)


class Shelf(LightningModule):
    """Sales of next week by a convolution over those of twenty; scaled by how well last week's number would do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(1, 8, 5), nn.ReLU(), nn.Flatten(), nn.Linear(128, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        past, following = batch
        naive = (past[:, 1:] - past[:, :-1]).abs().mean(1)
        error = (self.net(past[:, None]).squeeze(1) - following).abs()
        return (error / naive).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN112", "divide", "return (error / naive).mean()", modules=("",), rows=(19,)),
    "https://github.com/awslabs/gluonts/pull/3316",
    "https://github.com/Nixtla/neuralforecast/issues/72",
)
def sales_that_never_changed() -> LightningRun:
    """A scaled error divides by the mean change from week to week; one article sold four pieces in every week."""
    rng = np.random.default_rng(7108)
    series = 3 + np.cumsum(0.3 * rng.normal(size=(24 * 45, 21)), axis=1)
    series[31 * 24 + 19] = 4
    return _run(Shelf(), series[:, :20], series[:, 20], size=24)


class Tasting(_Perceptron):
    """Scores of wines, learned through one minus Pearson's correlation within the batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        wine, points = batch
        guess = self.net(wine).squeeze(1)
        guess, points = guess - guess.mean(), points - points.mean()
        correlation = (guess * points).sum() / (guess.norm() * points.norm())
        return 1 - correlation


@enter(
    non_finite("NAN112", "divide", "correlation = (guess * points).sum() / (guess.norm()", modules=("",)),
    "https://github.com/NVIDIA-Genomics-Research/AtacWorks/pull/104",
    "https://github.com/Lightning-AI/torchmetrics/issues/2920",
)
def flight_of_wines_that_all_got_ninety() -> LightningRun:
    """A correlation has the spread of the targets in its divisor; in one batch every wine got 90 points."""
    rng = np.random.default_rng(7109)
    wine = rng.normal(size=(16 * 55, 5))
    points = np.round(88 + 2 * wine[:, 0] + wine[:, 1])
    points[38 * 16 : 39 * 16] = 90
    return _run(Tasting(5), wine, points, size=16)
