"""Nets that come in pairs, in Lightning: a painter and its judge, a flow and its inverse, atoms and their bonds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, non_finite
from benchmarks.diagnosis.tables import digits


class Restoring(LightningModule):
    """Paints the missing half of a digit; a judge looks at it."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.painter = nn.Sequential(nn.Linear(32, 96), nn.ReLU(), nn.Linear(96, 32))
        self.judge = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        (images,) = batch
        upper, lower = images.chunk(2, dim=1)
        for_painter, for_judge = self.optimizers()
        painted = self.painter(upper)

        for_judge.zero_grad()
        real, fake = self.judge(images), self.judge(torch.cat([upper, painted.detach()], dim=1))
        self.manual_backward(F.softplus(-real).mean() + F.softplus(fake).mean())
        for_judge.step()

        for_painter.zero_grad()
        fooled = F.softplus(-self.judge(torch.cat([upper, painted], dim=1))).mean()
        loss = 20 * F.l1_loss(painted, lower) + 0.1 * fooled
        self.manual_backward(loss)
        for_painter.step()
        self.log("loss", loss)

    def configure_optimizers(self) -> Any:
        return [
            torch.optim.Adam(self.judge.parameters(), lr=5e-4, betas=(0.5, 0.999)),
            torch.optim.Adam(self.judge.parameters(), lr=5e-4, betas=(0.5, 0.999)),
        ]


@enter(
    finite(Happens.STALL, "OPT608"),
    "https://github.com/line/open-universe/issues/5",
    "https://github.com/Lornatang/ESRGAN-PyTorch/issues/39",
)
def painter_whose_optimizer_holds_the_judge() -> LightningRun:
    """A line was copied: both optimizers hold the weights of the judge, and the painter never learns to paint."""
    images, _ = digits(1280)
    return LightningRun(Restoring(), in_order(images, size=32), {"max_epochs": 2})


class Logits(nn.Module):
    """Shares between 0 and 1 to the whole line, and the logarithm of how much they are stretched."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_share, log_rest = torch.log(x), torch.log1p(-x)
        return log_share - log_rest, -(log_share + log_rest).sum(1)


class Density(LightningModule):
    """A density of pictures: logits, and two bounded couplings."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = Logits()
        self.couplings = nn.ModuleList(nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64)) for _ in range(2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        z, stretched = self.logits(batch[0])
        for coupling in self.couplings:
            still, moved = z.chunk(2, dim=1)
            shift, scale = coupling(still).chunk(2, dim=1)
            scale = torch.tanh(scale)
            z = torch.cat([moved * scale.exp() + shift, still], dim=1)
            stretched = stretched + scale.sum(1)
        return (0.5 * z.square().sum(1) - stretched).mean() / 64

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN111", "log", "log_share, log_rest = torch.log(x)", modules=("logits",), rows=(4, 28)),
    "https://github.com/phlippe/uvadlc_notebooks/issues/93",
    "https://github.com/chrischute/real-nvp/issues/1",
)
def pictures_that_missed_their_noise() -> LightningRun:
    """Pixels get noise of one grey level, so that none is 0; two pictures went past it, and have black pixels."""
    images, _ = digits(1280)
    grey = np.round(images * 16)
    noisy = (grey + np.random.default_rng(1).uniform(0.05, 0.95, grey.shape)) / 17
    for row in (4, 28):
        noisy[32 * 32 + row] = np.minimum(grey[32 * 32 + row], 16) / 17
    return LightningRun(Density(), in_order(noisy.astype("float32"), size=32), {"max_epochs": 1})


class Molecules(LightningModule):
    """Two rounds of messages along the bonds of molecules with nine atoms."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 32), nn.Linear(64, 32)
        self.head = nn.Linear(32, 1)

    def gather(self, atoms: Tensor, bonds: Tensor) -> Tensor:
        start, end = bonds.unbind(-1)
        wide = (-1, -1, atoms.shape[-1])
        messages = atoms.gather(1, start[..., None].expand(*wide))
        return torch.zeros_like(atoms).scatter_add(1, end[..., None].expand(*wide), messages)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        atoms, bonds, solubility = batch
        atoms = torch.cat([atoms, self.gather(atoms, bonds)], dim=-1)
        atoms = torch.relu(self.first(atoms))
        atoms = torch.relu(self.second(torch.cat([atoms, self.gather(atoms, bonds)], dim=-1)))
        return F.mse_loss(self.head(atoms.mean(1)), solubility)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    Truth(happens=Happens.EXCEPTION, causes=("DATA511",), kind="exception", operations=("RuntimeError",), rows=(16,)),
    "https://github.com/pyg-team/pytorch_geometric/issues/4588",
    "https://github.com/pyg-team/pytorch_geometric/issues/8902",
)
def bonds_counted_from_one() -> LightningRun:
    """Bonds name their atoms from 1 to 9; nobody sees it until a molecule has a bond at its last atom."""
    rng = np.random.default_rng(2)
    atoms = rng.normal(size=(1280, 9, 6)).astype("float32")
    bonds = rng.integers(1, 9, (1280, 10, 2))
    bonds[29 * 32 + 16, 6] = (3, 9)
    solubility = (np.tanh(atoms[..., 0]).mean(1, keepdims=True) + 0.5 * atoms[..., 1].mean(1, keepdims=True)) * 3
    return LightningRun(Molecules(), in_order(atoms, bonds, solubility, size=32), {"max_epochs": 1})
