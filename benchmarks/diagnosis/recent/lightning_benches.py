"""Chemistry, geoscience and physics: stations, plates, kernels and gradients written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, Truth, bad_batch, enter, healthy, non_finite
from benchmarks.diagnosis.tables import regression

# -- graphs and kernels ----------------------------------------------------------------------------------------------


class Spread(nn.Module):
    """Standard deviation of what the neighbours say."""

    def forward(self, message: Tensor, linked: Tensor) -> Tensor:
        share = (linked / linked.sum(2, keepdim=True)).unsqueeze(-1)
        mean = (share * message.unsqueeze(1)).sum(2)
        square = (share * message.unsqueeze(1).square()).sum(2)
        return torch.sqrt((square - mean.square()).clamp(min=0))


class Stations(LightningModule):
    """Tomorrow's rain at twelve stations, from a graph of which station is near which."""

    def __init__(self) -> None:
        super().__init__()
        self.message, self.spread = nn.Linear(3, 8), Spread()
        self.out = nn.Sequential(nn.Linear(11, 16), nn.ReLU(), nn.Linear(16, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        weather, linked, rain = batch
        spread = self.spread(torch.tanh(self.message(weather)), linked)
        return F.mse_loss(self.out(torch.cat([weather, spread], 2)).squeeze(2), rain)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite(
        ("NAN113",),
        "sqrt",
        "return torch.sqrt((square - mean.square()).clamp(min=0))",
        phase="backward",
        modules=("spread",),
        rows=(10,),
    ),
    "https://github.com/pytorch/pytorch/issues/4320",
    "https://github.com/pyg-team/pytorch_geometric/pull/6042",
)
def station_with_a_single_neighbour() -> LightningRun:
    """A graph layer takes the deviation of the neighbours; one winter a station has one left, and deviates by 0."""
    rng = np.random.default_rng(4301)
    weather = rng.normal(size=(16 * 45, 12, 3))
    linked = np.maximum(rng.random((len(weather), 12, 12)) < 0.4, np.eye(12) + np.roll(np.eye(12), 1, 1))
    rain = np.tanh(weather[..., 0] + 0.5 * (linked @ weather[..., :1])[..., 0] / linked.sum(2))
    linked[29 * 16 + 10, 4] = np.eye(12)[7]
    columns = (column.astype("float32") for column in (weather, linked, rain))
    return LightningRun(Stations(), in_order(*columns, size=16), {"max_epochs": 1})


class DeepKernel(LightningModule):
    """A Gaussian process on learnt features; each batch is one series of measurements."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 8))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        compound, measured = batch
        z = 4 * self.features(compound)
        kernel = torch.exp(-(z.unsqueeze(1) - z.unsqueeze(0)).square().sum(2))
        factor = torch.linalg.cholesky(kernel)
        whitened = torch.linalg.solve_triangular(factor, measured, upper=False)
        return (0.5 * whitened.square().sum() + factor.diagonal().log().sum()) / len(compound)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("NAN114",),
        kind="exception",
        operations=("LinAlgError", "_LinAlgError"),
        line="factor = torch.linalg.cholesky(kernel)",
        rows=None,
    ),
    "https://github.com/SheffieldML/GPy/issues/523",
    "https://github.com/patel-zeel/AAAI22/issues/2",
)
def compound_that_was_measured_twice() -> LightningRun:
    """A kernel without a term for noise; one compound was measured twice, and two rows of the matrix are the same."""
    rng = np.random.default_rng(4302)
    compound = 1.5 * rng.normal(size=(12 * 45, 4))
    measured = np.tanh(compound[:, :1]) + 0.3 * rng.normal(size=(len(compound), 1))
    compound[33 * 12 + 9] = compound[33 * 12 + 2]
    return LightningRun(
        DeepKernel(), in_order(compound.astype("float32"), measured.astype("float32"), size=12), {"max_epochs": 1}
    )


# -- preprocessing ---------------------------------------------------------------------------------------------------


class Spectra(LightningModule):
    """Concentration of a substance from 40 channels of a plate reader."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(40, 32), nn.SiLU(), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        channels, concentration = batch
        return F.mse_loss(self.net(channels).squeeze(1), concentration)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    bad_batch(None, ()),
    "https://scikit-learn.org/stable/modules/generated/sklearn.preprocessing.StandardScaler.html",
)
def plate_with_a_dead_channel() -> LightningRun:
    """Every plate is standardised by itself; on one plate a channel was dead, and 0 is divided by a deviation of 0."""
    rng = np.random.default_rng(4303)
    concentration = rng.normal(size=(45, 24))
    channels = np.sin(np.arange(40) / 6) * concentration[..., None] + 0.5 * rng.normal(size=(45, 24, 40))
    channels[31, :, 17] = 0
    with np.errstate(all="ignore"):
        channels = (channels - channels.mean(1, keepdims=True)) / channels.std(1, keepdims=True)
    columns = channels.reshape(-1, 40).astype("float32"), concentration.reshape(-1).astype("float32")
    return LightningRun(Spectra(), in_order(*columns, size=24), {"max_epochs": 1})


