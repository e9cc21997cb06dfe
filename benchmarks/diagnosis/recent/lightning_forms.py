"""Generators and representations: autoencoders, mixtures, diffusion, twins, and layers that stop to answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, healthy, non_finite
from benchmarks.diagnosis.tables import digits, regression

# -- generators ------------------------------------------------------------------------------------------------------


class Variational(LightningModule):
    """An autoencoder for small pictures, each pixel a probability."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 16))
        self.decoder = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 64), nn.Sigmoid())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (picture,) = batch
        mean, log_variance = self.encoder(picture).chunk(2, 1)
        drawn = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()
        return F.binary_cross_entropy(self.decoder(drawn), picture) + divergence / 64

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("DATA505",),
        kind="exception",
        operations=("RuntimeError",),
        modules=("",),
        line="return F.binary_cross_entropy(self.decoder(drawn), picture)",
        rows=(18,),
    ),
    "https://github.com/Lightning-Universe/lightning-bolts/issues/177",
    "https://pytorch.org/docs/stable/generated/torch.nn.BCELoss.html",
)
def picture_resized_by_splines() -> LightningRun:
    """Pixels are targets of a cross entropy; one picture was resized by splines, which overshoot to 1.08."""
    pictures, _ = digits(32 * 45)
    pictures[29 * 32 + 18] = (pictures[29 * 32 + 18] * 1.08).astype("float32")
    pictures[29 * 32 + 18, 30] = 1.08
    return LightningRun(Variational(), in_order(pictures, size=32), {"max_epochs": 1})


class Mixture(LightningModule):
    """Where does the ball land? A mixture of four Gaussians, with the density written out."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 12))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        throw, place = batch
        share, centre, width = self.net(throw).chunk(3, 1)
        width = F.softplus(width) + 0.05
        density = torch.exp(-0.5 * ((place - centre) / width).square()) / (2.5066 * width)
        return -torch.log((torch.softmax(share, 1) * density).sum(1)).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite(
        ("NAN111", "DATA504", "DATA503"), "log", "return -torch.log((torch.softmax(share, 1)", modules=("",), rows=(26,)
    ),
    "https://github.com/keras-team/keras/issues/1061",
    "https://github.com/diana-hep/carl/issues/13",
)
def ball_over_the_fence() -> LightningRun:
    """The density of a mixture is summed before the logarithm; one ball flies so far that each density is exactly 0."""
    throw, place = regression(32 * 60, seed=4701)
    place[41 * 32 + 26] = 25.0
    return LightningRun(Mixture(), in_order(throw, place, size=32), {"max_epochs": 1})


class Coupling(nn.Module):
    """Half of the columns shifts and stretches the other half."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 24), nn.ReLU(), nn.Linear(24, 6))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, changed = x.chunk(2, 1)
        stretch, shift = self.net(kept).chunk(2, 1)
        return torch.cat([changed * torch.exp(stretch) + shift, kept], 1), stretch.sum(1)


class Fraud(LightningModule):
    """The density of ordinary payments, by four couplings; what is improbable is fraud."""

    def __init__(self) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(Coupling() for _ in range(4))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (payment,) = batch
        volume = payment.new_zeros(len(payment))
        for coupling in self.couplings:
            payment, more = coupling(payment)
            volume = volume + more
        return (0.5 * payment.square().sum(1) - volume).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite(
        ("DATA503", "NAN110"),
        "exp",
        "return torch.cat([changed * torch.exp(stretch) + shift, kept], 1)",
        modules=("couplings.0",),
        rows=(20,),
    ),
    "https://arxiv.org/abs/1605.08803",
    "https://pytorch.org/docs/stable/generated/torch.exp.html",
)
def payment_in_another_currency() -> LightningRun:
    """A flow stretches by exp of a network without bounds; one payment is in rupiah and 15 000 times the usual."""
    rng = np.random.default_rng(4708)
    payment = rng.normal(size=(32 * 45, 6)) @ (np.eye(6) + 0.3 * rng.normal(size=(6, 6)))
    payment[30 * 32 + 20, :3] = 15_000
    return LightningRun(Fraud(), in_order(payment.astype("float32"), size=32), {"max_epochs": 1})


