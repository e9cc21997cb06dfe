"""Finance, energy and series: portfolios, options, meters and the schedules they are trained with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import LightningRun, bad_batch, enter, healthy, non_finite, runaway
from benchmarks.diagnosis.tables import regression, waves

# -- markets ---------------------------------------------------------------------------------------------------------


class Portfolio(LightningModule):
    """Weights of eight shares for the coming fortnight, chosen for the best Sharpe ratio."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        signal, returns = batch
        weights = torch.softmax(self.net(signal), 1)
        gains = (weights.unsqueeze(1) * returns).sum(2)
        sharpe = gains.mean(1) / gains.std(1)
        return -sharpe.mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite("NAN112", "divide", "sharpe = gains.mean(1) / gains.std(1)", modules=("",), rows=(9,)),
    "https://pytorch.org/docs/stable/generated/torch.std.html",
)
def fortnight_of_a_closed_exchange() -> LightningRun:
    """Sharpe ratio of a fortnight's gains; the exchange was closed for one, and a return of 0 has no deviation."""
    rng = np.random.default_rng(4101)
    signal = rng.normal(size=(24 * 45, 8))
    returns = 0.01 * rng.normal(size=(len(signal), 10, 8)) + 0.004 * signal[:, None]
    returns[31 * 24 + 9] = 0
    return LightningRun(
        Portfolio(), in_order(signal.astype("float32"), returns.astype("float32"), size=24), {"max_epochs": 1}
    )


class ImpliedVolatility(LightningModule):
    """Learns the volatility surface by pricing options with the formula of Black and Scholes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 1))

    def price(self, moneyness: Tensor, years: Tensor, sigma: Tensor) -> Tensor:
        spread = sigma * years.sqrt()
        d1 = (torch.log(moneyness) + 0.5 * spread.square()) / spread
        return moneyness * torch.special.ndtr(d1) - torch.special.ndtr(d1 - spread)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        moneyness, years, paid = batch
        sigma = F.softplus(self.net(torch.stack([moneyness - 1, years], 1))).squeeze(1)
        return 100 * F.mse_loss(self.price(moneyness, years, sigma), paid)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite("NAN112", "divide", "d1 = (torch.log(moneyness) + 0.5", phase=None, modules=("",), rows=(3, 30)),
    "https://pytorch.org/docs/stable/notes/numerical_accuracy.html",
)
def option_on_its_last_day() -> LightningRun:
    """Two options expire on the day of the quote: no time is left, and the formula divides by its root."""
    rng = np.random.default_rng(4102)
    moneyness, years = rng.uniform(0.8, 1.2, 32 * 45), rng.integers(5, 250, 32 * 45) / 250
    for row in (3, 30):
        years[33 * 32 + row] = 0
    sigma = 0.2 + (moneyness - 1) ** 2
    spread = sigma * np.sqrt(years) + 1e-9
    d1 = torch.from_numpy((np.log(moneyness) + spread**2 / 2) / spread)
    paid = moneyness * torch.special.ndtr(d1).numpy() - torch.special.ndtr(d1 - torch.from_numpy(spread)).numpy()
    columns = (column.astype("float32") for column in (moneyness, years, paid))
    return LightningRun(ImpliedVolatility(), in_order(*columns, size=32), {"max_epochs": 1})


class Volatility(LightningModule):
    """A GARCH model: tomorrow's variance from today's return and today's variance, in parameters without bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.floor = nn.Parameter(torch.tensor(0.31))
        self.shock = nn.Parameter(torch.tensor(0.2))
        self.memory = nn.Parameter(torch.tensor(0.5))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (returns,) = batch
        variance, loss = returns.var(1), returns.new_zeros(())
        for day in range(1, returns.shape[1]):
            variance = self.floor + self.shock * returns[:, day - 1].square() + self.memory * variance
            loss = loss + (torch.log(variance) + returns[:, day].square() / variance).mean()
        return loss / returns.shape[1]

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


