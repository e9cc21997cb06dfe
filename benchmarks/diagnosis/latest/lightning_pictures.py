"""Pictures as beginners feed them: raw pixels, masks without an object, classes counted from one, boxes that miss."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, non_finite, runaway
from benchmarks.diagnosis.tables import digits


def ordered(*columns: np.ndarray, size: int = 32) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*[torch.from_numpy(column) for column in columns]), batch_size=size)


class Classifier(LightningModule):
    """A network and an optimizer, as the first tutorial has it."""

    def __init__(self, net: nn.Module, rate: float, momentum: float = 0.0) -> None:
        super().__init__()
        self.net, self.rate, self.momentum = net, rate, momentum
        self.criterion = nn.CrossEntropyLoss()

    def forward(self, picture: Tensor) -> Tensor:
        return self.net(picture)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        picture, kind = batch
        return self.criterion(self(picture), kind)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.rate, momentum=self.momentum)


def small_cnn(classes: int = 10) -> nn.Sequential:
    body = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, classes))


# -- DATA502 ---------------------------------------------------------------------------------------------------------


@enter(
    runaway(("DATA502", "OPT601")),
    "https://github.com/kenshohara/video-classification-3d-cnn-pytorch/issues/54",
    "https://github.com/thtrieu/darkflow/issues/1059",
    "https://github.com/irolaina/FCRN-DepthPrediction/issues/47",
)
def pixels_as_the_camera_has_them() -> LightningRun:
    """A convolutional classifier gets pixels from 0 to 255, with the usual rate of SGD and momentum."""
    images, labels = digits(1280)
    raw = np.round(255 * images).reshape(-1, 1, 8, 8).astype("float32")
    return LightningRun(Classifier(small_cnn(), 0.1, 0.9), ordered(raw, labels), {"max_epochs": 1})


# -- ACT303 ----------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, ("ACT303", "OPT601"), rows=None),
    "https://github.com/keras-team/keras/issues/7057",
    "https://github.com/dangitstam/topic-rnn/pull/9",
    "https://github.com/keras-team/keras/issues/3425",
)
def silent_after_ten_steps() -> LightningRun:
    """Rate 1 with momentum: the first steps throw all rectifiers below zero, and the loss stays at log 10."""
    images, labels = digits(1280)
    net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10))
    return LightningRun(Classifier(net, 1.0, 0.9), ordered(images, labels), {"max_epochs": 2})


# -- DATA505 ---------------------------------------------------------------------------------------------------------


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("DATA505",),
        kind="exception",
        operations=("IndexError",),
        modules=("criterion",),
        line="return self.criterion(self(picture), kind)",
        rows=(13,),
    ),
    "https://github.com/EricFillion/happy-transformer/issues/248",
    "https://github.com/tensorflow/models/issues/15",
    "https://github.com/open-mmlab/mmsegmentation/issues/3609",
)
def land_use_counted_from_one() -> LightningRun:
    """Kinds of land are numbered 1 to 6, the network has six outputs; the rare kind 6 comes in batch 18."""
    rng = np.random.default_rng(1001)
    kind = rng.integers(1, 6, 32 * 40)
    kind[18 * 32 + 13] = 6
    kind[31 * 32 + 2] = 6
    tile = rng.normal(size=(len(kind), 1, 8, 8)) * 0.3 + (kind / 6)[:, None, None, None]
    return LightningRun(Classifier(small_cnn(6), 0.05), ordered(tile.astype("float32"), kind), {"max_epochs": 1})


# -- NAN112 ----------------------------------------------------------------------------------------------------------


class GeneralisedDice(nn.Module):
    """Dice over classes; each counts by the inverse square of its volume in the picture."""

    def forward(self, scores: Tensor, truth: Tensor) -> Tensor:
        share = scores.softmax(1).flatten(2)
        wanted = F.one_hot(truth, scores.shape[1]).movedim(-1, 1).flatten(2).float()
        volume = wanted.sum(-1)
        weight = 1 / volume**2
        both = (weight * (share * wanted).sum(-1)).sum(1)
        all_of_it = (weight * (share + wanted).sum(-1)).sum(1)
        return (1 - 2 * both / all_of_it).mean()


class Segmenter(LightningModule):
    """Labels each pixel as background, organ or tumour."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.GELU(), nn.Conv2d(12, 3, 3, padding=1))
        self.dice = GeneralisedDice()

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        scan, mask = batch
        scores = self.net(scan)
        return {"loss": self.dice(scores, mask) + 0.5 * F.cross_entropy(scores, mask)}

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=5e-3)


