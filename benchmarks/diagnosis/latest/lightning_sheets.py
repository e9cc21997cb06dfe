"""Tables and forecasts: columns as they came, percentages of nothing, a root of nothing, weights of absent classes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.program import Happens, LightningRun, Truth, bad_batch, enter, finite, non_finite, runaway
from benchmarks.diagnosis.tables import digits, regression


def sheet(*columns: np.ndarray, size: int = 32) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*map(torch.from_numpy, columns)), batch_size=size)


def mlp(*sizes: int) -> nn.Sequential:
    net = nn.Sequential()
    for before, after in pairwise(sizes):
        net.extend([nn.Linear(before, after), nn.ReLU()])
    return net[:-1]


class Regression(LightningModule):
    """Least squares by plain gradient descent."""

    def __init__(self, net: nn.Module, rate: float) -> None:
        super().__init__()
        self.net, self.rate = net, rate

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), self.rate)


# -- DATA501, DATA502 ------------------------------------------------------------------------------------------------


@enter(
    bad_batch(None, (4, 9, 27)),
    "https://github.com/yandexdataschool/nlp_course/issues/15",
    "https://github.com/circleAhn/TESLA-tf/issues/1",
    "https://mcmap.net/q/406467/-multivariate-lstm-with-missing-values",
)
def tenants_who_did_not_tell() -> LightningRun:
    """Three tenants left their income empty, and the table was not imputed."""
    x, y = regression(1280, seed=1101)
    x[[21 * 32 + 4, 21 * 32 + 9, 21 * 32 + 27], 6] = np.nan
    return LightningRun(Regression(mlp(10, 32, 1), 0.02), sheet(x, y), {"max_epochs": 1})


@enter(
    bad_batch(None, (), code="DATA501"),
    "https://github.com/fastai/fastai/issues/889",
    "https://github.com/SheffieldML/GPy/pull/148",
    "https://github.com/ludwig-ai/ludwig/pull/2543",
    "https://github.com/rasbt/mlxtend/issues/1058",
)
def week_without_any_wind() -> LightningRun:
    """Each week is standardised by its own deviations; in the third one no wind blew, and its column is 0 / 0."""
    x, y = regression(32 * 12 * 4, seed=1102)
    weeks = np.split(np.abs(x), 4)
    weeks[2][:, 3] = 0
    with np.errstate(invalid="ignore"):
        scaled = [(week - week.mean(0)) / week.std(0) for week in weeks]
    return LightningRun(Regression(mlp(10, 24, 1), 0.02), sheet(np.concatenate(scaled), y), {"max_epochs": 1})


@enter(
    runaway(("DATA502", "DATA509", "OPT601")),
    "https://github.com/rstudio-conf-2020/dl-keras-tf/issues/9",
    "https://github.com/keras-team/keras/issues/3040",
    "https://github.com/keras-team/keras-tuner/issues/345",
)
def used_cars_in_full() -> LightningRun:
    """Kilometres, year, power and price in euros, all as the advertisements have them, with SGD at 0.01."""
    rng = np.random.default_rng(1103)
    cars = np.stack([rng.uniform(0, 250_000, 1280), rng.integers(1998, 2024, 1280), rng.uniform(50, 300, 1280)], 1)
    price = 40_000 - 0.1 * cars[:, 0] + 900 * (cars[:, 1] - 2010) + 60 * cars[:, 2] + 1500 * rng.normal(size=1280)
    columns = cars.astype("float32"), price.clip(500)[:, None].astype("float32")
    return LightningRun(Regression(mlp(3, 32, 1), 0.01), sheet(*columns), {"max_epochs": 1})


# -- NAN112 ----------------------------------------------------------------------------------------------------------


class Sales(LightningModule):
    """Sales of tomorrow, never negative, by the symmetric percentage error."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = nn.Linear(9, 24), nn.Linear(24, 1)

    def forward(self, week: Tensor) -> Tensor:
        is_open = (week.sum(1, keepdim=True) > 0).float()
        return F.softplus(self.head(torch.tanh(self.trunk(week)))) * is_open

    def smape(self, forecast: Tensor, sold: Tensor) -> Tensor:
        return 2 * (forecast - sold).abs() / (forecast.abs() + sold.abs())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.smape(self(batch[0]), batch[1]).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.RMSprop(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN112", "divide", "return 2 * (forecast - sold).abs() / (", modules=("",), rows=(6, 30)),
    "https://github.com/uber/causalml/pull/1049",
    "https://github.com/LibCity/Bigscity-LibCity/issues/219",
    "https://github.com/biolab/orange3/issues/7041",
)
def shops_closed_for_a_week() -> LightningRun:
    """The symmetric percentage error of two closed shops: nothing was forecast, nothing was sold, 0 / 0."""
    rng = np.random.default_rng(1104)
    week = rng.gamma(3.0, 0.5, (32 * 45, 9)).astype("float32")
    sold = week.mean(1, keepdims=True) * rng.uniform(0.8, 1.2, (len(week), 1)).astype("float32")
    for shop in (28 * 32 + 6, 28 * 32 + 30):
        week[shop] = sold[shop] = 0
    return LightningRun(Sales(), sheet(week, sold), {"max_epochs": 1})


class Whiten(nn.Module):
    """Batch normalisation from memory."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / x.std(0)


class Merchants(LightningModule):
    """Fraud by amount, hour and ten flags of the merchant."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(Whiten(), nn.Linear(12, 24), nn.ELU(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features, fraud = batch
        return F.binary_cross_entropy_with_logits(self.net(features), fraud)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=4e-3)


