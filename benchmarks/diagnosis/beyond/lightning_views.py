"""Detectors, depth, heat maps, a tokenizer with an adversary, quantised nets: models that look at pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, healthy, non_finite
from benchmarks.diagnosis.tables import digits


def loader(*columns: np.ndarray, size: int = 32) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*(torch.as_tensor(column) for column in columns)), batch_size=size)


def rectangles(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of 12 x 12 with a bright rectangle around the middle, and its distances from the middle in pixels."""
    rng = np.random.default_rng(seed)
    sides = rng.integers(1, 6, (rows, 4))
    pictures = 0.1 * rng.normal(size=(rows, 1, 12, 12))
    for picture, (left, top, right, bottom) in zip(pictures, sides, strict=True):
        picture[0, 6 - top : 6 + bottom, 6 - left : 6 + right] += 1
    return pictures.astype("float32"), sides.astype("float32")


# -- a detector without anchors --------------------------------------------------------------------------------------


class Anchorless(LightningModule):
    """Distances of four sides by an IoU loss, and how central the point is."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten()
        )
        self.sides, self.central = nn.Linear(144, 4), nn.Linear(144, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pictures, truth = batch
        hidden = self.body(pictures)
        guess = F.softplus(self.sides(hidden)) + 0.5
        low, high = torch.minimum(guess, truth), torch.maximum(guess, truth)
        overlap = (low[:, 0] + low[:, 2]) * (low[:, 1] + low[:, 3])
        hull = (high[:, 0] + high[:, 2]) * (high[:, 1] + high[:, 3])
        across, down = truth[:, 0::2], truth[:, 1::2]
        product = across.amin(1) / across.amax(1) * (down.amin(1) / down.amax(1))
        centrality = product.sqrt()
        central = F.binary_cross_entropy_with_logits(self.central(hidden).squeeze(1), centrality)
        return (1 - overlap / hull).mean() + central

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite(
        ("NAN114", "DATA505", "DATA504", "DATA503"), "sqrt", "centrality = product.sqrt()", modules=("",), rows=(24,)
    ),
    "https://github.com/xuannianz/keras-fcos/issues/31",
    "https://github.com/Stick-To/Object-Detection-Tensorflow/issues/41",
)
def point_that_lies_outside_of_its_box() -> LightningRun:
    """Centrality is the root of a product of ratios; one point lies left of its box, and the product is negative."""
    pictures, sides = rectangles(32 * 45, 7301)
    sides[31 * 32 + 24, 0] = -2.0
    return LightningRun(Anchorless(), loader(pictures, sides), {"max_epochs": 1})


# -- a detector with anchors -----------------------------------------------------------------------------------------


class Anchored(LightningModule):
    """Width and height as anchors times an exponential, the loss on boxes in the picture's units."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1), nn.LeakyReLU(0.1), nn.Conv2d(8, 16, 3, 2, 1), nn.LeakyReLU(0.1), nn.Flatten()
        )
        self.head = nn.Linear(144, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pictures, sides = batch
        size = torch.stack((sides[:, 0] + sides[:, 2], sides[:, 1] + sides[:, 3]), 1) / 12
        guess = 0.5 * torch.exp(self.head(self.body(pictures)))
        return F.l1_loss(guess, size)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite(
        ("NAN110", "DATA503", "DATA502"),
        "exp",
        "guess = 0.5 * torch.exp(self.head(self.body(pictures)))",
        modules=("",),
        rows=(3,),
    ),
    "https://github.com/qqwweee/keras-yolo3/issues/257",
    "https://github.com/VCasecnikovs/Yet-Another-YOLOv4-Pytorch/issues/16",
)
def slide_in_sixteen_bits_among_floats() -> LightningRun:
    """Sizes of boxes are exponentials; one picture was not brought from 16 bits to the unit interval."""
    pictures, sides = rectangles(32 * 45, 7302)
    pictures[34 * 32 + 3] *= -65535
    pictures[34 * 32 + 3, 0, 3:9, 3:9] = 65535
    return LightningRun(Anchored(), loader(pictures, sides), {"max_epochs": 1})


