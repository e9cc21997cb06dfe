"""Whitening, a derivative by hand, half precision, an optimizer without epsilon, a flipped bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import BaseFinetuning
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, non_finite
from benchmarks.diagnosis.tables import digits, two_blobs, waves


def loader(*arrays: np.ndarray, size: int = 32) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*map(torch.from_numpy, arrays)), batch_size=size)


# -- NAN114 ----------------------------------------------------------------------------------------------------------


class Whiten(nn.Module):
    """Makes the features of a batch uncorrelated."""

    def forward(self, z: Tensor) -> Tensor:
        z = z - z.mean(0)
        covariance = z.T @ z / (len(z) - 1)
        factor = torch.linalg.cholesky(covariance)
        return torch.linalg.solve_triangular(factor, z.T, upper=False).T


class Whitened(LightningModule):
    """A classifier behind whitened features."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.whiten, self.head = nn.Linear(64, 16), Whiten(), nn.Linear(16, 10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        image, label = batch
        return F.cross_entropy(self.head(self.whiten(torch.tanh(self.features(image)))), label)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("NAN114",),
        kind="exception",
        operations=("_LinAlgError", "LinAlgError"),
        modules=("whiten",),
        line="factor = torch.linalg.cholesky(covariance)",
        rows=None,
    ),
    "https://github.com/htdt/self-supervised/issues/1",
    "https://github.com/htdt/self-supervised/issues/7",
)
def fewer_rows_than_features() -> LightningRun:
    """Whitening by Cholesky; the last batch has 9 rows for 16 features, so its covariance is singular."""
    return LightningRun(Whitened(), loader(*digits(25 * 48 + 9), size=48), {"max_epochs": 1})


# -- NAN115 ----------------------------------------------------------------------------------------------------------


class FocalFunction(torch.autograd.Function):
    """Focal loss of probabilities, with the derivative worked out on paper."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, gamma: float) -> Tensor:
        ctx.save_for_backward(p)
        ctx.gamma = gamma
        return -((1 - p) ** gamma) * p.log()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (p,) = ctx.saved_tensors
        modulation = (1 - p) ** ctx.gamma
        slope = ctx.gamma * modulation * p.log() / (1 - p) - modulation / p
        return upstream * slope, None


class Focal(LightningModule):
    """Object or background, as a detector asks it of each of its boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.box = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features, is_object = batch
        score = self.box(features)
        p = torch.sigmoid(torch.where(is_object > 0, score, -score))
        return FocalFunction.apply(p, 2.0).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


@enter(
    non_finite(
        "NAN115",
        None,
        ("return FocalFunction.apply(p, 2.0)", "slope = ctx.gamma * modulation * p.log()"),
        kind="operation",
        phase="backward",
        modules=("",),
        rows=None,
    ),
    "https://github.com/zimenglan-sysu-512/Focal-Loss/issues/1",
    "https://github.com/kornia/kornia/issues/918",
)
def focal_loss_with_its_own_gradient() -> LightningRun:
    """The derivative of a focal loss, written by hand, divides by 1 - p; a sure classifier has p = 1."""
    features, is_object = two_blobs(3200, gap=2.0)
    features *= np.random.default_rng(6).lognormal(0, 0.4, (3200, 1)).astype("float32")
    return LightningRun(Focal(), loader(features, is_object), {"max_epochs": 2})


# -- OPT604 ----------------------------------------------------------------------------------------------------------


class Dice(nn.Module):
    """Soft dice loss."""

    def forward(self, probability: Tensor, mask: Tensor) -> Tensor:
        size = probability.sum() + mask.sum()
        overlap = (probability * mask).sum()
        return 1 - 2 * overlap / size


class Segmenter(LightningModule):
    """Finds the foreground by brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.dice = Dice()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        scan, mask = batch
        return self.dice(torch.sigmoid(self.conv(scan)), mask)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1.0)


@enter(
    non_finite("OPT604", "sum", "size = probability.sum() + mask.sum()", modules=("dice",), rows=None),
    "https://github.com/qubvel-org/segmentation_models.pytorch/issues/463",
)
def scans_that_grow() -> LightningRun:
    """Progressive resizing in half precision: the pixels of four scans of 192 by 192 sum up to more than 65504."""
    rng = np.random.default_rng(5)
    batches = []
    for number in range(40):
        side = 48 if number < 14 else 80 if number < 28 else 192
        mask = rng.random((4, 1, side, side)) < 0.95
        scan = np.where(mask, 2.0, -2.0) + 0.3 * rng.normal(size=mask.shape)
        batches.append((torch.from_numpy(scan).half(), torch.from_numpy(mask).half()))
    return LightningRun(Segmenter(), DataLoader(batches, batch_size=None), {"max_epochs": 1, "precision": "16-true"})  # type: ignore[arg-type]


# -- OPT605 ----------------------------------------------------------------------------------------------------------


class Thaw(BaseFinetuning):
    """The encoder joins the training with the second epoch."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.encoder)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.encoder, optimizer, lr=1e-4)


class FineTuned(LightningModule):
    """An encoder and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 40), nn.Tanh())
        self.head = nn.Linear(40, 10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        image, label = batch
        return F.cross_entropy(self.head(self.encoder(image)), label)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.head.parameters(), lr=3e-3, eps=0.0)


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("OPT605",), phase="optimizer", rows=None),
    "https://github.com/davharris/mistnet/issues/94",
    "https://github.com/lessw2020/FAdam_PyTorch/issues/1",
)
def thawed_encoder_without_epsilon() -> LightningRun:
    """Adam with eps=0; the encoder thaws in epoch 1, and its weights from pixels that are always dark make 0 / 0."""
    return LightningRun(FineTuned(), loader(*digits(1280)), {"max_epochs": 2, "callbacks": [Thaw()]})


# -- ENV702 ----------------------------------------------------------------------------------------------------------

REDUCED = {"times": 0}


def after_all_reduce(gradient: Tensor) -> Tensor:
    """Stands in for a link that flips one bit of an exponent, once."""
    REDUCED["times"] += 1
    if REDUCED["times"] != 34:
        return gradient
    flipped = gradient.clone()
    flipped.view(-1)[7] = 2.0**31
    return flipped


class Forecaster(LightningModule):
    """A dilated convolution over waves."""

    def __init__(self) -> None:
        super().__init__()
        REDUCED["times"] = 0
        self.conv = nn.Conv1d(1, 16, 5, dilation=2)
        self.out = nn.Linear(16 * 32, 1)
        self.conv.weight.register_hook(after_all_reduce)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        past, future = batch
        return F.huber_loss(self.out(F.mish(self.conv(past.transpose(1, 2))).flatten(1)), future)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


@enter(
    Truth(happens=Happens.SPIKE, causes=("ENV702",), kind="", rows=()),
    "https://github.com/microsoft/dion/issues/76",
    "https://github.com/huggingface/diffusers/issues/10075",
)
def exponent_bit_of_a_gradient() -> LightningRun:
    """One element of a gradient comes back from the network as 2^31, once; everything is finite."""
    return LightningRun(Forecaster(), loader(*waves(1600)), {"max_epochs": 1})
