"""Signals, bags and equations: learnt constants, thresholds, spectra, and a copy that came too late."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, Truth, bad_batch, enter, finite, non_finite
from benchmarks.diagnosis.tables import digits

# -- learnt constants ------------------------------------------------------------------------------------------------


class HeatKernel(nn.Module):
    """Temperature that a point source leaves behind, for an unknown diffusivity."""

    def __init__(self) -> None:
        super().__init__()
        self.diffusivity = nn.Parameter(torch.tensor(0.6))

    def forward(self, place: Tensor, time: Tensor) -> Tensor:
        width = torch.sqrt(2 * self.diffusivity * time)
        return torch.exp(-0.5 * (place / width).square()) / width


class InverseHeat(LightningModule):
    """Finds the diffusivity of a rod from measured temperatures, and a background by a small network."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = HeatKernel()
        self.background = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        place, time, measured = batch
        guess = self.kernel(place, time) + 0.1 * self.background(torch.stack([place, time], 1)).squeeze(1)
        return F.mse_loss(guess, measured)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.03)


@enter(
    non_finite(
        ("NAN114", "OPT601"), "sqrt", "width = torch.sqrt(2 * self.diffusivity * time)", modules=("kernel",), rows=None
    ),
    "https://github.com/lululxvi/deepxde/issues/380",
    "https://github.com/prateekbhustali/Physics-Informed-Neural-Networks/issues/1",
)
def diffusivity_below_zero() -> LightningRun:
    """An unknown constant is a plain parameter; it is small, the optimiser overshoots, and a root gets less than 0."""
    rng = np.random.default_rng(2001)
    place, time = rng.uniform(-1, 1, 64 * 60), rng.uniform(0.5, 2.0, 64 * 60)
    width = np.sqrt(2 * 0.01 * time)
    measured = np.exp(-0.5 * (place / width) ** 2) / width + 0.05 * rng.normal(size=len(place))
    columns = (column.astype("float32") for column in (place, time, measured))
    return LightningRun(InverseHeat(), in_order(*columns, size=64), {"max_epochs": 2})


class PowerTransform(nn.Module):
    """A learnt exponent for each column."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.full((columns,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return (x.pow(self.exponent) - 1) / self.exponent


class Basket(LightningModule):
    """Will a customer come back? From what was paid in five departments."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = PowerTransform(5)
        self.net = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 24), nn.ReLU(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        paid, back = batch
        return F.binary_cross_entropy_with_logits(self.net(self.transform(paid)).squeeze(1), back)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite("NAN114", "power", "return (x.pow(self.exponent) - 1)", modules=("transform",), rows=(7, 19)),
    "https://github.com/pytorch/pytorch/issues/75405",
    "https://github.com/pytorch/pytorch/issues/29518",
)
def refund_under_a_power_transform() -> LightningRun:
    """A Box-Cox transform with learnt exponents; two receipts are refunds, and a negative amount has no root."""
    rng = np.random.default_rng(2002)
    paid = rng.gamma(2.0, 10.0, (32 * 45, 5)).astype("float32")
    back = (paid[:, 0] > paid[:, 1]).astype("float32")
    paid[27 * 32 + 7, 2] = -19.99
    paid[27 * 32 + 19, 0] = -4.5
    return LightningRun(Basket(), in_order(paid, back, size=32), {"max_epochs": 1})


# -- units that do not answer ----------------------------------------------------------------------------------------


class Bags(LightningModule):
    """A bag of cells is ill or not; the features of its cells are summed."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(8, 32), nn.Sigmoid())
        self.out = nn.Linear(32, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        cells, ill = batch
        return F.binary_cross_entropy_with_logits(self.out(self.hidden(cells.sum(1))).squeeze(1), ill)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-2)


@enter(
    finite(Happens.STALL, ("ACT302", "DATA502"), rows=None),
    "https://github.com/keras-team/keras/issues/3415",
    "https://github.com/archersama/IntTower/issues/12",
)
def sum_over_four_hundred_cells() -> LightningRun:
    """Features of 400 cells are summed and not averaged; every sigmoid behind them is at 0 or 1 for every bag."""
    rng = np.random.default_rng(2003)
    ill = rng.integers(0, 2, 32 * 60).astype("float32")
    cells = rng.uniform(0, 2, (len(ill), 400, 8)) + 0.2 * ill[:, None, None] * (np.arange(8) < 3)
    return LightningRun(Bags(), in_order(cells.astype("float32"), ill, size=32), {"max_epochs": 2})


class Spiking(LightningModule):
    """Rectifiers that fire above a threshold, after a model of neurons."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(64, 48), nn.Linear(48, 48), nn.Linear(48, 10)
        self.fire = nn.Threshold(threshold, 0.0)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        picture, kind = batch
        return F.cross_entropy(self.out(self.fire(self.second(self.fire(self.first(picture))))), kind)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    finite(Happens.STALL, "ACT303", rows=None),
    "https://github.com/jeshraghian/snntorch/issues/33",
    "https://github.com/jeshraghian/snntorch/issues/377",
)
def neurons_that_never_fire() -> LightningRun:
    """Neurons fire above 1.5, which pixels from 0 to 1 and fresh weights never reach: all of them are silent."""
    return LightningRun(Spiking(1.5), in_order(*digits(1600), size=32), {"max_epochs": 2})