# -- depth -----------------------------------------------------------------------------------------------------------


class SmallUNet(nn.Module):
    """One step down, one step up, one bridge."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.leave = nn.Conv2d(16, 1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.enter(x)
        return self.leave(torch.cat((skip, self.up(self.down(skip))), 1))


class ScaleFreeDepth(LightningModule):
    """Depth up to a factor: the spread of the logarithm of a ratio."""

    def __init__(self) -> None:
        super().__init__()
        self.net = SmallUNet()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pictures, depth = batch
        guess = F.softplus(self.net(pictures)) + 0.05
        difference = guess.log() - torch.log(depth)
        spread = difference.square().mean((1, 2, 3)) - 0.5 * difference.mean((1, 2, 3)).square()
        return (spread + 1e-6).sqrt().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def depths(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    pictures, _ = rectangles(rows, seed)
    return pictures, (4.0 - 2.5 * pictures.clip(0, 1)).astype("float32")


@enter(
    non_finite(
        ("NAN111", "DATA505", "DATA503", "DATA504"),
        "log",
        "difference = guess.log() - torch.log(depth)",
        modules=("",),
        rows=(10,),
    ),
    "https://github.com/zhengqili/MegaDepth/issues/38",
    "https://github.com/dontLoveBugs/DORN_pytorch/issues/23",
)
def pixels_that_the_laser_did_not_reach() -> LightningRun:
    """A U-Net for depth with a loss in logarithms; in one scan the laser saw nothing in a corner, which is a zero."""
    pictures, depth = depths(32 * 40, 7303)
    depth[29 * 32 + 10, 0, :3, :3] = 0.0
    return LightningRun(ScaleFreeDepth(), loader(pictures, depth), {"max_epochs": 1})


# -- heat maps -------------------------------------------------------------------------------------------------------


class HeatMap(LightningModule):
    """Centres of objects as peaks of a heat map; the focal loss is divided by the number of peaks."""

    def __init__(self) -> None:
        super().__init__()
        self.net = SmallUNet()
        nn.init.constant_(self.net.leave.bias, -2.2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pictures, peaks = batch
        score = self.net(pictures)
        chance = score.sigmoid()
        hit = -F.logsigmoid(score) * (1 - chance).square() * peaks.eq(1)
        miss = -F.logsigmoid(-score) * chance.square() * (1 - peaks).pow(4)
        count = peaks.eq(1).sum()
        return (hit.sum() + miss.sum()) / count

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite(
        "NAN112",
        ("div", "divide", "truediv"),
        "return (hit.sum() + miss.sum()) / count",
        modules=("",),
    ),
    "https://github.com/xingyizhou/CenterNet/issues/241",
    "https://github.com/kuangliu/pytorch-retinanet/issues/14",
)
def crops_that_miss_every_object() -> LightningRun:
    """The focal loss of a heat map is divided by its peaks; random crops left a batch without any."""
    rng = np.random.default_rng(7304)
    rows = 16 * 60
    pictures = 0.1 * rng.normal(size=(rows, 1, 12, 12)).astype("float32")
    peaks = np.zeros((rows, 1, 12, 12), "float32")
    y, x = rng.integers(1, 11, (2, rows))
    for row in range(rows):
        if row // 16 != 38:
            pictures[row, 0, y[row] - 1 : y[row] + 2, x[row] - 1 : x[row] + 2] += 1
            peaks[row, 0, y[row] - 1 : y[row] + 2, x[row] - 1 : x[row] + 2] = 0.6
            peaks[row, 0, y[row], x[row]] = 1
    return LightningRun(HeatMap(), loader(pictures, peaks, size=16), {"max_epochs": 1})


# -- a tokenizer with an adversary -----------------------------------------------------------------------------------


class Tokenizer(LightningModule):
    """Vector-quantised autoencoder; from a given step on, a patch critic joins the loss of the decoder."""

    def __init__(self, start: int, weight: float) -> None:
        super().__init__()
        self.start, self.weight = start, weight
        self.encoder = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 8))
        self.codes = nn.Parameter(torch.randn(32, 8))
        self.decoder = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 64))
        self.critic = nn.Sequential(nn.Linear(64, 24), nn.LeakyReLU(0.2), nn.Linear(24, 1)).requires_grad_(False)
        nn.init.constant_(self.critic[2].bias, -1.5)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, _ = batch
        z = self.encoder(images)
        nearest = self.codes[torch.cdist(z, self.codes).argmin(1)]
        commitment = F.mse_loss(nearest, z.detach()) + 0.25 * F.mse_loss(z, nearest.detach())
        rebuilt = self.decoder(z + (nearest - z).detach())
        loss = F.mse_loss(rebuilt, images) + 0.1 * commitment
        if self.global_step >= self.start:
            loss = loss + self.weight * F.relu(1 - self.critic(rebuilt)).mean()
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=2e-3)


@enter(
    finite(Happens.SPIKE, "LOSS405"),
    "https://github.com/CompVis/taming-transformers/issues/44",
    "https://github.com/CompVis/latent-diffusion/issues/350",
    "https://github.com/samb-t/unleashing-transformers/issues/17",
)
def adversary_that_joins_at_step_forty() -> LightningRun:
    """A tokenizer learns to rebuild digits; at step 40 a critic's hinge joins the loss with a weight of 0.8."""
    return LightningRun(Tokenizer(40, 0.8), loader(*digits(1280)), {"max_epochs": 2})


