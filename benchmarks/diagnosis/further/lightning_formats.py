"""Number formats, statistics, optimizers, and what was wrong with a batch before any model saw it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, Truth, bad_batch, enter, non_finite


class _Adam(LightningModule):
    """Adam at a rate of each model's own."""

    rate = 3e-3

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.rate)


def _run(module: LightningModule, *columns: np.ndarray, size: int) -> LightningRun:
    narrow = [column.astype("float32") if column.dtype == np.float64 else column for column in columns]
    return LightningRun(module, in_order(*narrow, size=size), {"max_epochs": 1})


class Exposure(nn.Module):
    """Energy of a picture, in half precision."""

    def forward(self, picture: Tensor) -> Tensor:
        return picture.half().flatten(1).sum(1, keepdim=True).float() / 1000


class Camera(_Adam):
    """How long should be exposed? From the energy of a picture and the state of the camera."""

    def __init__(self) -> None:
        super().__init__()
        self.exposure = Exposure()
        self.net = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        picture, state, seconds = batch
        energy = torch.log1p(self.exposure(picture))
        return F.mse_loss(self.net(torch.cat([energy, state], 1)).squeeze(1), seconds)


@enter(
    non_finite(
        "OPT604", "sum", "return picture.half().flatten(1).sum(1, keepdim=True)", modules=("exposure",), rows=(4, 10)
    ),
    "https://github.com/qubvel-org/segmentation_models.pytorch/issues/463",
    "https://github.com/numpy/numpy/issues/7930",
)
def pictures_taken_against_the_sun() -> LightningRun:
    """The sum over 576 pixels of up to 255 is kept in float16, which ends at 65504; two pictures are nearly white."""
    rng = np.random.default_rng(7307)
    level = rng.uniform(20, 90, 16 * 44)
    level[[26 * 16 + 4, 26 * 16 + 10]] = 240
    picture = np.clip(level[:, None, None] + 10 * rng.normal(size=(len(level), 24, 24)), 0, 255)
    state = rng.normal(size=(len(level), 3))
    return _run(Camera(), picture, state, 2 - np.log(level / 50) + 0.2 * state[:, 0], size=16)


class Standardised(nn.Module):
    """Columns of the batch on one scale."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / x.std(0)


class Snow(_Adam):
    """Runoff of a valley from five columns, which are standardised batch by batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(Standardised(), nn.Linear(5, 24), nn.ReLU(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        weather, runoff = batch
        return F.mse_loss(self.net(weather).squeeze(1), runoff)


@enter(
    non_finite("NAN112", "divide", "return (x - x.mean(0)) / x.std(0)", modules=("net.0",), rows=()),
    "https://pytorch.org/docs/stable/generated/torch.nn.BatchNorm1d.html",
)
def month_without_snow() -> LightningRun:
    """Columns are divided by their spread in the batch: in July the column of snow is 0 throughout, and so is it."""
    rng = np.random.default_rng(7308)
    weather = rng.gamma(2, 1, (30 * 40, 5))
    runoff = weather[:, 0] + 0.5 * weather[:, 3] - 2
    weather[28 * 30 : 29 * 30, 3] = 0
    return _run(Snow(), weather, runoff, size=30)


class Radio(LightningModule):
    """Songs and listeners as vectors, under Adagrad."""

    def __init__(self) -> None:
        super().__init__()
        self.song, self.listener = nn.Embedding(60, 8), nn.Embedding(40, 8)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pair, liked = batch
        score = (self.song(pair[:, 0]) * self.listener(pair[:, 1])).sum(1)
        return F.binary_cross_entropy_with_logits(score, liked)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adagrad(self.parameters(), lr=0.1, eps=0.0)


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("OPT605",), rows=None),
    "https://pytorch.org/docs/stable/generated/torch.optim.Adagrad.html",
)
def songs_that_were_not_played_in_the_first_hour() -> LightningRun:
    """Adagrad without an epsilon divides 0 by 0 for each song without a gradient; the first one to be played is NaN."""
    rng = np.random.default_rng(7309)
    song, listener = rng.integers(0, 50, 64 * 22), rng.integers(0, 40, 64 * 22)
    song[: 64 * 2], listener[: 64 * 2] = np.arange(128) % 50, np.arange(128) % 40
    song[20 * 64 + 3] = 55
    liked = ((song + listener) % 3 == 0).astype("float32")
    return _run(Radio(), np.stack([song, listener], 1), liked, size=64)


class Pulse(_Adam):
    """Fitness from the beats of a minute, after each minute was standardised by itself in the data set."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(1, 8, 7, stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(1))
        self.net(torch.zeros(1, 1, 60))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        beats, fitness = batch
        return F.mse_loss(self.net(beats[:, None]).squeeze(1), fitness)


@enter(
    bad_batch(None, rows=(3, 4)),
    "https://scikit-learn.org/stable/modules/impute.html",
    "https://pytorch.org/docs/stable/notes/numerical_accuracy.html",
)
def strap_that_lay_on_a_table() -> LightningRun:
    """Each minute is divided by its own spread before the training; twice the strap lay on a table and sent 0."""
    rng = np.random.default_rng(7310)
    fitness = rng.normal(size=16 * 50)
    beats = 70 + (5 + fitness[:, None]) * np.sin(0.3 * np.arange(60)) + rng.normal(size=(len(fitness), 60))
    beats[[38 * 16 + 3, 38 * 16 + 4]] = 0
    with np.errstate(invalid="ignore"):
        beats = (beats - beats.mean(1, keepdims=True)) / beats.std(1, keepdims=True)
    return _run(Pulse(), beats, fitness, size=16)