@enter(
    non_finite("NAN112", "divide", "return (x - x.mean(0)) / x.std(0)", modules=("net.0", "0")),
    "https://github.com/sevamoo/SOMPY/pull/30",
    "https://github.com/pytorch/pytorch/issues/1381",
    "https://github.com/PolyMathOrg/PolyMath/pull/128",
)
def batch_without_a_casino() -> LightningRun:
    """Batch normalisation by hand divides by a deviation without epsilon; one batch has no casino in it."""
    rng = np.random.default_rng(1105)
    flags = (rng.random((32 * 45, 10)) < 0.4).astype("float32")
    flags[30 * 32 : 31 * 32, 7] = 0
    features = np.concatenate([rng.normal(size=(len(flags), 2)).astype("float32"), flags], 1)
    fraud = (features[:, :1] + 2 * flags[:, 7:8] - flags[:, 2:3] > 0.5).astype("float32")
    return LightningRun(Merchants(), sheet(features, fraud), {"max_epochs": 1})


class Balanced(LightningModule):
    """Digits, each class weighted by the inverse of its count in a sample of the training set."""

    def __init__(self, sample: np.ndarray) -> None:
        super().__init__()
        counts = torch.bincount(torch.from_numpy(sample), minlength=10)
        self.net = mlp(64, 40, 10)
        self.criterion = nn.CrossEntropyLoss(weight=len(sample) / (10 * counts))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.criterion(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("NAN112", "DATA501"), modules=("criterion",), rows=None),
    "https://github.com/fcakyon/balanced-loss/pull/12",
    "https://github.com/webis-de/small-text/issues/39",
    "https://github.com/scikit-learn/scikit-learn/pull/32639",
)
def weight_of_a_class_never_counted() -> LightningRun:
    """Class weights are n / count; the sample that was counted has no eight, so its weight is infinite."""
    images, labels = digits(1600)
    early = np.flatnonzero((labels == 8) & (np.arange(len(labels)) < 500))
    keep = np.setdiff1d(np.arange(len(labels)), early)
    images, labels = images[keep], labels[keep]
    return LightningRun(Balanced(labels[:400]), sheet(images, labels), {"max_epochs": 1})


# -- NAN113 ----------------------------------------------------------------------------------------------------------


class Solar(LightningModule):
    """Yield of a solar plant: irradiance times an efficiency that is learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.efficiency = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 1), nn.Sigmoid())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        light, weather, produced = batch
        return torch.sqrt(F.mse_loss(light * self.efficiency(weather), produced))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


@enter(
    non_finite("NAN113", "sqrt", "return torch.sqrt(F.mse_loss(light", phase="backward", modules=("",)),
    "https://github.com/pytorch/pytorch/issues/45112",
    "https://github.com/keras-team/keras/issues/1172",
    "https://github.com/mpariente/pytorch_stoi/issues/7",
)
def hours_of_the_night() -> LightningRun:
    """The root of a mean squared error; in the hours of one night forecast and yield are both exactly 0."""
    rng = np.random.default_rng(1106)
    light = rng.uniform(0.05, 1, (24 * 45, 1)).astype("float32")
    light[27 * 24 : 28 * 24] = 0
    weather = rng.normal(size=(len(light), 5)).astype("float32")
    produced = light / (1 + np.exp(-weather[:, :1] + 0.5 * weather[:, 1:2]))
    return LightningRun(Solar(), sheet(light, weather, produced.astype("float32"), size=24), {"max_epochs": 1})


# -- LOSS403 ---------------------------------------------------------------------------------------------------------


class Tags(LightningModule):
    """Thirty rare tags of an article; forward() ends in a sigmoid, as the metrics want it."""

    def __init__(self) -> None:
        super().__init__()
        self.tagger = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 30), nn.Sigmoid())
        nn.init.constant_(self.tagger[2].bias, -2.0)  # tags are rare
        self.criterion = nn.BCEWithLogitsLoss()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.criterion(self.tagger(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    finite(Happens.STALL, "LOSS403"),
    "https://github.com/itakurah/focal-loss-pytorch/pull/5",
    "https://github.com/lopuhin/kaggle-imet-2019/issues/3",
    "https://github.com/yudi-mars/daisyRec/pull/15",
)
def tags_through_two_sigmoids() -> LightningRun:
    """A sigmoid at the end and another one in BCEWithLogitsLoss: no tag can become less likely than one half."""
    rng = np.random.default_rng(1107)
    article = rng.normal(size=(32 * 60, 20)).astype("float32")
    scores = article @ rng.normal(size=(20, 30))
    tags = (scores > 1.0 * scores.std(0)).astype("float32")
    return LightningRun(Tags(), sheet(article, tags), {"max_epochs": 2})
