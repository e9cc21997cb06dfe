"""What the data bring along: gaps, orders that do not fit, zeros, and units of another station."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, bad_batch, enter, finite, non_finite
from benchmarks.diagnosis.tables import digits, regression

# -- hospitals -------------------------------------------------------------------------------------------------------


class Vitals(LightningModule):
    """Who has to go back to intensive care? From a day of four vital signs."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 16, batch_first=True), nn.Linear(16, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        day, back = batch
        return F.binary_cross_entropy_with_logits(self.head(self.lstm(day)[0][:, -1]).squeeze(1), back)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    bad_batch(None, (4, 19, 22)),
    "https://scikit-learn.org/stable/modules/impute.html",
)
def cuff_that_was_taken_off() -> LightningRun:
    """Gaps are filled with the patient's own mean; three wore no cuff at all, and the mean of nothing is NaN."""
    rng = np.random.default_rng(4007)
    back = rng.integers(0, 2, 24 * 45)
    day = rng.normal(size=(len(back), 24, 4)) + 0.6 * back[:, None, None]
    day[rng.random(day.shape) < 0.05] = np.nan
    for row in (4, 19, 22):
        day[28 * 24 + row, :, 1] = np.nan
    counted = np.isfinite(day).sum(1, keepdims=True)
    with np.errstate(all="ignore"):
        own = np.nansum(day, 1, keepdims=True) / counted
    filled = np.where(np.isnan(day), own, day)
    return LightningRun(
        Vitals(), in_order(filled.astype("float32"), back.astype("float32"), size=24), {"max_epochs": 1}
    )


class Retina(LightningModule):
    """Grade of a retina from its picture."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(108, 10))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        picture, grade = batch
        return F.cross_entropy(self.net(picture), grade)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    finite(Happens.STALL, "DATA504", rows=None),
    "https://scikit-learn.org/stable/modules/generated/sklearn.utils.shuffle.html",
)
def grades_shuffled_by_themselves() -> LightningRun:
    """Pictures are shuffled, then grades are shuffled, each in an order of its own: no grade is at its picture."""
    rng = np.random.default_rng(4008)
    pictures, grades = digits(1600)
    rng.shuffle(pictures)
    rng.shuffle(grades)
    return LightningRun(Retina(), in_order(pictures.reshape(-1, 1, 8, 8), grades, size=32), {"max_epochs": 1})


# -- rows that are unlike the others ---------------------------------------------------------------------------------


class Fodder(nn.Module):
    """What an animal has eaten of each fodder, weighted, on a logarithmic scale; nothing stays nothing."""

    def __init__(self, kinds: int) -> None:
        super().__init__()
        self.worth = nn.Parameter(torch.ones(kinds))

    def forward(self, eaten: Tensor) -> Tensor:
        energy = eaten * self.worth
        return torch.where(energy > 0, torch.log(energy), torch.zeros_like(energy))


class Milk(LightningModule):
    """Milk of a cow from its fodder."""

    def __init__(self) -> None:
        super().__init__()
        self.fodder = Fodder(6)
        self.net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        eaten, milk = batch
        return F.mse_loss(self.net(self.fodder(eaten)).squeeze(1), milk)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite(
        ("NAN113", "NAN111"),
        "log",
        "return torch.where(energy > 0, torch.log(energy)",
        phase=None,
        modules=("fodder",),
        rows=(8, 23),
    ),
    "https://github.com/pytorch/pytorch/issues/68425",
    "https://github.com/pytorch/pytorch/issues/108618",
    "https://docs.jax.dev/en/latest/faq.html#gradients-contain-nan-where-using-where",
)
def cows_that_got_no_silage() -> LightningRun:
    """A logarithm is hidden behind where; two cows got no silage, and the branch not taken is differentiated too."""
    rng = np.random.default_rng(4308)
    eaten = rng.gamma(3.0, 1.0, (32 * 45, 6))
    milk = np.log(eaten[:, 0]) + 0.5 * np.log(eaten[:, 1]) + 0.1 * rng.normal(size=len(eaten))
    eaten[29 * 32 + 8, 3] = eaten[29 * 32 + 23, 3] = 0
    return LightningRun(Milk(), in_order(eaten.astype("float32"), milk.astype("float32"), size=32), {"max_epochs": 1})


class Storm(LightningModule):
    """Wind of the next hour from ten readings of a station."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 32), nn.ELU(), nn.Linear(32, 32), nn.ELU(), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        readings, wind = batch
        return F.mse_loss(self.net(readings), wind)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    finite(Happens.SPIKE, "DATA503", rows=(17,)),
    "https://scikit-learn.org/stable/modules/generated/sklearn.preprocessing.RobustScaler.html",
)
def barometer_in_pascal() -> LightningRun:
    """Readings are standardised for hectopascals; one station sends pascals, a hundred times as many."""
    readings, wind = regression(32 * 50, seed=4309)
    readings[37 * 32 + 17, 2] = (101_300 - 1013) / 8
    return LightningRun(Storm(), in_order(readings, wind, size=32), {"max_epochs": 1})
