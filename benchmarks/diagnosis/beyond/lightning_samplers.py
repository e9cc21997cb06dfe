"""Models that generate and compare: a flow, a critic with a penalty, a denoiser, twins; what breaks in their losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.program import Happens, LightningRun, enter, finite, healthy, non_finite
from benchmarks.diagnosis.tables import digits


def loader(*columns: np.ndarray, size: int = 32) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*(torch.as_tensor(column) for column in columns)), batch_size=size)


def patches(rows: int, seed: int) -> np.ndarray:
    """Grey patches of 16 pixels, all of them well between black and white."""
    rng = np.random.default_rng(seed)
    slope = rng.normal(size=(rows, 1)) * np.linspace(-1, 1, 16) + 0.3 * rng.normal(size=(rows, 16))
    return (0.5 + 0.35 * np.tanh(slope)).astype("float32")


# -- a flow ----------------------------------------------------------------------------------------------------------


class Coupling(nn.Module):
    """Half of the numbers scales and shifts the other half; the scale is bounded."""

    def __init__(self, size: int, flip: bool) -> None:
        super().__init__()
        self.flip = flip
        self.net = nn.Sequential(nn.Linear(size // 2, 32), nn.ReLU(), nn.Linear(32, size))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = x.chunk(2, 1)[::-1] if self.flip else x.chunk(2, 1)
        scale, shift = self.net(kept).chunk(2, 1)
        scale = torch.tanh(scale)
        moved = moved * scale.exp() + shift
        return torch.cat((moved, kept) if self.flip else (kept, moved), 1), scale.sum(1)


class Logit(nn.Module):
    """From the unit interval to the real line, as the flow's paper does it, but without its margin."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        odds = torch.log(x) - torch.log1p(-x)
        return odds, (F.softplus(odds) + F.softplus(-odds)).sum(1)


class RealNVP(LightningModule):
    """Density of image patches."""

    def __init__(self, steps: list[nn.Module]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (z,) = batch
        volume = torch.zeros(len(z))
        for step in self.steps:
            z, change = step(z)
            volume = volume + change
        prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
        return -(prior + volume).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    non_finite(
        ("NAN111", "DATA505", "DATA503"),
        "log",
        "odds = torch.log(x) - torch.log1p(-x)",
        modules=("steps.0",),
        rows=(21,),
    ),
    "https://github.com/VincentStimper/normalizing-flows/issues/47",
    "https://github.com/MokkeMeguru/glow-realnvp-tutorial/issues/3",
)
def patch_with_a_black_corner() -> LightningRun:
    """A flow takes the logit of pixels without a margin; one patch has a pixel that is exactly black."""
    pixels = patches(32 * 45, 7101)
    pixels[33 * 32 + 21, 3] = 0.0
    couplings = [Coupling(16, False), Coupling(16, True), Coupling(16, False)]
    return LightningRun(RealNVP([Logit(), *couplings]), loader(pixels), {"max_epochs": 1})


@enter(
    healthy(),
    "https://github.com/VincentStimper/normalizing-flows/issues/29",
    "https://github.com/cpmpercussion/keras-mdn-layer/issues/42",
)
def likelihood_of_narrow_patches() -> LightningRun:
    """A flow's negative log-likelihood crosses zero and goes on falling; densities above one are no fault."""
    pixels = patches(32 * 45, 7102)
    return LightningRun(
        RealNVP([Coupling(16, index % 2 == 1) for index in range(4)]), loader(pixels - 0.5), {"max_epochs": 2}
    )


# -- a critic with a penalty -----------------------------------------------------------------------------------------


class PenalisedCritic(LightningModule):
    """A critic against a frozen painter, with the gradient penalty at the real pictures (R1 with a target of 1)."""

    def __init__(self, floor: float = 0.0) -> None:
        super().__init__()
        self.floor = floor
        self.painter = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64), nn.Sigmoid()).requires_grad_(False)
        self.critic = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(128, 1, bias=False)
        )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        real = batch[0].view(-1, 1, 8, 8).requires_grad_(True)
        forged = self.painter(torch.randn(len(real), 8)).view(-1, 1, 8, 8)
        score = self.critic(real)
        (slope,) = torch.autograd.grad(score.sum(), real, create_graph=True)
        length = torch.sqrt(slope.square().sum((1, 2, 3)) + self.floor)
        return self.critic(forged).mean() - score.mean() + 10 * (length - 1).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.critic.parameters(), lr=1e-3, betas=(0.0, 0.9))


@enter(
    non_finite(
        "NAN113",
        "sqrt",
        "length = torch.sqrt(slope.square().sum((1, 2, 3)) + self.floor)",
        modules=("",),
        rows=(13,),
        phase="backward",
    ),
    "https://github.com/keras-team/keras-io/issues/910",
    "https://github.com/pytorch/pytorch/issues/2534",
    "https://github.com/tdeboissiere/DeepLearningImplementations/issues/68",
)
def penalty_at_an_empty_picture() -> LightningRun:
    """Gradient penalty by sqrt of a sum of squares; at an empty picture the rectified critic has no slope at all."""
    images, _ = digits(1280)
    images[28 * 32 + 13] = 0.0
    return LightningRun(PenalisedCritic(), loader(images), {"max_epochs": 1})


