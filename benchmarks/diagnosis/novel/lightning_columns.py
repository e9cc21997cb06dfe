"""Tables with messy columns, in Lightning: forgotten scalers, bins, products of integers, sorted files, likelihoods."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, non_finite, runaway
from benchmarks.diagnosis.tables import regression, two_blobs


class Regressor(LightningModule):
    """A plain regression."""

    def __init__(self, columns: int, rate: float, hidden: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.rate = rate
        self.net = nn.Sequential(nn.Linear(columns, 64), hidden(), nn.Linear(64, 32), hidden(), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return F.mse_loss(self.net(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.rate, momentum=0.9)


@enter(
    runaway("DATA502"),
    "https://openillumi.com/en/en-sklearn-columntransformer-scaling-guide",
    "https://proclusacademy.com/blog/columntransformer-why-and-how-to-use-it",
)
def column_that_was_passed_through() -> LightningRun:
    """Ten columns were standardised, the salary went through the column transformer as it was: around 52 000."""
    x, y = regression(1280)
    salary = np.random.default_rng(3).normal(52_000, 9_000, (1280, 1)).astype("float32")
    return LightningRun(Regressor(11, 0.01), in_order(np.concatenate([x, salary], 1), y, size=32), {"max_epochs": 1})


class Policies(LightningModule):
    """Claims by the age group of the driver and ten numbers."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.age = nn.Embedding(groups, 6)
        self.net = nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, group, y = batch
        return F.smooth_l1_loss(self.net(torch.cat([x, self.age(group)], dim=1)), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    Truth(happens=Happens.EXCEPTION, causes=("DATA511",), kind="exception", operations=("IndexError",), rows=(21,)),
    "https://github.com/dreamquark-ai/tabnet/issues/474",
    "https://github.com/fastai/fastai/issues/1423",
)
def driver_above_the_last_edge() -> LightningRun:
    """Six edges make seven bins, and the table has six rows: one driver is older than the last edge."""
    x, y = regression(1280)
    edges = np.array([25, 35, 45, 55, 65, 80])
    ages = np.random.default_rng(6).integers(18, 80, 1280)
    ages[34 * 32 + 21] = 83
    groups = np.digitize(ages, edges)
    return LightningRun(Policies(len(edges)), in_order(x, groups, y, size=32), {"max_epochs": 1})


class Backups(LightningModule):
    """How long a copy takes, from the number of blocks and their size."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        load, total, seconds = batch
        magnitude = torch.log1p(total.float())
        return F.mse_loss(self.net(torch.cat([load, magnitude / 10], dim=1)), seconds)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite(
        ("DATA507", "NAN114"), ("log1p", "log"), "magnitude = torch.log1p(total.float())", modules=("",), rows=(12,)
    ),
    "https://github.com/pandas-dev/pandas/issues/25562",
    "https://github.com/numpy/numpy/issues/20634",
)
def bytes_multiplied_in_int32() -> LightningRun:
    """Blocks times bytes per block in 32 bits: one copy is larger than two gigabytes, and its size is negative."""
    rng = np.random.default_rng(9)
    blocks = np.exp(rng.uniform(7, 14.3, (1280, 1))).astype("int32")
    blocks[30 * 32 + 12] = 2_900_000
    total = blocks * np.int32(1024)
    load = rng.normal(size=(1280, 1)).astype("float32")
    seconds = (0.3 * np.log(blocks) + 0.2 * load + 0.05 * rng.normal(size=(1280, 1))).astype("float32")
    return LightningRun(Backups(), in_order(load, total, seconds, size=32), {"max_epochs": 1})


@enter(
    runaway(("DATA509", "OPT601")),
    "https://discuss.pytorch.org/t/neural-network-could-not-learn-on-this-type-of-data-why/96648/5",
    "https://www.alexacabs.in/why-is-loss-showing-as-nan.html",
)
def lifetime_value_in_rupiah() -> LightningRun:
    """What a customer will have spent, in a currency of which a million is a meal."""
    x, y = regression(1280)
    value = 4.0e6 + 1.5e6 * y
    return LightningRun(Regressor(10, 0.01), in_order(x, value, size=32), {"max_epochs": 1})


class Valuation(LightningModule):
    """Sells or does not sell within a month, as in the textbook: sigmoids."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 32), nn.Sigmoid(), nn.Linear(32, 32), nn.Sigmoid(), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, sold = batch
        return F.binary_cross_entropy_with_logits(self.net(x), sold)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    finite(Happens.STALL, ("DATA502", "ACT302")),
    "https://ai.stackexchange.com/questions/16557/what-could-be-the-problem-when-a-neural-network-with-four-hidden-layers-with-the",
    "https://datascience.stackexchange.com/questions/31499/neural-network-only-converges-when-data-cloud-is-close-to-0",
)
def houses_through_sigmoids_as_they_are() -> LightningRun:
    """Square metres, year, price and distance as they stand in the file: the first sigmoids are at their stops."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(1280, 4))
    sold = (x[:, :1] + 0.8 * x[:, 1:2] - x[:, 2:3] + 0.3 * rng.normal(size=(1280, 1)) > 0).astype("float32")
    raw = (np.array([110, 1975, 320_000, 8_500]) + np.array([25, 20, 60_000, 2_500]) * x).astype("float32")
    return LightningRun(Valuation(), in_order(raw, sold, size=32), {"max_epochs": 2})


class Fraud(LightningModule):
    """Fraudulent or not."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, fraud = batch
        return F.binary_cross_entropy_with_logits(self.net(x), fraud)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    finite(Happens.SPIKE, ("DATA510", "DATA512"), rows=None),
    "https://dailydoseofds.beehiiv.com/p/why-is-it-important-to-shuffle-your",
    "https://library.kiwix.org/datascience.stackexchange.com_en_all_2021-04/A/question/24511.html",
)
def frauds_at_the_end_of_the_file() -> LightningRun:
    """The file is sorted by its label and not shuffled: dozens of batches of honest orders, then frauds alone."""
    x, fraud = two_blobs(1600, gap=2.0)
    order = np.argsort(fraud[:, 0], kind="stable")
    honest = int((fraud == 0).sum()) // 32 * 32
    keep = np.concatenate([order[:honest], order[-320:]])
    return LightningRun(Fraud(), in_order(x[keep], fraud[keep], size=16), {"max_epochs": 1})


