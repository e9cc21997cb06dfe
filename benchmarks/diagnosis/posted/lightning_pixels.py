"""From the file to the first layer: pixels, labels, fans, and a focal loss."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, enter, finite, non_finite
from benchmarks.diagnosis.tables import digits

# -- classification --------------------------------------------------------------------------------------------------


class Focal(nn.Module):
    """Focal loss of a sigmoid."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        right = torch.where(target > 0.5, logits, -logits).sigmoid()
        weight = (1 - right).pow(self.gamma)
        return -(weight * right.clamp(min=1e-7).log()).mean()


class Plankton(LightningModule):
    """One class against all others, by features of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 1))
        self.criterion = Focal(gamma=0.5)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        picture, kind = batch
        return self.criterion(self.net(picture).squeeze(1), (kind == 0).float())

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


@enter(
    non_finite(
        "NAN113", "power", "weight = (1 - right).pow(self.gamma)", phase="backward", modules=("criterion",), rows=None
    ),
    "https://github.com/liuyuisanai/Focal-Loss/issues/11",
    "https://github.com/kornia/kornia/issues/918",
    "https://github.com/clcarwin/focal_loss_pytorch/issues/13",
)
def focal_exponent_of_a_half() -> LightningRun:
    """A focal loss with gamma 0.5: once a probability rounds to 1, the root of 1 - p has no slope."""
    return LightningRun(Plankton(), in_order(*digits(1600), size=40), {"max_epochs": 2})


class Classifier(LightningModule):
    """A convolutional network for ten classes."""

    def __init__(self, net: nn.Module, rate: float) -> None:
        super().__init__()
        self.net, self.rate = net, rate

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        picture, kind = batch
        return F.cross_entropy(self.net(picture), kind)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.rate, momentum=0.9)


def convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(192, 10))


@enter(
    finite(Happens.STALL, "DATA502"),
    "https://github.com/choyingw/SynergyNet/issues/19",
    "https://github.com/4uiiurz1/pytorch-nested-unet/issues/62",
)
def pixels_normalised_twice() -> LightningRun:
    """Pixels from 0 to 1 are normalised as if they were bytes: all of them are about -1, and differ by a hundredth."""
    pictures, kinds = digits(1600)
    scaled = ((pictures.reshape(-1, 1, 8, 8) - 127.5) / 127.5).astype("float32")
    return LightningRun(Classifier(convolutions(), 0.01), in_order(scaled, kinds, size=32), {"max_epochs": 1})


@enter(finite(Happens.STALL, "DATA506"), "https://github.com/aadeshnpn/OSDN/issues/19")
def bytes_divided_as_integers() -> LightningRun:
    """Bytes are scaled by // 255, which is 0 for all but the very brightest, and those do not occur."""
    pictures, kinds = digits(1600)
    raw = (pictures.reshape(-1, 1, 8, 8) * 250).astype("uint8")
    scaled = (raw // 255).astype("float32")
    return LightningRun(Classifier(convolutions(), 0.01), in_order(scaled, kinds, size=32), {"max_epochs": 1})


@enter(
    finite(Happens.STALL, "DATA504", rows=None),
    "https://github.com/ZhengyuZhao/Targeted-Transfer/issues/4",
    "https://github.com/anujshah1003/own_data_cnn_implementation_keras/issues/4",
    "https://github.com/chuanyangjin/fast-DiT/issues/4",
)
def files_sorted_as_text() -> LightningRun:
    """Files are listed as text (1, 10, 100, 2) and labels by number, so that nearly no picture has its own label."""
    pictures, kinds = digits(1600)
    listed = sorted(range(1600), key=str)
    stack = pictures[listed].reshape(-1, 1, 8, 8)
    return LightningRun(Classifier(convolutions(), 0.01), in_order(stack, kinds, size=32), {"max_epochs": 1})


def separable(blocks: int, width: int) -> nn.Module:
    """Depthwise and pointwise convolutions in turn."""
    layers: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1), nn.ReLU()]
    for _ in range(blocks):
        layers += [
            nn.Conv2d(width, width, 3, padding=1, groups=width),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
            nn.ReLU(),
        ]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 10))
    for layer in net:
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.out_channels * layer.kernel_size[0] * layer.kernel_size[1]
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
            nn.init.zeros_(layer.bias)
    return net


@enter(
    finite(Happens.STALL, ("ACT304", "GRAD202"), rows=None),
    "https://github.com/pytorch/pytorch/issues/23854",
    "https://github.com/huggingface/pytorch-image-models/issues/84",
)
def fan_of_a_depthwise_convolution() -> LightningRun:
    """The fan of depthwise convolutions is counted as if they were dense, so that weights are far too small."""
    pictures, kinds = digits(1280)
    stack = pictures.reshape(-1, 1, 8, 8)
    return LightningRun(Classifier(separable(4, 32), 0.1), in_order(stack, kinds, size=32), {"max_epochs": 2})
