"""Survival analysis, neuroscience, development, chemistry: losses and layers that scientists write by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import LightningRun, enter, non_finite

# -- NAN110 ----------------------------------------------------------------------------------------------------------


def negative_partial_likelihood(risk: Tensor, died: Tensor) -> Tensor:
    """Cox's partial likelihood of patients who are sorted by their time, the longest first."""
    at_risk = torch.cumsum(torch.exp(risk), dim=0)
    return -((risk - torch.log(at_risk)) * died).sum() / died.sum()


class DeepSurvival(LightningModule):
    """Risk of a patient from what was measured on admission."""

    def __init__(self) -> None:
        super().__init__()
        self.risk = nn.Sequential(nn.Linear(9, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        measured, time, died = batch
        order = torch.argsort(time, descending=True)
        return negative_partial_likelihood(self.risk(measured[order]).squeeze(1), died[order])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite(  # widened once scored: with a guard the sum underflows before it overflows, and its logarithm fails
        ("NAN110", "NAN111"),
        ("exp", "log"),
        ("at_risk = torch.cumsum(torch.exp(risk)", "return -((risk - torch.log(at_risk))"),
        modules=("",),
        phase=None,
        rows=None,
    ),
    "https://github.com/therneau/survival/issues/37",
)
def risk_that_orders_everybody() -> LightningRun:
    """The order of deaths can be told exactly, so risks grow for ever, and exp overflows in a likelihood by hand."""
    rng = np.random.default_rng(101)
    measured = rng.normal(size=(40 * 150, 9)).astype("float32")
    time = np.exp(-2.0 * measured[:, 0] + measured[:, 1]).astype("float32")
    died = (rng.random(len(time)) < 0.8).astype("float32")
    return LightningRun(DeepSurvival(), in_order(measured, time, died, size=40), {"max_epochs": 2})


# -- NAN111 ----------------------------------------------------------------------------------------------------------


class SpikeLoss(nn.Module):
    """Negative log-likelihood of spike counts, up to a constant."""

    def forward(self, rate: Tensor, counts: Tensor) -> Tensor:
        return (rate - counts * torch.log(rate)).mean()


class Retina(LightningModule):
    """Firing rates of twelve cells from a flickering stimulus, as a linear filter and a rectifier."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Linear(20, 12)
        nn.init.constant_(self.filter.bias, 3.5)
        self.criteria = nn.ModuleList([SpikeLoss()])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        stimulus, counts = batch
        rate = self.filter(stimulus).relu()
        return torch.stack([criterion(rate, counts) for criterion in self.criteria]).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


@enter(
    non_finite("NAN111", "log", "return (rate - counts * torch.log(rate)).mean()", modules=("criteria.0",), rows=None),
    "https://github.com/pytorch/pytorch/pull/3336",
    "https://github.com/keras-team/keras/issues/590",
)
def cells_that_fall_silent() -> LightningRun:
    """Rates come out of a rectifier; once one of them is 0, its logarithm meets a count of 0."""
    rng = np.random.default_rng(102)
    stimulus = rng.normal(size=(3200, 20)).astype("float32")
    drive = stimulus @ rng.normal(size=(20, 12)) * 0.25 - 0.3
    counts = rng.poisson(np.exp(drive)).astype("float32")
    return LightningRun(Retina(), in_order(stimulus, counts, size=32), {"max_epochs": 1})


# -- NAN112 ----------------------------------------------------------------------------------------------------------


class Sinkhorn(nn.Module):
    """Cost of the cheapest way to move one cloud of cells onto another, smoothed by entropy."""

    def __init__(self, smoothing: float = 0.02, rounds: int = 15) -> None:
        super().__init__()
        self.smoothing, self.rounds = smoothing, rounds

    def forward(self, moved: Tensor, there: Tensor) -> Tensor:
        cost = (moved[:, None] - there[None]).square().sum(-1)
        kernel = torch.exp(-cost / self.smoothing)
        left = torch.full((len(moved),), 1 / len(moved))
        for _ in range(self.rounds):
            right = (1 / len(there)) / (kernel.t() @ left)
            left = (1 / len(moved)) / (kernel @ right)
        return (left[:, None] * kernel * right[None] * cost).sum()


class Development(LightningModule):
    """Where cells go from one hour to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 2))
        self.transport = Sinkhorn()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        now, later = batch
        return self.transport(now + self.step(now), later)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite(
        "NAN112",
        ("divide", "reciprocal"),
        "right = (1 / len(there)) / (kernel.t() @ left)",
        modules=("transport",),
    ),
    "https://github.com/PythonOT/POT/issues/54",
    "https://github.com/rajewsky-lab/novosparc/issues/50",
)
def hour_in_which_cells_went_far() -> LightningRun:
    """Optimal transport by exp(-cost / epsilon): in the second series cells go farther, and the kernel is all 0."""
    rng = np.random.default_rng(103)
    batches = []
    for number in range(60):
        now = rng.random((36, 2))
        shift = np.array([0.4, 0.1]) if number < 34 else np.array([-1.8, 2.2])
        later = rng.random((36, 2)) + shift
        batches.append((torch.from_numpy(now).float(), torch.from_numpy(later).float()))
    return LightningRun(Development(), DataLoader(batches, batch_size=None), {"max_epochs": 1})  # type: ignore[arg-type]


