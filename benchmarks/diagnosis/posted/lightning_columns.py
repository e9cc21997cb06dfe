"""Tables: columns as the warehouse has them, likelihoods for counts and durations, and codes for what is missing."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, non_finite, runaway
from benchmarks.diagnosis.tables import regression, two_blobs

# -- missing values --------------------------------------------------------------------------------------------------


class Standardise(nn.Module):
    """Layer normalisation as it stands in many tutorials."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        spread = centred.square().mean(-1, keepdim=True).sqrt()
        return self.gain * centred / (spread + 1e-6) + self.shift


class ColumnTokens(LightningModule):
    """Each column becomes a token, the value times a vector of its own."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(0.3 * torch.randn(columns, 16))
        self.norm, self.mix = Standardise(16), nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        row, target = batch
        tokens = self.norm(row.unsqueeze(-1) * self.vectors)
        return F.mse_loss(self.head(self.mix(tokens).mean(1)), target)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


@enter(
    non_finite(
        "NAN113", "sqrt", "spread = centred.square().mean(-1", phase="backward", modules=("norm",), rows=(8, 20)
    ),
    "https://github.com/pytorch/pytorch/issues/4320",
    "https://github.com/pyg-team/pytorch_geometric/pull/2917",
    "https://github.com/FluxML/Flux.jl/issues/2096",
)
def tokens_of_filled_cells() -> LightningRun:
    """Missing cells get the mean, exactly 0 once standardised; so is their token, whose deviation has no slope."""
    x, y = regression(24 * 45)
    for row, column in ((28 * 24 + 8, 3), (28 * 24 + 20, 6)):
        x[row, column] = 0.0
    return LightningRun(ColumnTokens(10), in_order(x, y, size=24), {"max_epochs": 1})


class Perceptron(LightningModule):
    """A plain network for a table."""

    def __init__(self, columns: int, optimizer: str = "Adam", rate: float = 3e-3) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(columns, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1))
        self.optimizer, self.rate = optimizer, rate

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        row, target = batch
        return F.mse_loss(self.net(row), target)

    def configure_optimizers(self) -> Any:
        return getattr(torch.optim, self.optimizer)(self.parameters(), lr=self.rate)


@enter(
    finite(Happens.SPIKE, "DATA503", rows=(2, 11, 27)),
    "https://datascience.stackexchange.com/questions/36047/fill-missing-values-and-normalise",
    "https://github.com/gzerveas/mvts_transformer/issues/41",
)
def minus_999_from_one_clinic() -> LightningRun:
    """Laboratory values are standardised; one clinic writes -999 for what it did not measure, which nobody replaced."""
    x, y = regression(32 * 50)
    for row in (2, 11, 27):
        x[33 * 32 + row, 4:8] = -999
    return LightningRun(Perceptron(10), in_order(x, y, size=32), {"max_epochs": 1})


# -- scales ----------------------------------------------------------------------------------------------------------


@enter(
    runaway("DATA502"),
    "https://github.com/RUCAIBox/RecBole/issues/1062",
)
def orders_with_a_timestamp() -> LightningRun:
    """Time of delivery from the basket and the order's Unix timestamp, 1.7 billion seconds, as one more column."""
    basket, minutes = regression(32 * 40)
    placed = 1.7e9 + np.random.default_rng(1801).uniform(0, 3e7, (len(basket), 1))
    rows = np.concatenate([basket, placed.astype("float32")], 1)
    return LightningRun(Perceptron(11, "SGD", 1e-2), in_order(rows, minutes, size=32), {"max_epochs": 1})


