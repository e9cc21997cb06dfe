"""Generators and embeddings: diffusion, a flow, discrete codes, faces, and losses that compare all with all."""

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
from benchmarks.diagnosis.tables import digits

# -- diffusion -------------------------------------------------------------------------------------------------------


class NoiseSchedule(nn.Module):
    """A linear schedule, stretched so that few steps add as much noise as a thousand."""

    betas: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        stretch = 1000 / steps
        self.register_buffer("betas", torch.linspace(1e-4 * stretch, 0.02 * stretch, steps))

    def forward(self, image: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        kept = torch.cumprod(1 - self.betas, 0)[step].unsqueeze(1)
        return kept.sqrt() * image + (1 - kept).sqrt() * noise


class TinyDiffusion(LightningModule):
    """Predicts the noise; later steps join in as the training goes on."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.noisy = NoiseSchedule(steps)
        self.time = nn.Embedding(steps, 16)
        self.net = nn.Sequential(nn.Linear(80, 96), nn.SiLU(), nn.Linear(96, 64))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        image = 2 * batch[0] - 1
        reach = min(self.steps, 2 + self.global_step // 2)
        step, noise = torch.randint(0, reach, (len(image),)), torch.randn_like(image)
        guess = self.net(torch.cat([self.noisy(image, step, noise), self.time(step)], 1))
        return F.mse_loss(guess, noise)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN114", "sqrt", "return kept.sqrt() * image + (1 - kept).sqrt()", modules=("noisy",), rows=None),
    "https://github.com/lucidrains/imagen-pytorch/issues/161",
)
def noise_schedule_of_few_steps() -> LightningRun:
    """The schedule is stretched to 18 steps, so the last beta exceeds 1 and the root of a negative share is taken."""
    return LightningRun(TinyDiffusion(18), in_order(digits(1600)[0], size=32), {"max_epochs": 1})


# -- discrete codes --------------------------------------------------------------------------------------------------


class GumbelVAE(LightningModule):
    """An autoencoder with four categorical codes; their temperature falls linearly."""

    def __init__(self, cooling: int) -> None:
        super().__init__()
        self.cooling = cooling
        self.encoder, self.decoder = nn.Linear(64, 32), nn.Linear(32, 64)

    def temperature(self) -> float:
        return max(0.0, 1.0 - self.global_step / self.cooling)

    def sample(self, logits: Tensor) -> Tensor:
        gumbel = -torch.empty_like(logits).exponential_().log()
        return F.softmax((logits + gumbel) / self.temperature(), dim=-1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        logits = self.encoder(batch[0]).unflatten(1, (4, 8))
        rebuilt = self.decoder(self.sample(logits).flatten(1))
        return F.binary_cross_entropy_with_logits(rebuilt, batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite(
        "NAN112", ("divide", "softmax"), "return F.softmax((logits + gumbel) / self.temperature()", modules=("",)
    ),
    "https://github.com/pytorch/pytorch/issues/184031",
    "https://github.com/ericjang/gumbel-softmax/issues/2",
)
def temperature_that_reaches_zero() -> LightningRun:
    """The temperature of a Gumbel softmax is annealed to 0 after 34 steps, and the logits are divided by it."""
    return LightningRun(GumbelVAE(34), in_order(digits(1600)[0], size=32), {"max_epochs": 1})


# -- flows -----------------------------------------------------------------------------------------------------------


class Coupling(nn.Module):
    """Half of the variables scale and shift the other half."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.half = width // 2
        self.net = nn.Sequential(nn.Linear(self.half, 32), nn.ReLU(), nn.Linear(32, width))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, changed = x[:, : self.half], x[:, self.half :]
        log_scale, shift = self.net(kept).chunk(2, -1)
        changed = changed * torch.exp(log_scale) + shift
        return torch.cat([changed, kept], 1), log_scale.sum(1)


class RealNVP(LightningModule):
    """Density of daily returns by three coupling layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Coupling(6) for _ in range(3))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (z,) = batch
        volume = torch.zeros(len(z))
        for layer in self.layers:
            z, log_det = layer(z)
            volume = volume + log_det
        return (0.5 * z.square().sum(1) + 3 * math.log(2 * math.pi) - volume).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    non_finite(
        ("NAN110", "DATA503"), "exp", "changed = changed * torch.exp(log_scale)", modules=("layers.0",), rows=(22,)
    ),
    "https://github.com/VincentStimper/normalizing-flows/issues/47",
    "https://github.com/rosinality/glow-pytorch/issues/25",
    "https://github.com/VincentStimper/normalizing-flows/issues/73",
)
def coupling_without_a_bound() -> LightningRun:
    """The log-scale of a coupling layer is not bounded; one day is in basis points of a percent, and exp overflows."""
    rng = np.random.default_rng(1601)
    mix = rng.normal(size=(6, 6)) / 2
    returns = (rng.normal(size=(32 * 50, 6)) @ mix).astype("float32")
    returns[35 * 32 + 22] *= 10000
    return LightningRun(RealNVP(), in_order(returns, size=32), {"max_epochs": 1})


class MixingFlow(LightningModule):
    """Independent components by maximum likelihood: one invertible matrix and a logistic density."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mixing = nn.Parameter(torch.linalg.qr(torch.randn(width, width))[0])
        with torch.no_grad():
            self.mixing[0] *= torch.det(self.mixing).sign()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        source = batch[0] @ self.mixing.T
        log_density = -source - 2 * F.softplus(-source)
        return -(log_density.sum(1).mean() + torch.logdet(self.mixing))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.4, momentum=0.9)


@enter(
    non_finite(
        ("NAN114", "OPT601"), None, "return -(log_density.sum(1).mean() + torch.logdet(", kind="operation", rows=None
    ),
    "https://github.com/NVIDIA/waveglow/issues/123",
)
def matrix_that_turns_over() -> LightningRun:
    """Logdet is defined for positive determinants only; a long step turns the mixing matrix over, below 0."""
    rng = np.random.default_rng(1602)
    sources = rng.laplace(size=(64 * 50, 4))
    mixed = sources @ (rng.normal(size=(4, 4)) * 0.6 + np.eye(4))
    return LightningRun(MixingFlow(4), in_order(mixed.astype("float32"), size=64), {"max_epochs": 1})