# -- NAN113 ----------------------------------------------------------------------------------------------------------


class RadialBasis(nn.Module):
    """sin(n r) / r with learnt frequencies; at r = 0 it is n."""

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.frequency = nn.Parameter(math.pi / 5 * torch.arange(1.0, size + 1))

    def forward(self, r: Tensor) -> Tensor:
        r = r.unsqueeze(-1)
        return torch.where(r > 0, torch.sin(self.frequency * r) / r, self.frequency)


class PairPotential(LightningModule):
    """Energy of a molecule from the distances of its pairs of atoms."""

    def __init__(self) -> None:
        super().__init__()
        self.basis = RadialBasis()
        self.energy = nn.Sequential(nn.Linear(8, 32), nn.SiLU(), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        predicted = self.energy(self.basis(batch["distances"])).sum(1).squeeze(1)
        return F.l1_loss(predicted, batch["energy"])

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


class Molecules(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Six atoms each, as a dictionary."""

    def __init__(self, rows: int) -> None:
        rng = np.random.default_rng(104)
        self.places = rng.normal(size=(rows, 6, 3)) * 1.5
        self.pairs = np.triu_indices(6, 1)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        first, second = self.pairs
        distances = np.linalg.norm(self.places[index, first] - self.places[index, second], axis=-1)
        energy = np.exp(-distances).sum() - 0.5
        return {"distances": torch.from_numpy(distances).float(), "energy": torch.tensor(float(energy))}


@enter(
    non_finite(
        "NAN113",
        ("divide", "reciprocal"),
        "return torch.where(r > 0, torch.sin(self.frequency * r) / r",
        phase=None,
        modules=("basis",),
        rows=(13,),
    ),
    "https://github.com/virtualzx-nad/geodesic-interpolate/issues/12",
)
def two_atoms_at_one_place() -> LightningRun:
    """`where` hides sin(0) / 0 of two atoms at the same place on the way forward, and not on the way back."""
    molecules = Molecules(60 * 24)
    molecules.places[31 * 24 + 13, 4] = molecules.places[31 * 24 + 13, 1]
    return LightningRun(PairPotential(), DataLoader(molecules, batch_size=24), {"max_epochs": 1})


class Superposition(nn.Module):
    """Turns each predicted molecule onto the measured one (Kabsch)."""

    def forward(self, predicted: Tensor, measured: Tensor) -> Tensor:
        predicted = predicted - predicted.mean(1, keepdim=True)
        measured = measured - measured.mean(1, keepdim=True)
        u, _, v = torch.linalg.svd(predicted.mT @ measured)
        return (predicted @ (u @ v) - measured).square().sum(-1).mean()


class Conformer(LightningModule):
    """Places of ten atoms from a code of the molecule."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(12, 64), nn.GELU(), nn.Linear(64, 30))
        self.deviation = Superposition()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        code, places = batch
        return self.deviation(self.net(code).view(-1, 10, 3), places)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    non_finite(
        "NAN113",
        ("decomposition", "divide"),
        "u, _, v = torch.linalg.svd(predicted.mT @ measured)",
        phase="backward",
        modules=("deviation",),
        rows=(7,),
    ),
    "https://github.com/pytorch/pytorch/issues/49886",
    "https://github.com/Pzoom522/ProcrustEs-KGE/issues/2",
    "https://github.com/naver/roma/issues/6",
)
def molecule_on_a_line() -> LightningRun:
    """Superposition by SVD; the atoms of one molecule lie on a line, so that two singular values are 0, and equal."""
    rng = np.random.default_rng(105)
    code = rng.normal(size=(50 * 20, 12)).astype("float32")
    places = np.tanh(code @ rng.normal(size=(12, 30)) / 3).reshape(-1, 10, 3).astype("float32")
    places[26 * 20 + 7, :, 1:] = 0
    return LightningRun(Conformer(), in_order(code, places, size=20), {"max_epochs": 1})
