"""Pictures as inputs and outputs: a U-Net on patches, a detector of one box, and a denoiser."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import LightningRun, enter, non_finite
from benchmarks.diagnosis.tables import digits


def squares(rows: int, side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy patches of shape (rows, 1, side, side) with one bright rectangle each, and the mask of it."""
    rng = np.random.default_rng(seed)
    corner, extent = rng.integers(0, side // 2, (rows, 2)), rng.integers(3, side // 2, (rows, 2))
    place = np.arange(side)
    inside = [(place >= corner[:, i : i + 1]) & (place < corner[:, i : i + 1] + extent[:, i : i + 1]) for i in range(2)]
    mask = (inside[0][:, :, None] & inside[1][:, None, :]).astype("float32")[:, None]
    scan = 0.2 + 0.6 * mask + 0.1 * rng.normal(size=mask.shape)
    return scan.astype("float32"), mask


# -- segmentation ----------------------------------------------------------------------------------------------------


class InstanceNorm(nn.Module):
    """Each channel of each picture on its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean((2, 3), keepdim=True)
        spread = centred.square().mean((2, 3), keepdim=True).sqrt()
        return self.gain * (centred / spread) + self.shift


class Block(nn.Sequential):
    """A convolution, normalised and rectified."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(
            nn.Conv2d(inside, outside, 3, padding=1, padding_mode="replicate"), InstanceNorm(outside), nn.ReLU()
        )


class UNet(LightningModule):
    """Two levels, one skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.bottom, self.up = Block(1, 8), Block(8, 16), Block(24, 8)
        self.head = nn.Conv2d(8, 1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        scan, mask = batch
        fine = self.down(scan)
        coarse = self.bottom(F.max_pool2d(fine, 2))
        merged = torch.cat([fine, F.interpolate(coarse, scale_factor=2)], 1)
        logits = self.head(self.up(merged))
        overlap = 2 * (logits.sigmoid() * mask).sum() / (logits.sigmoid().sum() + mask.sum() + 1)
        return F.binary_cross_entropy_with_logits(logits, mask) + 1 - overlap

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite("NAN112", "divide", "return self.gain * (centred / spread)", modules=("down.1",), rows=(6,)),
    "https://github.com/facebookresearch/fastMRI/issues/139",
    "https://github.com/FlyingGiraffe/vnn/pull/4",
)
def unet_on_an_empty_patch() -> LightningRun:
    """Instance normalisation by hand has no epsilon; one patch was cut from outside of the body and is all zero."""
    scan, mask = squares(12 * 40, 16, 1501)
    scan[25 * 12 + 6], mask[25 * 12 + 6] = 0, 0
    return LightningRun(UNet(), in_order(scan, mask, size=12), {"max_epochs": 1})


# -- boxes -----------------------------------------------------------------------------------------------------------


def complete_iou(guess: Tensor, truth: Tensor) -> Tensor:
    """Overlap of boxes (x, y, width, height), less a penalty for distance and one for the shape."""
    low = torch.maximum(guess[:, :2] - guess[:, 2:] / 2, truth[:, :2] - truth[:, 2:] / 2)
    high = torch.minimum(guess[:, :2] + guess[:, 2:] / 2, truth[:, :2] + truth[:, 2:] / 2)
    common = (high - low).clamp(min=0).prod(1)
    iou = common / (guess[:, 2:].prod(1) + truth[:, 2:].prod(1) - common + 1e-7)
    apart = (guess[:, :2] - truth[:, :2]).square().sum(1)
    slant = torch.atan(truth[:, 2] / truth[:, 3]) - torch.atan(guess[:, 2] / guess[:, 3])
    shape = 4 / math.pi**2 * slant.square()
    trade = (shape / (1 - iou + shape + 1e-7)).detach()
    return iou - apart - trade * shape


class BoxHead(LightningModule):
    """One box for each picture."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten()
        )
        self.box = nn.Linear(144, 4)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        scan, boxes = batch
        guess = self.box(self.body(scan)).sigmoid()
        return (1 - complete_iou(guess, boxes)).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    non_finite("NAN112", "divide", "slant = torch.atan(truth[:, 2] / truth[:, 3])", modules=("",), rows=(3, 14)),
    "https://github.com/pythonlessons/TensorFlow-2.x-YOLOv3/issues/144",
    "https://github.com/tensorflow/addons/pull/914",
    "https://github.com/Zzh-tju/DIoU-pytorch-detectron/issues/19",
)
def ciou_of_a_padding_box() -> LightningRun:
    """The shape penalty divides width by height; two pictures without any object carry a padding box of zeros."""
    scan, mask = squares(20 * 45, 16, 1502)
    across, down = mask[:, 0].max(1), mask[:, 0].max(2)
    size = np.stack([across.sum(1), down.sum(1)], 1)
    start = np.stack([across.argmax(1), down.argmax(1)], 1)
    boxes = np.concatenate([start + size / 2, size], 1).astype("float32") / 16
    for row in (28 * 20 + 3, 28 * 20 + 14):
        scan[row], boxes[row] = scan[row] - 0.6 * mask[row], 0
    return LightningRun(BoxHead(), in_order(scan, boxes, size=20), {"max_epochs": 1})


# -- restoration -----------------------------------------------------------------------------------------------------


class Denoiser(LightningModule):
    """Convolutions without biases, so that it generalises to every level of noise."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(16, 1, 3, padding=1, bias=False),
        )

    def peak_ratio(self, guess: Tensor, clean: Tensor) -> Tensor:
        error = (guess - clean).square().mean((1, 2, 3))
        return -10 * torch.log10(error)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        noisy, clean = batch
        return 40 - self.peak_ratio(noisy - self.net(noisy), clean).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    non_finite("NAN111", ("log", "log10"), "return -10 * torch.log10(error)", modules=("",), rows=(17,)),
    "https://github.com/megvii-model/HINet/issues/37",
    "https://github.com/open-mmlab/mmagic/issues/490",
)
def psnr_of_a_black_patch() -> LightningRun:
    """The loss is a peak signal-to-noise ratio; one patch is black, its noise is a gain, and it is restored exactly."""
    clean = digits(24 * 45)[0].reshape(-1, 1, 8, 8)
    clean[33 * 24 + 17] = 0
    rng = np.random.default_rng(1503)
    noisy = clean * (1 + 0.5 * rng.normal(size=clean.shape))
    return LightningRun(Denoiser(), in_order(noisy.astype("float32"), clean, size=24), {"max_epochs": 1})