class Yield(LightningModule):
    """The yield of a reaction, on the scale of log-odds."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 32), nn.GELU(), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        conditions, share = batch
        odds = torch.log(share / (1 - share))
        return F.l1_loss(self.net(conditions), odds)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite("NAN111", "log", "odds = torch.log(share / (1 - share))", modules=("",), rows=(7, 12, 25)),
    "https://pytorch.org/docs/stable/generated/torch.logit.html",
)
def reactions_that_yield_nothing() -> LightningRun:
    """Yields become log-odds in the training step; three reactions of a batch gave nothing at all."""
    conditions, y = regression(32 * 45, seed=4304)
    share = 1 / (1 + np.exp(-y))
    share[[28 * 32 + row for row in (7, 12, 25)]] = 0
    return LightningRun(Yield(), in_order(conditions, share.astype("float32"), size=32), {"max_epochs": 1})


# -- gradients by hand -----------------------------------------------------------------------------------------------


class UnitAmplitude(torch.autograd.Function):
    """Brings every trace to the amplitude 1, and has its own derivative."""

    @staticmethod
    def forward(ctx: Any, trace: Tensor) -> Tensor:
        length = trace.norm(dim=-1, keepdim=True)
        ctx.save_for_backward(trace, length)
        return trace / length.clamp(min=1e-6)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        trace, length = ctx.saved_tensors
        along = (gradient * trace).sum(-1, keepdim=True) * trace
        return gradient / length - along / length**3


class Seismogram(LightningModule):
    """Picks the first arrival in a seismogram after a learnt filter."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv1d(1, 6, 7, padding=3, bias=False)
        self.out = nn.Sequential(nn.Flatten(), nn.Linear(6 * 48, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        trace, arrival = batch
        even = UnitAmplitude.apply(self.filter(trace.unsqueeze(1)))
        return F.mse_loss(self.out(torch.relu(even)).squeeze(1), arrival)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite(
        ("NAN115", "NAN112"),
        None,
        ("even = UnitAmplitude.apply(self.filter(", "return gradient / length - along / length**3"),
        rows=(15,),
    ),
    "https://pytorch.org/docs/stable/generated/torch.autograd.gradcheck.gradcheck.html",
    "https://pytorch.org/docs/stable/notes/extending.html",
)
def trace_of_a_broken_cable() -> LightningRun:
    """The forward pass guards the length of a trace, its hand-written derivative does not; one trace is all zeros."""
    rng = np.random.default_rng(4305)
    start = rng.integers(4, 40, 16 * 45)
    trace = np.where(np.arange(48) >= start[:, None], 1.0, 0.1) * rng.normal(size=(len(start), 48))
    trace[32 * 16 + 15] = 0
    return LightningRun(
        Seismogram(), in_order(trace.astype("float32"), (start / 20 - 1).astype("float32"), size=16), {"max_epochs": 1}
    )


# -- healthy ---------------------------------------------------------------------------------------------------------


class Ores(LightningModule):
    """Grade of an ore from traces of ten elements, each on a scale of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        traces, grade = batch
        return F.mse_loss(self.net(torch.asinh(traces * 100) / 5), grade)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(healthy(), "https://pytorch.org/docs/stable/generated/torch.asinh.html")
def traces_over_eight_magnitudes() -> LightningRun:
    """Traces reach from a ten-thousandth to thousands and have outliers; the model takes their logarithm first."""
    x, grade = regression(32 * 80, seed=4307)
    traces = np.sign(x) * np.expm1(2.5 * np.abs(x))
    return LightningRun(Ores(), in_order(traces.astype("float32"), grade, size=32), {"max_epochs": 1})
