"""Agriculture and pictures of the earth: indices, boxes, tiles, heights and the first weights of networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, non_finite, runaway
from benchmarks.diagnosis.tables import digits

# -- pictures --------------------------------------------------------------------------------------------------------


class Vegetation(nn.Module):
    """Appends the vegetation index to red and near infrared."""

    def forward(self, bands: Tensor) -> Tensor:
        red, infrared = bands[:, :1], bands[:, 1:2]
        index = (infrared - red) / (infrared + red)
        return torch.cat([bands, index], 1)


class CropMap(LightningModule):
    """What grows in a field? From a small picture of two bands."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Vegetation()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = nn.Linear(32, 3)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        bands, crop = batch
        return F.cross_entropy(self.head(self.net(self.index(bands))), crop)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite("NAN112", "divide", "index = (infrared - red) / (infrared + red)", modules=("index",), rows=(6,)),
    "https://pytorch.org/docs/stable/notes/numerical_accuracy.html",
)
def field_beyond_the_edge_of_the_scene() -> LightningRun:
    """A vegetation index is a quotient of two bands; one picture hangs over the edge of the scene, where both are 0."""
    rng = np.random.default_rng(4501)
    crop = rng.integers(0, 3, 16 * 45)
    bands = rng.uniform(0.1, 0.3, (len(crop), 2, 12, 12))
    bands[:, 1] += 0.2 * crop[:, None, None]
    bands[27 * 16 + 6, :, :, 9:] = 0
    return LightningRun(CropMap(), in_order(bands.astype("float32"), crop, size=16), {"max_epochs": 1})


class Orchard(LightningModule):
    """Finds one apple in a picture: its centre, and its size relative to an anchor, on a logarithmic scale."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
        self.anchor = 4.0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        picture, box = batch
        guess = self.net(picture)
        size = torch.log((box[:, 2:] - box[:, :2]) / self.anchor)
        centre = (box[:, 2:] + box[:, :2]) / 32 - 0.5
        return F.mse_loss(guess, torch.cat([centre, size], 1))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN111", "log", "size = torch.log((box[:, 2:] - box[:, :2])", modules=("",), rows=(7,)),
    "https://github.com/matterport/Mask_RCNN/issues/159",
    "https://github.com/jwyang/faster-rcnn.pytorch/issues/349",
)
def apple_cut_off_by_the_frame() -> LightningRun:
    """Boxes are cut at the frame of the picture; of one that lies outside nothing is left but a line of width 0."""
    rng = np.random.default_rng(4502)
    corner, size = rng.integers(0, 10, (16 * 45, 2)), rng.integers(3, 7, (16 * 45, 2))
    box = np.concatenate([corner, corner + size], 1)
    box[25 * 16 + 7] = np.clip([17, 4, 21, 8], 0, 16)
    picture = 0.2 * rng.normal(size=(len(box), 1, 16, 16))
    for row, (left, top, right, bottom) in enumerate(box):
        picture[row, 0, top:bottom, left:right] += 1
    return LightningRun(
        Orchard(), in_order(picture.astype("float32"), box.astype("float32"), size=16), {"max_epochs": 1}
    )


class Sharpen(LightningModule):
    """Removes noise from satellite tiles; the total variation of the result should be small."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1, bias=False)
        )

    def variation(self, tile: Tensor) -> Tensor:
        down, right = tile[..., 1:, :-1] - tile[..., :-1, :-1], tile[..., :-1, 1:] - tile[..., :-1, :-1]
        return (down.square() + right.square()).sqrt().mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        noisy, clean = batch
        guess = self.net(noisy)
        return F.mse_loss(guess, clean) + 0.02 * self.variation(guess)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite(
        "NAN113", "sqrt", "return (down.square() + right.square()).sqrt()", phase="backward", modules=("",), rows=(10,)
    ),
    "https://github.com/pytorch/pytorch/issues/2421",
    "https://pytorch.org/docs/stable/generated/torch.sqrt.html",
)
def tile_of_open_water() -> LightningRun:
    """Total variation is a root of squared differences; a tile of open water was masked with zeros, and has none."""
    rng = np.random.default_rng(4503)
    clean = np.kron(rng.normal(size=(16 * 45, 1, 4, 4)), np.ones((4, 4)))
    noisy = clean + 0.3 * rng.normal(size=clean.shape)
    noisy[32 * 16 + 10] = clean[32 * 16 + 10] = 0
    return LightningRun(
        Sharpen(), in_order(noisy.astype("float32"), clean.astype("float32"), size=16), {"max_epochs": 1}
    )