class Rents(LightningModule):
    """Rents with a spread of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(10, 64), nn.ReLU())
        self.mean, self.spread = nn.Linear(64, 1), nn.Linear(64, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, rent = batch
        features = self.body(x)
        likely = Normal(self.mean(features), F.softplus(self.spread(features)) + 0.3)
        return -likely.log_prob(rent).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    finite(Happens.STALL, "DATA508"),
    "https://github.com/pytorch/pytorch/issues/43878",
    "https://github.com/pytorch/pytorch/issues/78867",
)
def likelihood_of_all_rents_at_every_flat() -> LightningRun:
    """A column of normal distributions is asked about a vector of rents: 32 times 32 likelihoods."""
    x, rent = regression(1280)
    return LightningRun(Rents(), in_order(x, rent[:, 0], size=32), {"max_epochs": 2})


class Visits(LightningModule):
    """Visits of a surgery in a day, likelihood as in the textbook."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1), nn.Softplus())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, visits = batch
        rate = self.net(x) + 0.5
        factorial = torch.exp(torch.lgamma(visits + 1))
        return (rate - visits * torch.log(rate) + torch.log(factorial)).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


@enter(
    non_finite("NAN110", "exp", "factorial = torch.exp(torch.lgamma(visits + 1))", modules=("",), rows=(7,)),
    "https://github.com/statsmodels/statsmodels/issues/110",
    "https://github.com/tidymodels/yardstick/issues/634",
)
def factorial_of_a_busy_day() -> LightningRun:
    """The factorial of a count is written out; from 35 visits on it is larger than float32 can hold."""
    x, y = regression(1280)
    rng = np.random.default_rng(1)
    visits = np.minimum(rng.poisson(np.exp(2.5 + 0.35 * y)), 33).astype("float32")
    visits[26 * 32 + 7] = 37
    return LightningRun(Visits(), in_order(x, visits, size=32), {"max_epochs": 1})


class Production(LightningModule):
    """What a plant puts out, by a production function with constant elasticity of substitution."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.5))
        self.efficiency = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        plant, capital, labour, output = batch
        bundle = self.share * capital.sqrt() + (1 - self.share) * labour.sqrt()
        made = self.efficiency(plant).exp() * torch.pow(bundle, 1.5)
        return F.mse_loss(made, output)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


@enter(
    non_finite("NAN114", ("pow", "power"), "torch.pow(bundle, 1.5)", modules=("",), rows=None),
    "https://github.com/pytorch/pytorch/issues/75405",
    "https://github.com/pytorch/pytorch/issues/29518",
)
def share_of_capital_above_one() -> LightningRun:
    """Nothing keeps the learnt share below 1; where hands are many and machines few, a negative number gets a power."""
    rng = np.random.default_rng(2)
    plant = rng.normal(size=(1280, 6)).astype("float32")
    capital = rng.lognormal(0.0, 0.9, (1280, 1)).astype("float32")
    labour = rng.lognormal(0.0, 0.9, (1280, 1)).astype("float32")
    output = np.maximum(1.4 * capital**0.5 - 0.4 * labour**0.5, 0.02) ** 1.5
    return LightningRun(
        Production(), in_order(plant, capital, labour, output.astype("float32"), size=32), {"max_epochs": 2}
    )
