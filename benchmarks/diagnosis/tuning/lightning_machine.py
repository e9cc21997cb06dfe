"""Half precision, optimizers, libraries and machines that make non-finite values, in Lightning."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, non_finite
from benchmarks.diagnosis.tables import digits, regression

HALF = {"precision": "16-true", "max_epochs": 1}


def halves(x: np.ndarray, y: np.ndarray) -> DataLoader[Any]:
    inputs = torch.from_numpy(x).half()
    targets = torch.from_numpy(y)
    return DataLoader(TensorDataset(inputs, targets.half() if targets.is_floating_point() else targets), batch_size=32)


# -- OPT604: half precision ------------------------------------------------------------------------------------------


class Energy(nn.Module):
    """Mean square of each row as a further feature."""

    def forward(self, x: Tensor) -> Tensor:
        energy = x.pow(2).sum(-1, keepdim=True)
        return torch.cat([x / 40, torch.log1p(energy) / 10], dim=-1)


class Audio(LightningModule):
    """Classifies clips."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = Energy()
        self.head = nn.Sequential(nn.Linear(65, 32), nn.ReLU(), nn.Linear(32, 10))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        clip, label = batch
        return F.cross_entropy(self.head(self.energy(clip)).float(), label)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9)


@enter(
    non_finite("OPT604", ("sum", "power"), "energy = x.pow(2)", modules=("energy",), rows=None),
    "https://github.com/keras-team/keras/issues/11832",
    "https://github.com/facebookresearch/xformers/issues/96",
)
def energy_in_half_precision() -> LightningRun:
    """Clips get louder; the sum of squares passes 65504, the largest number of half precision."""
    images, labels = digits(1280)
    loudness = np.linspace(30, 75, 1280)[:, None]
    return LightningRun(Audio(), halves((images * loudness).astype("float32"), labels), HALF)


class Cosine(LightningModule):
    """Compares rows with learnt prototypes by their cosine, with the usual small constant."""

    def __init__(self) -> None:
        super().__init__()
        self.prototypes = nn.Linear(64, 10, bias=False)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        rows, labels = batch
        length = rows.pow(2).sum(-1, keepdim=True).sqrt()
        unit = rows / (length + 1e-8)
        return F.cross_entropy(10 * self.prototypes(unit).float(), labels)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


@enter(
    non_finite("OPT604", "divide", "unit = rows / (length + 1e-8)", modules=("",), rows=(17,)),
    "https://github.com/facebookresearch/xformers/issues/96",
    "https://github.com/pytorch/pytorch/issues/41527",
)
def epsilon_lost_in_half_precision() -> LightningRun:
    """An epsilon of 1e-8 is 0 in half precision; one row is blank."""
    images, labels = digits(1280)
    images[24 * 32 + 17] = 0
    return LightningRun(Cosine(), halves(images, labels), HALF)


# -- OPT605: made by the optimizer -----------------------------------------------------------------------------------

MADE_BY_OPTIMIZER: dict[str, Any] = {"happens": Happens.NON_FINITE, "causes": ("OPT605",), "phase": "optimizer"}