class LoadForecast(LightningModule):
    """The next value of a meter by a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(1, 24, batch_first=True), nn.Linear(24, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        day, following = batch
        return F.mse_loss(self.head(self.gru(day)[0][:, -1]), following)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    finite(Happens.STALL, "DATA509"),
    "https://github.com/gitbooo/CrossViVit/issues/5",
    "https://github.com/sktime/pytorch-forecasting/issues/410",
)
def meter_in_watt_hours() -> LightningRun:
    """Days are scaled before they go in, the value to be forecast stays as the meter has it, around 40 000."""
    rng = np.random.default_rng(1802)
    level, phase = rng.uniform(2e4, 6e4, (32 * 50, 1)), rng.uniform(0, 6.28, (32 * 50, 1))
    load = level * (1 + 0.3 * np.sin(phase + 0.4 * np.arange(25)))
    day = (load[:, :-1, None] - 4e4) / 2e4
    return LightningRun(
        LoadForecast(), in_order(*(a.astype("float32") for a in (day, load[:, -1:])), size=32), {"max_epochs": 1}
    )


# -- integers --------------------------------------------------------------------------------------------------------


class Turnover(LightningModule):
    """Does a customer come back? Price in cents times units, on a logarithmic scale, and five more columns."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        cents, units, others, back = batch
        turnover = torch.log1p((cents * units).float()) / 10
        row = torch.cat([turnover.unsqueeze(1), others], 1)
        return F.binary_cross_entropy_with_logits(self.net(row), back)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite(("DATA507", "NAN114"), ("log", "log1p"), "turnover = torch.log1p(", modules=("",), rows=(4,)),
    "https://github.com/pytorch/pytorch/issues/25747",
    "https://github.com/triton-lang/triton/issues/1211",
)
def turnover_in_32_bits() -> LightningRun:
    """Cents and units are int32, and so is their product; an order of 3000 machines wraps around to below zero."""
    x, back = two_blobs(32 * 45)
    rng = np.random.default_rng(1806)
    cents, units = rng.integers(100, 90_000, len(x)).astype("int32"), rng.integers(1, 40, len(x)).astype("int32")
    cents[29 * 32 + 4], units[29 * 32 + 4] = 899_000, 3000
    return LightningRun(Turnover(), in_order(cents, units, x[:, :5], back, size=32), {"max_epochs": 1})


class Season(LightningModule):
    """Visitors of a swimming pool by the day of the year and the weather."""

    def __init__(self) -> None:
        super().__init__()
        self.day, self.weekday = nn.Embedding(366, 8), nn.Embedding(7, 4)
        self.net = nn.Sequential(nn.Linear(14, 24), nn.ReLU(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        day, weekday, weather, visitors = batch
        row = torch.cat([self.day(day), self.weekday(weekday), weather], 1)
        return F.mse_loss(self.net(row).squeeze(1), visitors)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("DATA511",),
        kind="exception",
        operations=("IndexError",),
        modules=("day",),
        line="row = torch.cat([self.day(day), self.weekday(",
        rows=(5,),
    ),
    "https://github.com/NatLabRockies/nsrdb/pull/1",
    "https://github.com/spencermountain/spacetime/issues/382",
)
def last_day_of_a_leap_year() -> LightningRun:
    """Days are counted from 1 and the table has 366 rows, which is enough until the 31st of December 2020."""
    first = date(2018, 3, 1)
    days = [first + timedelta(days=number) for number in range(32 * 40)]
    rng = np.random.default_rng(1807)
    weather = rng.normal(size=(len(days), 2)).astype("float32")
    number = np.array([day.timetuple().tm_yday for day in days])
    visitors = np.sin(number / 58) + weather[:, 0]
    columns = number, np.array([day.weekday() for day in days]), weather, visitors.astype("float32")
    return LightningRun(Season(), in_order(*columns, size=32), {"max_epochs": 1})


# -- labels ----------------------------------------------------------------------------------------------------------


class Churn(LightningModule):
    """Who leaves? Logistic regression with one hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        customer, leaves = batch
        return F.binary_cross_entropy_with_logits(self.net(customer), leaves)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


@enter(
    finite(Happens.SPIKE, ("DATA505", "DATA508", "DATA504"), rows=None),
    "https://github.com/huanglianghua/siamfc-pytorch/issues/37",
    "https://github.com/bermanmaxim/LovaszSoftmax/issues/10",
    "https://github.com/zzh8829/yolov3-tf2/issues/91",
)
def labels_of_a_support_vector_machine() -> LightningRun:
    """The second file has -1 and 1 where the first has 0 and 1: the cross entropy falls far below zero."""
    x, leaves = two_blobs(32 * 50)
    leaves[32 * 32 :] = 2 * leaves[32 * 32 :] - 1
    return LightningRun(Churn(), in_order(x, leaves, size=32), {"max_epochs": 1})