@enter(
    non_finite(("NAN114", "OPT601"), "log", "loss = loss + (torch.log(variance) + ", modules=("",), rows=None),
    "https://pytorch.org/docs/stable/generated/torch.nn.functional.softplus.html",
)
def variance_below_its_floor() -> LightningRun:
    """The floor of a variance is a plain parameter; quiet shares pull it down, and the optimiser passes zero."""
    rng = np.random.default_rng(4103)
    returns = 0.05 * rng.normal(size=(16 * 60, 12)) * np.exp(0.3 * rng.normal(size=(16 * 60, 1)))
    return LightningRun(Volatility(), in_order(returns.astype("float32"), size=16), {"max_epochs": 1})


class NextReturn(LightningModule):
    """The next return of a share from the last twenty, by a small convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(1, 8, 5), nn.ReLU(), nn.Flatten(), nn.Linear(128, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        past, following = batch
        return F.huber_loss(self.net(past.unsqueeze(1)), following)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


@enter(
    bad_batch(None, (11,)),
    "https://numpy.org/doc/stable/reference/generated/numpy.log.html",
)
def share_that_was_worth_nothing() -> LightningRun:
    """Returns are differences of logarithms of prices; one company went bankrupt, and its last prices are 0."""
    rng = np.random.default_rng(4104)
    price = 50 * np.exp(np.cumsum(0.02 * rng.normal(size=(32 * 45, 22)), 1))
    price[34 * 32 + 11, 15:] = 0
    with np.errstate(all="ignore"):
        returns = np.diff(np.log(price)).astype("float32") / 0.02
    return LightningRun(NextReturn(), in_order(returns[:, :20], returns[:, 20:], size=32), {"max_epochs": 1})


# -- meters ----------------------------------------------------------------------------------------------------------


class HeatDemand(LightningModule):
    """Heat that a district asks for, from weather and calendar."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        weather, demand = batch
        return F.mse_loss(self.net(weather), demand)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


@enter(
    runaway("DATA509"),
    "https://scikit-learn.org/stable/modules/generated/sklearn.compose.TransformedTargetRegressor.html",
)
def demand_in_kilojoules() -> LightningRun:
    """Weather is standardised, the demand is not: hundreds of thousands of kilojoules under a squared error."""
    weather, demand = regression(32 * 40, seed=4105)
    return LightningRun(HeatDemand(), in_order(weather, 3e5 + 8e4 * demand, size=32), {"max_epochs": 1})


class Turbine(LightningModule):
    """Wind power of the next hour, by a network whose rate follows one cycle."""

    def __init__(self, peak: float) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
        self.peak = peak

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        wind, power = batch
        return F.mse_loss(self.net(wind), power)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=1e-3, momentum=0.9)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=self.peak, total_steps=160, div_factor=1e3)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


@enter(
    runaway("OPT601"),
    "https://pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.OneCycleLR.html",
)
def cycle_that_peaks_at_two() -> LightningRun:
    """One cycle begins at 0.002 and climbs to 2.0 where 0.2 was meant; before the peak the weights have gone."""
    wind, power = regression(32 * 80, seed=4106)
    return LightningRun(Turbine(2.0), in_order(wind, power, size=32), {"max_epochs": 2})


# -- healthy ---------------------------------------------------------------------------------------------------------


class Restarts(LightningModule):
    """The next value of a wave by a GRU; the rate restarts every forty steps."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(1, 16, batch_first=True), nn.Linear(16, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        past, following = batch
        mean, log_scale = self.head(self.gru(past)[0][:, -1]).chunk(2, 1)
        return (0.5 * ((following - mean) / log_scale.exp()).square() + log_scale).mean()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-2)
        restarts = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=40)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": restarts, "interval": "step"}}


@enter(healthy(), "https://pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.CosineAnnealingWarmRestarts.html")
def rate_that_restarts() -> LightningRun:
    """The loss is a Gaussian's, falls below zero as it should, and shakes whenever the rate starts again."""
    past, following = waves(32 * 60, length=24, seed=4107)
    return LightningRun(Restarts(), in_order(past, following, size=32), {"max_epochs": 2, "gradient_clip_val": 1.0})