class Bag(LightningModule):
    """Digits as bags of pixels that are lit: an embedding per pixel."""

    def __init__(self, pixels: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(pixels, 16)
        self.head = nn.Linear(16, 10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pixels, labels = batch
        return F.cross_entropy(self.head(self.embedding(pixels).mean(1)).float(), labels)

    def configure_optimizers(self) -> Any:
        raise NotImplementedError


class LateHead(Bag):
    """The embedding is frozen for 20 steps, as for fine-tuning; the loss is scaled by hand for half precision."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return 256 * super().training_step(batch, batch_idx)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.embedding.weight.requires_grad_(self.trainer.global_step >= 20)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def brightest_pixels(rows: int = 1280) -> tuple[Tensor, Tensor]:
    images, labels = digits(rows)
    return torch.from_numpy(np.argsort(-images, axis=1)[:, :12].copy()), torch.from_numpy(labels)


@enter(
    Truth(**MADE_BY_OPTIMIZER, rows=None),
    "https://github.com/google-deepmind/optax/issues/1754",
    "https://github.com/CambioML/pykoi/pull/69",
)
def adam_in_half_precision() -> LightningRun:
    """Adam's epsilon is 0 in half precision: 0 / 0 for pixels that no sample of the batch holds."""
    return LightningRun(LateHead(), DataLoader(TensorDataset(*brightest_pixels()), batch_size=32), HALF)


class NormalisedSGD(torch.optim.Optimizer):
    """Each tensor's step has the length of its own weights, as in the paper somebody read."""

    def __init__(self, params: Iterable[Any], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                trust = parameter.norm() / parameter.grad.norm()
                parameter.sub_(group["lr"] * trust * parameter.grad)
        return loss


class Gated(LightningModule):
    """An expert that only some batches ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.common, self.expert = nn.Linear(10, 16), nn.Linear(10, 16)
        self.head = nn.Linear(16, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y, asked = batch
        hidden = torch.relu(self.common(x) + asked * self.expert(x))
        return F.mse_loss(self.head(hidden), y)

    def configure_optimizers(self) -> Any:
        return NormalisedSGD(self.parameters(), lr=0.01)


@enter(
    Truth(**MADE_BY_OPTIMIZER, rows=None),
    "https://github.com/noahgolmant/pytorch-lars/issues/3",
    "https://github.com/microsoft/dion/pull/24",
)
def trust_ratio_without_epsilon() -> LightningRun:
    """A trust ratio divides by the norm of a gradient; in one batch nobody asks for the expert, and it is 0."""
    x, y = regression(1280)
    asked = np.random.default_rng(2).integers(0, 2, (1280, 1)).astype("float32")
    asked[27 * 32 : 28 * 32] = 0
    data = TensorDataset(*map(torch.from_numpy, (x, y, asked)))
    return LightningRun(Gated(), DataLoader(data, batch_size=32), {"max_epochs": 1})


# -- ENV701: a known issue of a library ------------------------------------------------------------------------------


class Sentences(LightningModule):
    """Attention over sentences of up to 12 symbols, 0 is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(65, 16, padding_idx=0)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        symbols, labels = batch
        hidden = self.embed(symbols)
        mixed, _ = self.attention(hidden, hidden, hidden, key_padding_mask=symbols == 0)
        return F.cross_entropy(self.head((hidden + mixed).mean(1)), labels)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite(("ENV701", "NAN112"), "softmax", "mixed, _ = self.attention(", modules=("attention",), rows=(6,)),
    "https://github.com/pytorch/pytorch/pull/185338",
    "https://github.com/facebookresearch/Mask2Former/issues/243",
)
def empty_sentence_in_attention() -> LightningRun:
    """One sentence is all padding; nn.MultiheadAttention of this version answers NaN (a known issue)."""
    symbols, labels = brightest_pixels()
    symbols = symbols + 1
    symbols[26 * 32 + 6] = 0
    return LightningRun(Sentences(), DataLoader(TensorDataset(symbols, labels), batch_size=32), {"max_epochs": 1})


# -- ENV702: hardware (a stand-in: a value that goes wrong once, and never again) ------------------------------------


class FlakyLinear(nn.Linear):
    """Stands in for a faulty memory cell: one element of the output of the 30th pass has an exponent of all ones."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        FlakyLinear.passes += 1
        if FlakyLinear.passes == 30:
            out = out.clone()
            out[3, 5] = float("inf")
        return out


class OnFaultyMemory(LightningModule):
    """A network with one faulty part."""

    def __init__(self) -> None:
        super().__init__()
        FlakyLinear.passes = 0
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), FlakyLinear(64, 64), nn.Linear(64, 10))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class FlakyGradient(OnFaultyMemory):
    """The same in a gradient, on its way back."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.passes = 0
        self.net[0].weight.register_hook(self.spoil)

    def spoil(self, gradient: Tensor) -> Tensor:
        self.passes += 1
        if self.passes != 26:
            return gradient
        spoilt = gradient.clone()
        spoilt[0, 0] = float("nan")
        return spoilt


def digit_loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(*map(torch.from_numpy, digits(1280))), batch_size=32)


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("ENV702",), kind="", rows=()),
    "https://github.com/mrphys/tensorflow-nufft/issues/20",
    "https://github.com/microsoft/dion/issues/76",
)
def flipped_bit_in_an_activation() -> LightningRun:
    """One activation is infinite once; the same step again is fine."""
    return LightningRun(OnFaultyMemory(), digit_loader(), {"max_epochs": 1})


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("ENV702",), kind="", rows=()),
    "https://github.com/microsoft/dion/issues/76",
    "https://github.com/bgshih/crnn/issues/151",
)
def flipped_bit_in_a_gradient() -> LightningRun:
    """One gradient is NaN once; the same step again is fine."""
    return LightningRun(FlakyGradient(), digit_loader(), {"max_epochs": 1})
