"""Adversarial pairs under manual optimisation: losses that rise, drift and fall below zero by design."""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.healthy.digits import digits
from benchmarks.healthy.registry import Parts, healthy_run
from benchmarks.healthy.supervised import mlp, shuffled

NOISE_WIDTH = 16


class AdversarialPair(LightningModule):
    """A generator and a critic of digits, each with an optimizer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.critic = mlp(NOISE_WIDTH, 64, 64), mlp(64, 64, 1, activation=nn.SiLU)

    def generated(self, count: int) -> Tensor:
        return self.generator(torch.randn(count, NOISE_WIDTH))

    def descend(self, index: int, loss: Tensor) -> None:
        """One step of one of the two optimizers."""
        optimizer = self.optimizers()[index]
        self.toggle_optimizer(optimizer)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> Any:
        return [
            torch.optim.Adam(self.generator.parameters(), lr=5e-4, betas=(0.5, 0.999)),
            torch.optim.Adam(self.critic.parameters(), lr=5e-4, betas=(0.5, 0.999)),
        ]


class Gan(AdversarialPair):
    """The non-saturating GAN with binary cross-entropy."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        (real,) = batch
        fake = self.generated(len(real))
        real_score, fake_score = self.critic(real), self.critic(fake.detach())
        real_loss = F.binary_cross_entropy_with_logits(real_score, torch.ones_like(real_score))
        fake_loss = F.binary_cross_entropy_with_logits(fake_score, torch.zeros_like(fake_score))
        self.descend(1, (real_loss + fake_loss) / 2)
        score = self.critic(self.generated(len(real)))
        self.descend(0, F.binary_cross_entropy_with_logits(score, torch.ones_like(score)))


@healthy_run("GAN with binary cross-entropy: the generator's loss rises while the discriminator learns")
def gan(seed: int) -> Parts:
    inputs, _ = digits()
    return Gan(), shuffled(inputs, batch_size=64, seed=seed, drop_last=True), {"max_steps": 1400}


class WeightClippedWgan(AdversarialPair):
    """The first Wasserstein GAN: RMSprop, clipped weights, five critic steps to one of the generator."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        (real,) = batch
        fake = self.generated(len(real)).detach()
        self.descend(1, self.critic(fake).mean() - self.critic(real).mean())
        with torch.no_grad():
            for weight in self.critic.parameters():
                weight.clamp_(-0.1, 0.1)
        if batch_idx % 5 == 4:
            self.descend(0, -self.critic(self.generated(len(real))).mean())

    def configure_optimizers(self) -> Any:
        networks = (self.generator, self.critic)
        return [torch.optim.RMSprop(network.parameters(), lr=5e-4) for network in networks]


@healthy_run("Wasserstein GAN with weight clipping: negative losses that drift through zero")
def wgan_weight_clipping(seed: int) -> Parts:
    inputs, _ = digits()
    loader = shuffled(inputs, batch_size=64, seed=seed, drop_last=True)
    return WeightClippedWgan(), loader, {"max_steps": 1200}


class PenalisedWgan(AdversarialPair):
    """Wasserstein GAN with a gradient penalty, which needs a second derivative."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        (real,) = batch
        fake = self.generated(len(real)).detach()
        mixed = torch.lerp(real, fake, torch.rand(len(real), 1)).requires_grad_()
        (slopes,) = torch.autograd.grad(self.critic(mixed).sum(), mixed, create_graph=True)
        penalty = ((slopes.norm(dim=1) - 1) ** 2).mean()
        self.descend(1, self.critic(fake).mean() - self.critic(real).mean() + 10 * penalty)
        if batch_idx % 3 == 2:
            self.descend(0, -self.critic(self.generated(len(real))).mean())


@healthy_run("Wasserstein GAN with gradient penalty: begins at the penalty, sinks below zero")
def wgan_gradient_penalty(seed: int) -> Parts:
    inputs, _ = digits()
    return PenalisedWgan(), shuffled(inputs, batch_size=32, seed=seed, drop_last=True), {"max_steps": 1000}
