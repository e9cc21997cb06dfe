"""Data that are wrong, in Lightning: non-finite, unscaled, outliers, wrong labels, labels out of range."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.diagnosis.program import Happens, LightningRun, Truth, bad_batch, enter, finite, runaway
from benchmarks.diagnosis.tables import digits, regression, two_blobs


class Regressor(LightningModule):
    """A plain network for a table."""

    def __init__(self, features: int = 10, lr: float = 1e-2) -> None:
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.mse_loss(self(x), y)
        self.log("mse", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class Classifier(LightningModule):
    """A plain network for digits."""

    def __init__(self, lr: float = 3e-3) -> None:
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def table(x: np.ndarray, y: np.ndarray, batch_size: int = 32) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=batch_size)


# -- DATA501: non-finite data ----------------------------------------------------------------------------------------


@enter(
    bad_batch(None, (6,)),
    "https://theneuralbase.com/tensorflow/learn/beginner/nan-loss-learning-rate-or-data/",
    "https://mcmap.net/q/406467/-multivariate-lstm-with-missing-values",
)
def missing_value_in_a_table() -> LightningRun:
    """One cell of a table was empty, and is NaN."""
    x, y = regression(1280)
    x[27 * 32 + 6, 3] = np.nan
    return LightningRun(Regressor(), table(x, y), {"max_epochs": 1})


@enter(
    bad_batch(None, (1, 30)),
    "https://grindskills.com/cost-function-turning-into-nan-after-a-certain-number-of-iterations/",
    "https://github.com/IVRL/VolRecon/issues/18",
)
def log_of_free_items() -> LightningRun:
    """Prices are logged while the table is loaded; two items were free."""
    x, y = regression(1280)
    price = np.exp(y)
    price[33 * 32 + 1] = price[33 * 32 + 30] = 0
    with np.errstate(divide="ignore"):
        target = np.log(price).astype("float32")
    return LightningRun(Regressor(), table(x, target), {"max_epochs": 1})


class Contrast(Dataset[dict[str, Tensor]]):
    """Digits, each stretched to its own full contrast."""

    def __init__(self, blank: int) -> None:
        images, labels = digits(1280)
        images[blank] = 0.4
        self.images, self.labels = torch.from_numpy(images), torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image = self.images[index]
        stretched = (image - image.min()) / (image.max() - image.min())
        return {"image": stretched, "label": self.labels[index]}


class FromDict(Classifier):
    """The same from batches that are dictionaries."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch["image"]), batch["label"])


@enter(
    bad_batch(None, (18,)),
    "https://github.com/IVRL/VolRecon/issues/18",
    "https://theneuralbase.com/tensorflow/learn/beginner/nan-loss-learning-rate-or-data/",
)
def blank_image_in_the_dataset() -> LightningRun:
    """The dataset stretches the contrast of each image; a blank one becomes 0 / 0 before the model sees it."""
    return LightningRun(FromDict(), DataLoader(Contrast(26 * 32 + 18), batch_size=32), {"max_epochs": 1})


# -- DATA502: unscaled data ------------------------------------------------------------------------------------------


class Linear(Regressor):
    """Linear regression by gradient descent."""

    def __init__(self, lr: float) -> None:
        super().__init__(lr=lr)
        self.net = nn.Sequential(nn.Linear(10, 1))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


@enter(
    runaway("DATA502"),
    "http://stackoverflow.com.mevn.net/questions/52800582/why-do-i-fail-to-predict-y-x4-with-keras-y-x3-works",
    "http://www.taourl.com/read-2589871.html",
)
def housing_as_it_came() -> LightningRun:
    """Rooms, years and square feet as they came, at a rate already cut many times because it crashed."""
    x, y = regression(1280)
    x = x * np.array([1, 2, 15, 900, 40, 1, 3, 0.5, 7, 1200]) + np.array([3, 4, 1970, 2500, 100, 2, 5, 1, 9, 5000])
    return LightningRun(Linear(lr=3e-7), table(x.astype("float32"), y), {"max_epochs": 1})


