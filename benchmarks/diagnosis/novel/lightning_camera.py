"""Pictures with augmentations and mixed losses, in Lightning: erased boxes, capsules, detection heads, denoisers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, bad_batch, enter, finite, non_finite
from benchmarks.diagnosis.tables import digits


class RandomErasing(LightningModule):
    """Classifies digits of which a box was erased, and paints the box again."""

    def __init__(self, areas: np.ndarray) -> None:
        super().__init__()
        self.areas = areas
        self.trunk = nn.Sequential(nn.Linear(64, 96), nn.ReLU())
        self.classes, self.painter = nn.Linear(96, 10), nn.Linear(96, 64)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch
        side = int(8 * np.sqrt(self.areas[batch_idx]))
        erased = images.view(-1, 8, 8).clone()
        erased[:, :side, :side] = 0
        features = self.trunk(erased.flatten(1))
        painted = self.painter(features).view(-1, 8, 8)
        inpainting = (painted - images.view(-1, 8, 8))[:, :side, :side].square().mean()
        return F.cross_entropy(self.classes(features), labels) + 0.5 * inpainting

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN112", "mean", "[:, :side, :side].square().mean()", modules=("",), rows=()),
    "https://github.com/datature/discolight/pull/23",
    "https://github.com/cytomining/DeepProfiler/issues/298",
)
def erased_box_without_an_area() -> LightningRun:
    """The share to be erased is drawn at random; once the box has a side of 0 pixels: the mean over nothing."""
    images, labels = digits(1280)
    areas = np.random.default_rng(4).beta(2.0, 5.0, 40).clip(0.03, 0.6)
    areas[31] = 0.011
    return LightningRun(RandomErasing(areas), in_order(images, labels, size=32), {"max_epochs": 1})


class Squash(nn.Module):
    """Lengths below 1, directions as they are."""

    def forward(self, s: Tensor) -> Tensor:
        squared = s.square().sum(-1, keepdim=True)
        return (squared * s) / ((1 + squared) * torch.sqrt(squared))


class Capsules(LightningModule):
    """Ten capsules of eight numbers; the longest one is the class."""

    def __init__(self) -> None:
        super().__init__()
        self.primary = nn.Sequential(nn.Conv2d(1, 16, 3, bias=False), nn.ReLU(), nn.Flatten())
        self.digits = nn.Linear(16 * 36, 80, bias=False)
        self.squash = Squash()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        plates, labels = batch
        capsules = self.squash(self.digits(self.primary(plates.view(-1, 1, 8, 8))).view(-1, 10, 8))
        lengths = capsules.square().sum(-1)
        present = F.one_hot(labels, 10).float()
        margin = present * F.relu(0.9 - lengths) ** 2 + 0.5 * (1 - present) * F.relu(lengths - 0.1) ** 2
        return margin.sum(-1).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN112", "divide", "return (squared * s) / ((1 + squared)", modules=("squash",), rows=(18,)),
    "https://github.com/jindongwang/Pytorch-CapsuleNet/issues/7",
    "https://github.com/ageron/handson-ml/issues/173",
)
def capsules_of_an_unprinted_plate() -> LightningRun:
    """Nothing is printed on one number plate: without biases its capsules have no length, and squash is 0 / 0."""
    plates, labels = digits(1280)
    plates[33 * 32 + 18] = 0
    return LightningRun(Capsules(), in_order(plates, labels, size=32), {"max_epochs": 1})


class Small(LightningModule):
    """A small convolutional net."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10)
        )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.net(images.view(-1, 1, 8, 8)), labels)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    finite(Happens.STALL, "DATA504", rows=None),
    "https://github.com/xudonmao/VMT/issues/1",
    "https://github.com/amoodie/StratGAN/issues/3",
)
def images_tiled_and_labels_repeated() -> LightningRun:
    """Mirrored copies stand behind all the images, the copies of the labels beside their labels: nothing fits."""
    images, labels = digits(640)
    mirrored = images.reshape(-1, 8, 8)[:, :, ::-1].reshape(-1, 64)
    twice, labels = np.concatenate([images, mirrored]), np.repeat(labels, 2)
    order = np.random.default_rng(0).permutation(1280)
    return LightningRun(Small(), in_order(twice[order], labels[order], size=32), {"max_epochs": 2})