@enter(
    healthy(),
    "https://github.com/keras-team/keras-io/pull/2364",
    "https://github.com/igul222/improved_wgan_training/issues/79",
)
def penalty_with_a_floor_under_its_root() -> LightningRun:
    """The same penalty with an epsilon under the root; an empty picture does no harm, and a loss below 0 is right."""
    images, _ = digits(1280)
    images[28 * 32 + 13] = 0.0
    return LightningRun(PenalisedCritic(1e-8), loader(images), {"max_epochs": 1})


# -- a denoiser ------------------------------------------------------------------------------------------------------


class Denoiser(LightningModule):
    """Preconditioned denoiser: skip, output and input scales, and the logarithm of the noise as its clock."""

    def __init__(self, rate: float = 2e-3) -> None:
        super().__init__()
        self.rate = rate
        self.net = nn.Sequential(nn.Linear(65, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 64))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, sigma = batch
        noisy = images + sigma * torch.randn_like(images)
        total = (sigma.square() + 0.25).sqrt()
        clock = sigma.log() / 4
        guess = self.net(torch.cat((noisy / total, clock), 1)) * (0.5 * sigma / total)
        clean = 0.25 / total.square() * noisy + guess
        weight = total.square() / (0.5 * sigma).square().clamp(min=1e-4)
        return (weight * (clean - images).square()).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.rate)


def noise_levels(rows: int, seed: int) -> np.ndarray:
    return np.exp(-1.2 + 1.0 * np.random.default_rng(seed).normal(size=(rows, 1))).clip(0.02, 20).astype("float32")


@enter(
    non_finite(("NAN111", "DATA505", "DATA503"), "log", "clock = sigma.log() / 4", modules=("",), rows=(6,)),
    "https://github.com/mmathew23/improved_edm/issues/2",
)
def picture_without_noise_on_the_clock() -> LightningRun:
    """A denoiser is told the logarithm of the noise; one picture was drawn with none."""
    images, _ = digits(1280)
    sigma = noise_levels(1280, 7103)
    sigma[30 * 32 + 6] = 0.0
    return LightningRun(Denoiser(), loader(2 * images - 1, sigma), {"max_epochs": 1})


@enter(
    finite(Happens.STALL, "OPT602"),
    "https://github.com/MPI-Lab/TPD/issues/11",
)
def denoiser_at_two_hundred_millionths() -> LightningRun:
    """A denoiser's rate of 2e-8, with four zeros more than was meant."""
    images, _ = digits(1280)
    return LightningRun(Denoiser(2e-8), loader(2 * images - 1, noise_levels(1280, 7104)), {"max_epochs": 3})


# -- twin towers -----------------------------------------------------------------------------------------------------


class Twins(LightningModule):
    """Redundancy reduction or variance and invariance: two noisy views of a picture through one encoder."""

    def __init__(self, variance: bool) -> None:
        super().__init__()
        self.variance = variance
        self.encoder = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 12))

    def redundancy(self, one: Tensor, two: Tensor) -> Tensor:
        one = (one - one.mean(0)) / one.std(0)
        two = (two - two.mean(0)) / two.std(0)
        alike = one.T @ two / len(one)
        off = alike - torch.diag(alike.diagonal())
        return (1 - alike.diagonal()).square().sum() + 0.01 * off.square().sum()

    def spread(self, code: Tensor) -> Tensor:
        centred = code - code.mean(0)
        deviation = centred.square().mean(0).sqrt()
        covariance = centred.T @ centred / len(code)
        off = covariance - torch.diag(covariance.diagonal())
        return F.relu(1 - deviation).mean() + 0.04 * off.square().sum() / code.shape[1]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (images,) = batch
        one, two = (images * (torch.rand_like(images) < 0.9) * 2 for _ in range(2))
        one, two = self.encoder(one), self.encoder(two)
        if self.variance:
            return F.mse_loss(one, two) + self.spread(one) + self.spread(two)
        return self.redundancy(one, two)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    non_finite("NAN112", ("div", "divide", "truediv"), "one = (one - one.mean(0)) / one.std(0)", modules=("",)),
    "https://github.com/IgorSusmelj/barlowtwins/issues/10",
)
def thirty_two_black_thumbnails() -> LightningRun:
    """Codes are standardised over the batch; a whole batch of thumbnails failed to download and is black."""
    images, _ = digits(1280)
    images[31 * 32 : 32 * 32] = 0.0
    return LightningRun(Twins(False), loader(images), {"max_epochs": 1})


@enter(
    non_finite("NAN113", "sqrt", "deviation = centred.square().mean(0).sqrt()", modules=("",), phase="backward"),
    "https://github.com/facebookresearch/vicreg/issues/27",
)
def spread_of_a_batch_of_copies() -> LightningRun:
    """A hinge on the deviation of codes, without its epsilon; one batch holds black pictures only."""
    images, _ = digits(1280)
    images[26 * 32 : 27 * 32] = 0.0
    return LightningRun(Twins(True), loader(images), {"max_epochs": 1})