@enter(
    runaway("DATA509"),
    "http://stackoverflow.com.mevn.net/questions/52800582/why-do-i-fail-to-predict-y-x4-with-keras-y-x3-works",
    "https://github.com/timeseriesAI/tsai/issues/150",
)
def salaries_as_targets() -> LightningRun:
    """Targets are salaries in full: the errors, and with them the first gradients, are enormous."""
    x, y = regression(1280)
    return LightningRun(Regressor(lr=1e-2), table(x, (52_000 + 17_000 * y).astype("float32")), {"max_epochs": 1})


# -- DATA503: outliers -----------------------------------------------------------------------------------------------


@enter(
    finite(Happens.SPIKE, ("DATA504", "DATA503"), rows=(8,)),
    "https://github.com/stanford-crfm/mistral/issues/115",
    "https://github.com/stas00/ml-engineering/issues/32",
)
def typing_error_in_a_target() -> LightningRun:
    """One target has lost its decimal point."""
    x, y = regression(1280)
    y[31 * 32 + 8] = 1250.0
    return LightningRun(Regressor(), table(x, y), {"max_epochs": 1})


@enter(
    finite(Happens.SPIKE, "DATA503", rows=(3, 15, 22)),
    "https://github.com/Lightning-AI/pytorch-lightning/pull/18014",
    "https://github.com/stanford-crfm/mistral/issues/115",
)
def sensor_glitches() -> LightningRun:
    """A sensor gives its largest number for three readings in a row."""
    x, y = regression(1280)
    for row in (3, 15, 22):
        x[28 * 32 + row, 4] = 32767.0
    return LightningRun(Regressor(), table(x, y), {"max_epochs": 1})


# -- DATA504: wrong labels -------------------------------------------------------------------------------------------


@enter(
    finite(Happens.SPIKE, "DATA504", rows=None),
    "https://github.com/microsoft/CNTK/issues/3792",
    "https://github.com/BVLC/caffe/issues/1445",
)
def shard_with_shifted_labels() -> LightningRun:
    """In one file of the training set the labels have slipped by one row."""
    x, y = digits(1280)
    x, y = np.tile(x, (12, 1)), np.tile(y, 12)
    bad = slice(220 * 64, 221 * 64)
    y[bad] = np.roll(y[bad], 1)
    return LightningRun(Classifier(lr=3e-3), table(x, y, batch_size=64), {"max_epochs": 1})


class Ham(LightningModule):
    """Wanted mail or not."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.linear(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


FLIPPED = (0, 10, 11, 29, 30, 41, 52, 60)


@enter(
    finite(Happens.SPIKE, "DATA504", rows=FLIPPED),
    "https://github.com/SebChw/Actually-Robust-Training/issues/31",
    "https://github.com/microsoft/CNTK/issues/3792",
)
def eight_flipped_labels() -> LightningRun:
    """A sure classifier meets eight labels that are plainly wrong."""
    x, y = two_blobs(12800, gap=2.0)
    for row in FLIPPED:
        y[190 * 64 + row] = 1 - y[190 * 64 + row]
    return LightningRun(Ham(), table(x, y, batch_size=64), {"max_epochs": 1})


# -- DATA505: label out of range -------------------------------------------------------------------------------------


class Letters(LightningModule):
    """Nine classes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 9))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, classes = batch
        logits = self.net(images)
        return F.cross_entropy(logits, classes)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("DATA505",),
        kind="exception",
        operations=("IndexError",),
        modules=("",),
        line="F.cross_entropy(logits, classes)",
        rows=(21,),
    ),
    "https://github.com/zzh8829/yolov3-tf2/issues/259",
    "https://github.com/tensorflow/tensorflow/issues/8484",
)
def one_class_too_many() -> LightningRun:
    """Nine outputs, and one label 9 that the filter of the data set missed."""
    x, y = digits(1280)
    nine = y == 9
    y[nine] = 0
    y[25 * 32 + 21] = 9
    return LightningRun(Letters(), table(x, y), {"max_epochs": 1})


@enter(
    finite(Happens.SPIKE, "DATA505", rows=None),
    "https://github.com/tensorflow/tensorflow/issues/3739",
    "https://github.com/keras-team/keras/issues/11786",
)
def mask_values_up_to_255() -> LightningRun:
    """One batch of binary targets comes from a picture: 0 and 255 where 0 and 1 are meant."""
    x, y = two_blobs(1280, gap=2.0)
    y[30 * 32 : 31 * 32] *= 255
    return LightningRun(Ham(), table(x, y), {"max_epochs": 1})