class Boxes(LightningModule):
    """Finds the one box of each picture: its corners, and a score that it is large."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(144, 512), nn.ReLU(), nn.Linear(512, 64), nn.ReLU())
        self.corners, self.large = nn.Linear(64, 4), nn.Linear(64, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pictures, boxes, large = batch
        features = self.trunk(pictures)
        where = F.mse_loss(self.corners(features), boxes)
        return where + 0.0005 * F.binary_cross_entropy_with_logits(self.large(features), large)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    finite(Happens.SPIKE, "DATA504", rows=(0, 1, 2, 4, 6, 7, 8, 9, 11)),
    "https://github.com/open-mmlab/mmdetection/issues/3901",
    "https://github.com/stevebottos/owl-vit-object-detection/issues/14",
)
def boxes_of_another_annotation_tool() -> LightningRun:
    """Most pictures of one batch were annotated with centre, width and height, where corners are read."""
    rng = np.random.default_rng(7)
    low = rng.integers(0, 7, (1440, 2))
    high = low + rng.integers(3, 6, (1440, 2))
    pictures = np.zeros((1440, 12, 12), "float32")
    for picture, (left, top), (right, bottom) in zip(pictures, low, high, strict=True):
        picture[top:bottom, left:right] = 1
    boxes = (np.concatenate([low, high], 1) / 12).astype("float32")
    large = ((high - low).prod(1, keepdims=True) > 14).astype("float32")
    for row in (0, 1, 2, 4, 6, 7, 8, 9, 11):
        left, top, right, bottom = boxes[104 * 12 + row]
        boxes[104 * 12 + row] = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    return LightningRun(Boxes(), in_order(pictures.reshape(-1, 144), boxes, large, size=12), {"max_epochs": 1})


class Denoiser(LightningModule):
    """Takes the noise from pictures; from the third epoch on edges count as well."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        noisy, clean = batch
        painted = self.net(noisy)
        loss = F.mse_loss(painted, clean)
        if self.current_epoch >= 2:
            across = painted.view(-1, 8, 8).diff(dim=2) - clean.view(-1, 8, 8).diff(dim=2)
            loss = loss + 40.0 * across.abs().mean()
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    finite(Happens.SPIKE, "LOSS405"),
    "https://github.com/FlorentF9/DeepTemporalClustering/issues/25",
    "https://github.com/danier97/ST-MFNet/issues/14",
)
def edges_count_from_the_third_epoch() -> LightningRun:
    """A second loss joins after two epochs with a weight of 40, and the sum is two magnitudes larger at once."""
    clean, _ = digits(640)
    noise = 0.2 * np.random.default_rng(2).normal(size=clean.shape)
    noisy = (clean + noise).astype("float32")
    return LightningRun(Denoiser(), in_order(noisy, clean, size=32), {"max_epochs": 4})


class Stretched(Dataset[tuple[np.ndarray, np.ndarray]]):
    """Each picture from its darkest to its brightest pixel."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image = self.images[index]
        with np.errstate(invalid="ignore"):
            stretched = (image - image.min()) / (image.max() - image.min())
        return stretched, self.labels[index]


@enter(
    bad_batch(None, (6, 25)),
    "https://github.com/albumentations-team/albumentations/issues/1742",
    "https://github.com/invesalius/invesalius3/pull/1152",
)
def contrast_stretched_where_there_is_none() -> LightningRun:
    """Contrast is stretched picture by picture; two pictures show fog and nothing else: 0 / 0 in the data set."""
    images, labels = digits(1280)
    images[29 * 32 + 6], images[29 * 32 + 25] = 0.5, 0.75
    return LightningRun(Small(), DataLoader(Stretched(images, labels), batch_size=32), {"max_epochs": 1})


class Residual(LightningModule):
    """Convolutions with norms, whose start somebody wrote by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(1024, 10),
        )
        for layer in self.net:
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.constant_(layer.weight, 0.1)
                nn.init.constant_(layer.bias, -1.0)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.net(images.view(-1, 1, 8, 8)), labels)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


@enter(
    finite(Happens.STALL, ("ACT303", "ACT304")),
    "https://github.com/facebookresearch/dlrm/pull/358",
    "https://discuss.pytorch.org/t/cross-entropy-loss-is-not-decreasing/43814/16",
)
def norms_that_begin_below_zero() -> LightningRun:
    """The norms begin with a scale of 0.1 and a shift of -1, in front of rectifiers: no pixel ever passes."""
    images, labels = digits(1280)
    return LightningRun(Residual(), in_order(images, labels, size=32), {"max_epochs": 2})