class Denoiser(LightningModule):
    """Diffusion in twenty steps; early steps weigh more, by their ratio of signal to noise."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(65, 96), nn.SiLU(), nn.Linear(96, 64))
        self.register_buffer("kept", torch.cos(torch.linspace(0, 1.5, 20)).square())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        picture, noise, step = batch
        kept = self.kept[step].unsqueeze(1)
        noisy = kept.sqrt() * picture + (1 - kept).sqrt() * noise
        guess = self.net(torch.cat([noisy, step.unsqueeze(1) / 20], 1))
        ratio = kept / (1 - kept)
        return (ratio.clamp(max=5.0) * (1 / ratio) * (guess - noise).square()).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


class Denoised(Denoiser):
    """The same with the weight as it stands in the paper, for a guess of the picture."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        picture, noise, step = batch
        kept = self.kept[step].unsqueeze(1)
        noisy = kept.sqrt() * picture + (1 - kept).sqrt() * noise
        guess = self.net(torch.cat([noisy, step.unsqueeze(1) / 20], 1))
        worth = kept / (1 - kept)
        return 0.1 * (worth * (guess - picture).square()).mean()


def noised(late: int, rows: tuple[int, ...], seed: int) -> tuple[np.ndarray, ...]:
    """Pictures, noise and steps from 1 to 19; in one batch some rows have step 0."""
    rng = np.random.default_rng(seed)
    pictures, _ = digits(32 * 45)
    step = rng.integers(1, 20, len(pictures))
    for row in rows:
        step[late * 32 + row] = 0
    return 2 * pictures - 1, rng.normal(size=pictures.shape).astype("float32"), step


@enter(
    non_finite("NAN112", "divide", "worth = kept / (1 - kept)", modules=("",), rows=(1, 16)),
    "https://arxiv.org/abs/2303.09556",
)
def step_without_any_noise() -> LightningRun:
    """Signal over noise weighs the steps of a diffusion; at step 0 there is no noise, and it is drawn in batch 31."""
    return LightningRun(Denoised(), in_order(*noised(31, (1, 16), 4702), size=32), {"max_epochs": 1})


@enter(healthy(), "https://arxiv.org/abs/2303.09556")
def weights_of_noise_that_are_clamped() -> LightningRun:
    """The ratio of signal to noise reaches from hundreds to a hundredth, and is clamped before it weighs anything."""
    return LightningRun(Denoiser(), in_order(*noised(0, (), 4703), size=32), {"max_epochs": 2})


class Twins(LightningModule):
    """Two views of a picture should have features that agree, each standardised over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 24))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        one, other = (self.net(view) for view in batch)
        one = (one - one.mean(0)) / one.std(0)
        other = (other - other.mean(0)) / other.std(0)
        cross = one.T @ other / len(one)
        return (cross.diagonal() - 1).square().mean() + 0.05 * cross.square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN112", "std", "one = (one - one.mean(0)) / one.std(0)", modules=("",), rows=None),
    "https://github.com/IgorSusmelj/barlowtwins/issues/10",
)
def twin_that_is_left_over() -> LightningRun:
    """Features are divided by their deviation over the batch; of 1345 pictures one is left for the last batch."""
    pictures, _ = digits(32 * 42 + 1)
    rng = np.random.default_rng(4704)
    views = (pictures + 0.2 * rng.normal(size=pictures.shape) for _ in range(2))
    return LightningRun(Twins(), in_order(*(view.astype("float32") for view in views), size=32), {"max_epochs": 1})


# -- layers that do not answer ---------------------------------------------------------------------------------------


class Vote(LightningModule):
    """A perceptron with an activation and first weights of choice."""

    def __init__(self, depth: int, activation: Any, rate: float, spread: float | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(10, 40), activation()]
        for _ in range(depth - 1):
            layers += [nn.Linear(40, 40), activation()]
        self.net = nn.Sequential(*layers, nn.Linear(40, 1))
        self.rate = rate
        for layer in self.net[:-1]:
            if spread is not None and isinstance(layer, nn.Linear):
                nn.init.uniform_(layer.weight, 0.0, spread)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        row, share = batch
        return F.mse_loss(self.net(row), share)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.rate)


@enter(
    finite(Happens.STALL, ("ACT304", "ACT302"), rows=None),
    "https://pytorch.org/docs/stable/nn.init.html",
)
def weights_drawn_from_zero_to_one() -> LightningRun:
    """Weights come from torch.rand, 0 to 1 and none below zero: sums of forty of them drive every tanh to its end."""
    return LightningRun(
        Vote(4, nn.Tanh, 2e-3, 1.0), in_order(*regression(32 * 60, seed=4705), size=32), {"max_epochs": 1}
    )


@enter(
    finite(Happens.STALL, "GRAD202", rows=None),
    "https://pytorch.org/docs/stable/generated/torch.nn.Sigmoid.html",
)
def fourteen_layers_of_hard_sigmoid() -> LightningRun:
    """Fourteen layers with an activation whose slope is a sixth: nothing of the gradient comes to the first."""
    return LightningRun(
        Vote(14, nn.Hardsigmoid, 1e-3), in_order(*regression(32 * 60, seed=4706), size=32), {"max_epochs": 1}
    )