# -- weights of four bits --------------------------------------------------------------------------------------------


class FourBits(nn.Linear):
    """Weights on a grid of sixteen values; with or without a way back for the gradient."""

    def __init__(self, inputs: int, outputs: int, straight: bool) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.straight = straight

    def forward(self, input: Tensor) -> Tensor:
        step = self.weight.detach().abs().max() / 7
        rounded = torch.round(self.weight / step) * step
        if self.straight:
            rounded = self.weight + (rounded - self.weight).detach()
        return F.linear(input, rounded)


class LowBits(LightningModule):
    """A classifier of digits in four bits."""

    def __init__(self, straight: bool) -> None:
        super().__init__()
        self.net = nn.Sequential(FourBits(64, 48, straight), nn.ReLU(), FourBits(48, 10, straight))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    finite(Happens.STALL, ("OPT608", "GRAD202")),
    "https://github.com/Justin-Tan/generative-compression/issues/27",
)
def four_bits_without_a_way_back() -> LightningRun:
    """Weights are rounded to four bits in the forward pass, and the derivative of rounding is zero."""
    return LightningRun(LowBits(False), loader(*digits(1280)), {"max_epochs": 2})


@enter(healthy(), "https://github.com/Justin-Tan/generative-compression/issues/27")
def four_bits_straight_through() -> LightningRun:
    """The same rounding with a straight-through estimator: noisy gradients, and it learns."""
    return LightningRun(LowBits(True), loader(*digits(1280)), {"max_epochs": 2})


# -- a picture of a class that is not there --------------------------------------------------------------------------


class Conditional(LightningModule):
    """A decoder that draws the digit that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 64))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch
        told = F.one_hot(labels, 10).float()
        return F.mse_loss(self.decoder(told), images)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("DATA505", "DATA511"),
        kind="exception",
        operations=("RuntimeError",),
        modules=("",),
        line="told = F.one_hot(labels, 10).float()",
        rows=(15,),
    ),
    "https://github.com/milesial/Pytorch-UNet/issues/322",
)
def digit_that_was_marked_as_unreadable() -> LightningRun:
    """Labels become one-hot rows of ten; one digit carries the number 10, for unreadable."""
    images, labels = digits(1280)
    labels[33 * 32 + 15] = 10
    return LightningRun(Conditional(), loader(images, labels), {"max_epochs": 1})
