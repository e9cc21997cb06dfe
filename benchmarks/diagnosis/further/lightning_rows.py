"""Samples and labels: swapped, shifted, out of range, of another kind, in other units, all alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, Truth, bad_batch, enter, finite
from benchmarks.diagnosis.tables import digits


class _Adam(LightningModule):
    """Adam at a rate of each model's own."""

    rate = 3e-3

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.rate)


def _run(module: LightningModule, *columns: np.ndarray, size: int, epochs: int = 1) -> LightningRun:
    narrow = [column.astype("float32") if column.dtype == np.float64 else column for column in columns]
    return LightningRun(module, in_order(*narrow, size=size), {"max_epochs": epochs})


# -- wrong targets ---------------------------------------------------------------------------------------------------


class Place(_Adam):
    """Where was a picture taken? Latitude and longitude around Munich, from features of the picture."""

    rate = 1e-2

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        picture, degrees = batch
        centre = torch.tensor([48.1, 11.6])
        return F.mse_loss(self.net(picture), (degrees - centre) / 2)


@enter(
    finite(Happens.SPIKE, ("DATA504", "DATA512")),
    "https://github.com/k2-fsa/icefall/issues/1676",
    "https://github.com/jingyaogong/minimind/pull/503",
)
def file_with_longitude_before_latitude() -> LightningRun:
    """One of the files has its two columns of coordinates the other way round: a whole batch lies in Arabia."""
    rng = np.random.default_rng(7401)
    picture = rng.normal(size=(20 * 60, 8))
    degrees = np.array([48.1, 11.6]) + picture[:, :2] + 0.1 * rng.normal(size=(len(picture), 2))
    degrees[43 * 20 : 44 * 20] = degrees[43 * 20 : 44 * 20, ::-1]
    return _run(Place(), picture, degrees, size=20)


class Prices(_Adam):
    """Price of tomorrow after two weeks, by a recurrent network."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(1, 12, batch_first=True), nn.Linear(12, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        past, tomorrow = batch
        return F.mse_loss(self.head(self.gru(past[..., None])[0][:, -1]).squeeze(1), tomorrow)


@enter(
    finite(Happens.SPIKE, ("DATA504",), rows=(11,)),
    "https://github.com/rstudio-conf-2020/dl-keras-tf/issues/9",
)
def price_that_lost_its_decimal_point() -> LightningRun:
    """One of the targets was read with a decimal comma and is a hundred times too large."""
    rng = np.random.default_rng(7402)
    series = np.sin(rng.uniform(0, 6, (24 * 48, 1)) + 0.4 * np.arange(15)) + 0.1 * rng.normal(size=(24 * 48, 15))
    tomorrow = 2 + series[:, 14]
    tomorrow[37 * 24 + 11] *= 100
    return _run(Prices(), series[:, :14], tomorrow, size=24)


class Digits(_Adam):
    """Names digits."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        image, label = batch
        return F.cross_entropy(self.net(image), label)


@enter(
    finite(Happens.STALL, ("DATA504",)),
    "https://datarekha.com/interview/deep-learning/debugging-model-not-learning/",
    "https://discuss.pytorch.org/t/cross-entropy-loss-is-not-decreasing/43814/16",
)
def labels_read_with_a_header_too_many() -> LightningRun:
    """The first row of labels was taken for a header: every picture has the label of the one after it."""
    images, labels = digits(1473)
    return _run(Digits(), images[:-1], labels[1:], size=32)


@enter(
    finite(Happens.SPIKE, ("DATA510",)),
    "https://github.com/BVLC/caffe/issues/1445",
    "https://github.com/microsoft/CNTK/issues/3792",
)
def folders_one_after_the_other() -> LightningRun:
    """Pictures are read folder by folder and not shuffled: 27 batches of zeros only, and then the first ones."""
    images, labels = digits(1797)
    zeros, ones = np.flatnonzero(labels == 0)[:162], np.flatnonzero(labels == 1)[:162]
    order = np.concatenate([zeros, ones])
    return _run(Digits(), images[order], labels[order], size=6)


class Season(_Adam):
    """Month in which a leaf was found."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 12))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        leaf, month = batch
        wanted = F.one_hot(month, 12).float()
        return F.binary_cross_entropy_with_logits(self.net(leaf), wanted)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("DATA505",),
        kind="exception",
        operations=("RuntimeError",),
        modules=("",),
        line="wanted = F.one_hot(month, 12).float()",
        rows=(9, 14),
    ),
    "https://github.com/Megvii-BaseDetection/YOLOX/issues/357",
    "https://github.com/milesial/Pytorch-UNet/issues/322",
)
def month_number_twelve() -> LightningRun:
    """Months are counted from 1, one_hot from 0: nobody notices until the first two leaves of December."""
    rng = np.random.default_rng(7405)
    month = rng.integers(1, 12, 16 * 45)
    leaf = rng.normal(size=(len(month), 6))
    leaf[:, 0] += 2 * np.sin(month / 2)
    leaf[:, 1] += 2 * np.cos(month / 2)
    month[[32 * 16 + 9, 32 * 16 + 14]] = 12
    return _run(Season(), leaf, month, size=16)


class Painter(_Adam):
    """Rebuilds small pictures from a code of sixteen numbers; the last layer is a sigmoid."""

    def __init__(self, brightest: float = 1.0) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 64), nn.Sigmoid())
        self.brightest = brightest

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        picture, _ = batch
        return F.mse_loss(self.net(picture), picture * self.brightest)


@enter(
    finite(Happens.STALL, ("DATA505", "DATA509")),
    "https://github.com/milesial/Pytorch-UNet/issues/322",
    "https://pytorch.org/docs/stable/generated/torch.nn.Sigmoid.html",
)
def pictures_rebuilt_up_to_one_of_255() -> LightningRun:
    """Inputs are divided by 255, but the targets were forgotten; a sigmoid can't get any further than 1."""
    return _run(Painter(brightest=255.0), *digits(1440), size=24)