@enter(
    non_finite("NAN112", ("divide", "reciprocal"), "weight = 1 / volume**2", modules=("dice",), rows=(5, 11)),
    "https://github.com/nasa/delta/pull/115",
    "https://github.com/open-mmlab/mmocr/pull/408",
    "https://github.com/xinyi-code/NLP-Loss-Pytorch/issues/5",
)
def slices_without_a_tumour() -> LightningRun:
    """A generalised Dice loss weighs classes by 1 / volume²; two slices show no tumour at all."""
    rng = np.random.default_rng(1002)
    mask = np.zeros((16 * 45, 12, 12), "int64")
    for picture in mask:
        row, column = rng.integers(1, 5, 2)
        picture[row : row + 6, column : column + 6] = 1
        picture[row + 2 : row + 4, column + 2 : column + 4] = 2
    for number in (26 * 16 + 5, 26 * 16 + 11):
        mask[number][mask[number] == 2] = 1
    scan = (0.8 * mask + 0.3 * rng.normal(size=mask.shape))[:, None].astype("float32")
    return LightningRun(Segmenter(), ordered(scan, mask, size=16), {"max_epochs": 1})


class Frames(Dataset[dict[str, Tensor]]):
    """Frames of a microscope, and how many cells are in each."""

    def __init__(self, frames: np.ndarray, cells: np.ndarray) -> None:
        self.frames, self.cells = frames, cells

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"frame": torch.from_numpy(self.frames[index]), "cells": torch.tensor(float(self.cells[index]))}


class CellCounter(LightningModule):
    """Scales every frame to its own brightest pixel once the batch has arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 10, 3), nn.ReLU(), nn.Flatten(), nn.Linear(360, 1))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        frame = batch["frame"]
        return {**batch, "frame": frame / frame.amax((1, 2), keepdim=True)}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.l1_loss(self.conv(batch["frame"].unsqueeze(1)).squeeze(1), batch["cells"])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("NAN112", "DATA501"), rows=(3, 20)),
    "https://github.com/albumentations-team/albumentations/issues/1742",
    "https://github.com/JacobHanimann/scDINO/issues/5",
    "https://github.com/astropy/imageutils/pull/38",
)
def frames_with_the_lamp_off() -> LightningRun:
    """on_after_batch_transfer divides each frame by its maximum; in two of them the lamp was off, 0 / 0."""
    rng = np.random.default_rng(1003)
    cells = rng.integers(1, 9, 24 * 50)
    frames = np.zeros((len(cells), 8, 8), "float32")
    for frame, count in zip(frames, cells, strict=True):
        frame.flat[rng.choice(64, count, replace=False)] = rng.uniform(50, 200, count)
    frames[33 * 24 + 3] = frames[33 * 24 + 20] = 0
    return LightningRun(CellCounter(), DataLoader(Frames(frames, cells), batch_size=24), {"max_epochs": 1})


# -- NAN111 ----------------------------------------------------------------------------------------------------------


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes given by two corners."""
    low, high = torch.maximum(one[:, :2], other[:, :2]), torch.minimum(one[:, 2:], other[:, 2:])
    common = (high - low).clamp(min=0).prod(1)
    areas = [(box[:, 2:] - box[:, :2]).prod(1) for box in (one, other)]
    return common / (areas[0] + areas[1] - common)


class BoxHead(LightningModule):
    """Middle and size of one box per picture, trained by the logarithm of the overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 32), nn.SiLU(), nn.Linear(32, 4))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features, wanted = batch
        middle, size = self.body(features).chunk(2, dim=1)
        half = 0.15 + 0.3 * torch.sigmoid(size)
        middle = 0.5 + 0.2 * torch.tanh(middle)
        box = torch.cat([middle - half, middle + half], 1)
        return -torch.log(overlap(box, wanted)).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite("NAN111", "log", "return -torch.log(overlap(box, wanted)).mean()", modules=("",), rows=(8,)),
    "https://github.com/zhimingluo/UnitBox_TF/issues/6",
    "https://github.com/open-mmlab/mmdetection/pull/3394",
    "https://github.com/generalized-iou/g-tensorflow-models/issues/3",
)
def box_that_is_missed_altogether() -> LightningRun:
    """The loss is -log(IoU) without an epsilon; one small box in a corner does not overlap with the predicted one."""
    rng = np.random.default_rng(1004)
    middle, half = rng.uniform(0.42, 0.58, (24 * 50, 2)), rng.uniform(0.2, 0.35, (24 * 50, 2))
    middle[36 * 24 + 8], half[36 * 24 + 8] = (0.97, 0.03), (0.02, 0.02)
    boxes = np.concatenate([middle - half, middle + half], 1)
    seen = boxes @ rng.normal(size=(4, 12)) + 0.05 * rng.normal(size=(len(boxes), 12))
    seen[36 * 24 + 8] = seen[36 * 24 + 7]
    return LightningRun(BoxHead(), ordered(seen.astype("float32"), boxes.astype("float32"), size=24), {"max_epochs": 1})