# -- spectra and series ----------------------------------------------------------------------------------------------


class Vocoder(LightningModule):
    """Cleans short clips; the loss is the spectral convergence of each clip."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(1, 12, 9, padding=4), nn.Tanh(), nn.Conv1d(12, 1, 9, padding=4))

    def spectrum(self, clip: Tensor) -> Tensor:
        window = torch.hann_window(32)
        return torch.stft(clip, 32, hop_length=16, window=window, return_complex=True).abs()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        noisy, clean = batch
        guess = noisy + self.net(noisy.unsqueeze(1)).squeeze(1)
        goal = self.spectrum(clean)
        apart = (self.spectrum(guess) - goal).square().sum((1, 2)).sqrt()
        return (apart / goal.square().sum((1, 2)).sqrt()).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN112", "divide", "return (apart / goal.square()", modules=("",), rows=(11,)),
    "https://github.com/bshall/hifigan/issues/4",
    "https://github.com/SeanNaren/deepspeech.pytorch/issues/272",
)
def clip_of_perfect_silence() -> LightningRun:
    """Spectral convergence divides by the norm of the clean spectrum; one clean clip is digital silence."""
    rng = np.random.default_rng(2004)
    phase, pace = rng.uniform(0, 6.28, (16 * 45, 1)), rng.uniform(0.2, 1.5, (16 * 45, 1))
    clean = np.sin(phase + pace * np.arange(128))
    clean[29 * 16 + 11] = 0
    noisy = clean + 0.3 * rng.normal(size=clean.shape)
    return LightningRun(Vocoder(), in_order(*(a.astype("float32") for a in (noisy, clean)), size=16), {"max_epochs": 1})


class GapForecast(LightningModule):
    """Tomorrow's water level from two weeks of hourly gauges."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(1, 12, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(4), nn.Flatten())
        self.head = nn.Linear(48, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        level, following = batch
        return F.l1_loss(self.head(self.net(level.unsqueeze(1))), following)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def filled_forward(series: np.ndarray) -> np.ndarray:
    """Gaps take the last value before them."""
    last = np.maximum.accumulate(np.where(np.isnan(series), 0, np.arange(series.shape[1])), axis=1)
    return np.take_along_axis(series, last, axis=1)


@enter(
    bad_batch(None, (3, 14)),
    "https://github.com/Nixtla/neuralforecast/issues/186",
    "https://github.com/WenjieDu/PyPOTS/issues/232",
)
def gap_at_the_beginning() -> LightningRun:
    """Gaps are filled with the value before them; two series begin with a gap, and there is no value before it."""
    rng = np.random.default_rng(2005)
    level = np.cumsum(0.2 * rng.normal(size=(24 * 45, 57)), axis=1)
    level[:, 5:40][rng.random((len(level), 35)) < 0.1] = np.nan
    for row, hours in ((33 * 24 + 3, 4), (33 * 24 + 14, 9)):
        level[row, :hours] = np.nan
    series = filled_forward(level[:, :56]).astype("float32")
    return LightningRun(GapForecast(), in_order(series, level[:, 56:].astype("float32"), size=24), {"max_epochs": 1})


# -- a copy that came too late ---------------------------------------------------------------------------------------


class Staging(nn.Module):
    """Activations wait in a buffer of another device."""

    def __init__(self, copies: Iterator[int], late: int) -> None:
        super().__init__()
        self.arrived = lambda: next(copies) != late

    def forward(self, x: Tensor) -> Tensor:
        return x if self.arrived() else torch.where(x > 0, x, x.new_full((), float("nan")))


class Pipelined(LightningModule):
    """Two halves of a network on two devices."""

    def __init__(self, copies: Iterator[int], late: int) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Linear(64, 40), nn.Tanh())
        self.staging, self.back = Staging(copies, late), nn.Linear(40, 10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        picture, kind = batch
        return F.cross_entropy(self.back(self.staging(self.front(picture))), kind)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("ENV702",), kind="", rows=()),
    "https://github.com/invoke-ai/InvokeAI/pull/6624",
    "https://github.com/mrphys/tensorflow-nufft/issues/20",
)
def buffer_that_was_read_too_early() -> LightningRun:
    """Activations are copied between devices without waiting; one buffer is read before its copy has arrived."""
    return LightningRun(Pipelined(itertools.count(), 31), in_order(*digits(1440), size=32), {"max_epochs": 1})
