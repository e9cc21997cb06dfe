"""Models of the data itself: autoencoders, a VAE under annealing, a flow and a denoiser."""

import math
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from benchmarks.healthy.digits import digits
from benchmarks.healthy.registry import Parts, healthy_run
from benchmarks.healthy.supervised import Supervised, adam, mlp, shuffled


@healthy_run("autoencoder of digits with a narrow sigmoid bottleneck")
def autoencoder(seed: int) -> Parts:
    inputs, _ = digits()
    network = nn.Sequential(mlp(64, 48, 12), nn.Sigmoid(), mlp(12, 48, 64))
    module = Supervised(network, F.mse_loss, adam(3e-3))
    return module, shuffled(inputs, inputs, batch_size=64, seed=seed), {"max_steps": 600}


class Vae(LightningModule):
    """Gaussian VAE whose KL term is switched on linearly, as against posterior collapse."""

    def __init__(self, annealing_steps: int) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(64, 64, 16), mlp(8, 64, 64)
        self.annealing_steps = annealing_steps

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        (images,) = batch
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        error = F.mse_loss(self.decoder(code), images, reduction="none").sum(1).mean()
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
        weight = min(1.0, self.global_step / self.annealing_steps)
        self.log_dict({"error": error, "divergence": divergence, "weight": weight})
        return error + 4 * weight * divergence

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@healthy_run("VAE with KL annealing: the loss falls, then rises by design while the weight grows")
def vae_kl_annealing(seed: int) -> Parts:
    inputs, _ = digits()
    return Vae(annealing_steps=700), shuffled(inputs, batch_size=64, seed=seed), {"max_steps": 900}


class CouplingFlow(LightningModule):
    """RealNVP in two dimensions: four affine couplings, trained by exact likelihood."""

    def __init__(self) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(mlp(1, 32, 32, 2, activation=nn.Tanh) for _ in range(4))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        (points,) = batch
        log_determinant = torch.zeros(len(points))
        for coupling in self.couplings:
            kept, changed = points[:, :1], points[:, 1:]
            log_scale, shift = coupling(kept).tanh().mul(3).chunk(2, dim=1)
            points = torch.cat([changed * log_scale.exp() + shift, kept], dim=1)
            log_determinant = log_determinant + log_scale.squeeze(1)
        log_density = -0.5 * (points**2).sum(1) - math.log(2 * math.pi)
        loss = -(log_density + log_determinant).mean()
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.Adam(self.parameters(), lr=5e-4)


@healthy_run("normalising flow on thin arcs: log-likelihood, a loss that passes zero with rare spikes")
def normalising_flow(seed: int) -> Parts:
    angles, side = math.pi * torch.rand(3000), torch.randint(0, 2, (3000,)) * 2.0 - 1
    arcs = torch.stack([side * angles.cos() + 0.5 * side, side * angles.sin() - 0.25 * side], dim=1)
    points = arcs + 0.02 * torch.randn(3000, 2)
    return CouplingFlow(), shuffled(points, batch_size=64, seed=seed), {"max_steps": 900}


class Denoiser(LightningModule):
    """Predicts the noise that was added to a digit at a random level, as diffusion models do."""

    def __init__(self) -> None:
        super().__init__()
        self.network = mlp(65, 128, 128, 64, activation=nn.SiLU)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        (images,) = batch
        level, noise = torch.rand(len(images), 1), torch.randn_like(images)
        noisy = (level * math.pi / 2).cos() * images + (level * math.pi / 2).sin() * noise
        loss = F.mse_loss(self.network(torch.cat([noisy, level], dim=1)), noise)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


@healthy_run("diffusion-style denoiser: the loss of a batch depends on its draw of noise levels")
def denoising_diffusion(seed: int) -> Parts:
    inputs, _ = digits()
    return Denoiser(), shuffled(inputs, batch_size=16, seed=seed), {"max_steps": 800}