class WeedSpotter(LightningModule):
    """Names the weed in a picture; the list has eight."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Dropout(0.1), nn.Linear(48, 8))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        picture, weed = batch
        return F.cross_entropy(self.net(picture), weed)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("DATA505",),
        kind="exception",
        operations=("IndexError",),
        modules=("",),
        line="return F.cross_entropy(self.net(picture), weed)",
        rows=(3, 24),
    ),
    "https://pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html",
)
def weed_that_came_with_the_new_season() -> LightningRun:
    """The network was built for last year's eight weeds; labels of this year know a ninth, number 8."""
    pictures, kinds = digits(1797)
    known = kinds < 8
    pictures, kinds = pictures[known][: 32 * 42], kinds[known][: 32 * 42]
    kinds[28 * 32 + 3] = kinds[28 * 32 + 24] = 8
    return LightningRun(WeedSpotter(), in_order(pictures, kinds, size=32), {"max_epochs": 1})


# -- scales and formats ----------------------------------------------------------------------------------------------


class SoilMoisture(LightningModule):
    """Moisture of the soil from a picture of four bands as the satellite sends it, twelve bits a pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(4, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(16 * 16, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        picture, moisture = batch
        return F.mse_loss(self.head(self.net(picture)).squeeze(1), moisture)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-3, momentum=0.9)


@enter(
    runaway("DATA502"),
    "https://pytorch.org/vision/stable/generated/torchvision.transforms.Normalize.html",
)
def reflectance_in_twelve_bits() -> LightningRun:
    """Pixels go up to 4095 and nobody divides them; the first step of plain gradient descent is far too long."""
    rng = np.random.default_rng(4504)
    moisture = rng.normal(size=16 * 50)
    picture = 1500 + 500 * moisture[:, None, None, None] + 300 * rng.normal(size=(len(moisture), 4, 8, 8))
    columns = np.clip(picture, 0, 4095).astype("float32"), moisture.astype("float32")
    return LightningRun(SoilMoisture(), in_order(*columns, size=16), {"max_epochs": 1})


class Relief(nn.Module):
    """Roughness of a height profile, in half precision to save memory."""

    def forward(self, height: Tensor) -> Tensor:
        profile = height.half()
        rough = (profile - profile.mean(1, keepdim=True)).square().mean(1, keepdim=True)
        return rough.float()


class Erosion(LightningModule):
    """Soil that a slope loses in a year, from its profile in metres."""

    def __init__(self) -> None:
        super().__init__()
        self.relief = Relief()
        self.net = nn.Sequential(nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        height, lost = batch
        rough = self.relief(height)
        row = torch.cat([torch.log1p(rough), height.mean(1, keepdim=True) / 500], 1)
        return F.mse_loss(self.net(row).squeeze(1), lost)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite("OPT604", ("square", "power"), "rough = (profile - profile.mean(1", modules=("relief",), rows=(9, 13)),
    "https://pytorch.org/docs/stable/amp.html",
)
def slope_in_the_high_mountains() -> LightningRun:
    """Squares of metres in float16 end at 65504; two profiles of a batch lie in the Alps and climb 800 metres."""
    rng = np.random.default_rng(4505)
    climb = rng.uniform(5, 80, (24 * 45, 1))
    climb[30 * 24 + 9] = climb[30 * 24 + 13] = 800
    height = 300 + climb * (np.linspace(-0.5, 0.5, 20) + 0.1 * rng.normal(size=(len(climb), 20)))
    lost = np.log(climb[:, 0]) - 3
    return LightningRun(
        Erosion(), in_order(height.astype("float32"), lost.astype("float32"), size=24), {"max_epochs": 1}
    )


# -- first weights ---------------------------------------------------------------------------------------------------


class Leaves(LightningModule):
    """Kind of a leaf by a perceptron of six layers."""

    def __init__(self, draw: Any = None, rate: float = 1e-3) -> None:
        super().__init__()
        layers = [part for _ in range(4) for part in (nn.Linear(48, 48), nn.ReLU())]
        self.net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), *layers, nn.Linear(48, 10))
        for layer in self.net:
            if draw and isinstance(layer, nn.Linear):
                draw(layer.weight)
                nn.init.zeros_(layer.bias)
        self.rate = rate

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        picture, kind = batch
        return F.cross_entropy(self.net(picture), kind)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.rate)


@enter(
    finite(Happens.STALL, ("ACT305",)),
    "https://pytorch.org/docs/stable/nn.init.html",
)
def leaves_from_one_constant() -> LightningRun:
    """All weights begin at 0.02, so that runs can be compared; all units of a layer stay the same unit."""
    module = Leaves(lambda weight: nn.init.constant_(weight, 0.02), rate=5e-3)
    return LightningRun(module, in_order(*digits(1440), size=32), {"max_epochs": 2})


@enter(
    finite(Happens.STALL, ("ACT303", "OPT601"), rows=None),
    "https://github.com/keras-team/keras/issues/7057",
    "https://pytorch.org/docs/stable/generated/torch.nn.ReLU.html",
)
def leaves_after_a_few_long_steps() -> LightningRun:
    """A rate of 0.1 under Adam: within a few steps all rectifiers are below zero for every leaf, and stay there."""
    return LightningRun(Leaves(rate=0.1), in_order(*digits(1600), size=32), {"max_epochs": 2})