class Returns(_Adam):
    """Value of the actions of a small game; the value of the chosen action should be its return."""

    rate = 1e-2

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        state, action, total = batch
        value = self.net(state).gather(1, action[:, None])
        return F.mse_loss(value, total)


def _games(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    state, action = rng.normal(size=(32 * 45, 6)), rng.integers(0, 3, 32 * 45)
    return state, action, np.tanh(2 * state[np.arange(len(state)), action])


@enter(
    finite(Happens.STALL, ("DATA508",)),
    "https://pytorch.org/docs/stable/generated/torch.nn.MSELoss.html",
    "https://pytorch.org/docs/stable/notes/broadcasting.html",
)
def returns_beside_a_column_of_values() -> LightningRun:
    """`gather` gives a column, the returns are a vector: every value is compared with every return of the batch."""
    return _run(Returns(), *_games(7407), size=32)


# -- unusual inputs --------------------------------------------------------------------------------------------------


class Greenhouse(_Adam):
    """Growth of tomatoes from a day of temperatures, in steps of 5 degrees around 20."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(1, 8, 5), nn.ReLU(), nn.Flatten(), nn.Linear(160, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        celsius, growth = batch
        return F.mse_loss(self.net((celsius[:, None] - 20) / 5).squeeze(1), growth)


@enter(
    finite(Happens.SPIKE, ("DATA503",), rows=(5,)),
    "https://github.com/PaulStoffregen/OneWire/issues/76",
    "https://github.com/ESPresense/ESPresense/pull/1172",
)
def thermometer_that_sends_minus_127() -> LightningRun:
    """A cheap thermometer reports -127 degrees if it can't be read: so it did during a whole day."""
    rng = np.random.default_rng(7408)
    celsius = 20 + 4 * np.sin(np.arange(24) / 4) + 3 * rng.normal(size=(20 * 50, 1)) + rng.normal(size=(20 * 50, 24))
    growth = (celsius.mean(1) - 20) / 3 + 0.1 * rng.normal(size=len(celsius))
    celsius[39 * 20 + 5] = -127
    return _run(Greenhouse(), celsius, growth, size=20)


class Windows(Dataset[Any]):
    """Thirty hours of a long record, and the hour that follows."""

    def __init__(self, record: np.ndarray) -> None:
        self.record = torch.from_numpy(record.astype("float32"))

    def __len__(self) -> int:
        return len(self.record) - 30

    def __getitem__(self, start: int) -> Any:
        return self.record[:30], self.record[start + 30]


class Tide(_Adam):
    """Level of the sea in the next hour."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(30, 32), nn.Tanh(), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        past, following = batch
        return F.mse_loss(self.net(past).squeeze(1), following)


@enter(
    finite(Happens.STALL, ("DATA506",)),
    "https://github.com/cmf-team/importance-sampling-2022/issues/53",
    "https://github.com/sktime/pytorch-forecasting/issues/2367",
)
def window_that_never_moves() -> LightningRun:
    """The data set cuts its window always from the beginning of the record: all inputs are the same thirty hours."""
    rng = np.random.default_rng(7409)
    hours = np.arange(1230)
    record = np.sin(hours * 2 * np.pi / 12.4) + 0.3 * np.sin(hours * 2 * np.pi / 24) + 0.1 * rng.normal(size=1230)
    return LightningRun(Tide(), DataLoader(Windows(record), batch_size=24), {"max_epochs": 1})


class Lift(_Adam):
    """Waiting time for a lift, with a table of floors."""

    def __init__(self) -> None:
        super().__init__()
        self.floor = nn.Embedding(12, 4)
        self.head = nn.Sequential(nn.Linear(7, 16), nn.ReLU(), nn.Linear(16, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        floor, hour, wait = batch
        return F.l1_loss(self.head(torch.cat([self.floor(floor), hour], 1)).squeeze(1), wait)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("DATA511",),
        kind="exception",
        operations=("IndexError",),
        modules=("floor",),
        line="self.head(torch.cat([self.floor(floor), hour], 1))",
        rows=(7,),
    ),
    "https://github.com/pytorch/pytorch/issues/14844",
    "https://github.com/sedflix/DeepCoherence/issues/1",
)
def call_from_the_basement() -> LightningRun:
    """Floors are looked up in a table that begins at 0; once somebody calls from the basement, which is number -1."""
    rng = np.random.default_rng(7410)
    floor, hour = rng.integers(0, 12, 16 * 45), rng.normal(size=(16 * 45, 3))
    wait = 0.3 * floor + hour[:, 0]
    floor[34 * 16 + 7] = -1
    return _run(Lift(), floor, hour, wait, size=16)


class Blood(_Adam):
    """Five values of the laboratory from a spectrum of the skin."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 32), nn.GELU(), nn.Linear(32, 5))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        spectrum, values = batch
        return F.huber_loss(self.net(spectrum), values)


@enter(
    bad_batch(None, rows=(0, 18)),
    "https://scikit-learn.org/stable/modules/impute.html",
)
def values_that_the_laboratory_lost() -> LightningRun:
    """Two tubes broke: one of the five targets is missing in two rows, and pandas writes NaN for it."""
    rng = np.random.default_rng(7411)
    spectrum = rng.normal(size=(20 * 50, 20))
    values = spectrum[:, :5] + 0.3 * rng.normal(size=(len(spectrum), 5))
    values[[41 * 20, 41 * 20 + 18], [3, 1]] = np.nan
    return _run(Blood(), spectrum, values, size=20)
