"""Scales and first weights: raw columns, bytes, years, decibels, and layers that begin too large or too small."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, enter, finite, runaway
from benchmarks.diagnosis.tables import digits, regression


def _run(module: LightningModule, *columns: np.ndarray, size: int, epochs: int = 1) -> LightningRun:
    narrow = [column.astype("float32") if column.dtype == np.float64 else column for column in columns]
    return LightningRun(module, in_order(*narrow, size=size), {"max_epochs": epochs})


class _Squares(LightningModule):
    """A network, a squared error, and an optimizer of each program's own."""

    def __init__(self, net: nn.Module, kind: type = torch.optim.Adam, **settings: Any) -> None:
        super().__init__()
        self.net, self.kind, self.settings = net, kind, settings

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return F.mse_loss(self.net(x).squeeze(1), y)

    def configure_optimizers(self) -> Any:
        return self.kind(self.parameters(), **self.settings)


# -- scales ----------------------------------------------------------------------------------------------------------


class Daylight(LightningModule):
    """How bright is a scene? From a picture that is made grey first."""

    def __init__(self, careful: bool = False) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 1))
        self.careful = careful

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        picture, bright = batch
        picture = picture.float() if self.careful else picture
        grey = (picture[:, 0] + picture[:, 1] + picture[:, 2]) // 3
        return F.mse_loss(self.net(grey.flatten(1).float() / 64 - 2).squeeze(1), bright)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    finite(Happens.STALL, ("DATA507",)),
    "https://stackoverflow.com/questions/7547557/numpy-uint8-pixel-wrapping-solution/25978091",
    "http://surfertas.github.io/computervision/2017/02/14/overflow.html",
)
def grey_as_a_third_of_the_sum() -> LightningRun:
    """Red, green and blue are added as bytes before they are divided by 3: sums above 255 begin again at 0."""
    return _run(Daylight(), *_scenes(), size=24)


def _scenes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7501)
    level = rng.uniform(110, 200, 24 * 60)
    picture = level[:, None, None, None] + 35 * rng.normal(size=(len(level), 3, 8, 8))
    return np.clip(picture, 0, 255).astype("uint8"), (level - 155) / 26


@enter(
    runaway("DATA509"),
    "https://github.com/rstudio-conf-2020/dl-keras-tf/issues/9",
    "https://github.com/blackportal-ai/delta/issues/248",
)
def heat_of_a_house_in_megajoules() -> LightningRun:
    """Inputs are standardised, but the target is a year's heat in megajoules; gradient descent flies off at once."""
    x, y = regression(1200, seed=71)
    net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
    module = _Squares(net, torch.optim.SGD, lr=1e-2)
    return _run(module, x, 60000 + 15000 * y[:, 0].astype("float64"), size=24)


@enter(
    runaway("DATA502"),
    "https://github.com/blackportal-ai/delta/issues/248",
    "https://github.com/keras-team/keras/issues/18919",
)
def mountain_huts_with_metres_and_beds() -> LightningRun:
    """Height in metres, beds, inhabitants of the valley: raw columns, and only the target is on a scale of 1."""
    rng = np.random.default_rng(7503)
    easy = rng.normal(size=(24 * 45, 4))
    raw = easy * [700, 40, 9000, 3] + [1800, 70, 20000, 6]
    net = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 1))
    return _run(_Squares(net, torch.optim.SGD, lr=1e-2), raw, easy[:, 0] - easy[:, 2], size=24)


class Bumps(nn.Module):
    """Units with a centre each, that answer to what is near (radial basis functions)."""

    def __init__(self) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.randn(40, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(-(x[:, None] - self.centre).square().sum(2) / 2)


@enter(
    finite(Happens.STALL, ("DATA502",)),
    "https://scikit-learn.org/stable/modules/preprocessing.html",
    "https://datarekha.com/interview/deep-learning/debugging-model-not-learning/",
)
def colours_far_from_every_centre() -> LightningRun:
    """Centres begin around 0 with a width of 1, colours lie between 40 and 220: no unit answers to any of them."""
    return _run(_Squares(nn.Sequential(Bumps(), nn.Linear(40, 1)), lr=1e-2), *_colours(), size=36)


def _colours() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7504)
    easy = rng.normal(size=(36 * 40, 3))
    return np.clip(130 + 30 * easy, 40, 220), np.tanh(easy[:, 0]) - np.tanh(easy[:, 1])


@enter(
    finite(Happens.STALL, ("ACT302", "DATA502")),
    "https://answerofmath.com/solved-neural-network-for-regression-actual-data-vs-predicted-data/",
    "https://github.com/keras-team/keras/issues/18919",
)
def houses_by_their_year() -> LightningRun:
    """Years of construction and of repair go into tanh units as they are: 1930 or 2010, each unit says 1 or -1."""
    net = nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 1))
    return _run(_Squares(net, lr=1e-3), *_houses(), size=24)


def _houses() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7505)
    built = rng.integers(1900, 2020, 24 * 50)
    repaired = np.minimum(built + rng.integers(0, 90, len(built)), 2024)
    return np.stack([built, repaired], 1).astype("float64"), (built - 1960) / 35 + (repaired - 1995) / 25


@enter(
    finite(Happens.STALL, ("ACT303", "ACT304", "DATA502")),
    "https://discuss.pytorch.org/t/cross-entropy-loss-is-not-decreasing/43814/16",
    "https://pytorch.org/docs/stable/generated/torch.nn.ReLU.html",
)
def masts_in_decibels() -> LightningRun:
    """Signals are -30 to -120 decibels, weights were drawn from 0 to 1: each rectifier is at 0 for every phone."""
    return _run(_mast(lambda weight: nn.init.uniform_(weight, 0, 1)), *_signals(), size=24)


def _mast(draw: Any) -> LightningModule:
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
    draw(net[0].weight)
    return _Squares(net, lr=3e-3)


def _signals() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7506)
    level = rng.uniform(-120, -30, (24 * 50, 6))
    return level, (level[:, 0] - level[:, 3]) / 37


# -- first weights ---------------------------------------------------------------------------------------------------


class Kinds(LightningModule):
    """Names digits by whatever network is given."""

    def __init__(self, net: nn.Module, kind: type = torch.optim.Adam, **settings: Any) -> None:
        super().__init__()
        self.net, self.kind, self.settings = net, kind, settings

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        image, label = batch
        return F.cross_entropy(self.net(image), label)

    def configure_optimizers(self) -> Any:
        return self.kind(self.parameters(), **self.settings)


def _tower(depth: int, between: type, draw: Any = None) -> nn.Module:
    parts = [part for _ in range(depth) for part in (nn.Linear(64, 64), between())]
    for part in parts:
        if draw and isinstance(part, nn.Linear):
            draw(part.weight)
            nn.init.zeros_(part.bias)
    return nn.Sequential(*parts, nn.Linear(64, 10))


@enter(
    finite(Happens.STALL, ("ACT304", "GRAD202")),
    "https://pytorch.org/docs/stable/nn.init.html",
    "https://github.com/SilasMarvin/dnns-from-scratch-in-zig/pull/7",
)
def weights_of_a_tiny_truncated_normal() -> LightningRun:
    """Six layers of gelu begin with weights of 0.0002, copied from a model with norms: no signal gets through."""
    net = _tower(6, nn.GELU, lambda weight: nn.init.trunc_normal_(weight, std=0.0002))
    return _run(Kinds(net, lr=1e-3), *digits(1440), size=24)


@enter(
    finite(Happens.STALL, ("GRAD202",)),
    "https://github.com/microsoft/CNTK/issues/476",
    "https://github.com/d2l-ai/d2l-vi/pull/986",
)
def twelve_layers_as_in_the_old_textbook() -> LightningRun:
    """Twelve layers of sigmoids: each of them takes three quarters of the gradient, or more."""
    return _run(Kinds(_tower(12, nn.Sigmoid), lr=1e-3), *digits(1440), size=24)


class Crossed(nn.Module):
    """Products of three projections (a factorised tensor)."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.factors = nn.ParameterList(scale * torch.randn(12, 24) for _ in range(3))
        self.out = nn.Parameter(scale * torch.randn(24, 1))

    def forward(self, x: Tensor) -> Tensor:
        one, two, three = (x @ factor for factor in self.factors)
        return (one * two * three) @ self.out


@enter(
    runaway("ACT304"),
    "https://github.com/pytorch-tpu/transformers/pull/26",
    "https://github.com/AdaptInfer/Contextualized/issues/33",
)
def tensor_factors_from_randn() -> LightningRun:
    """Factors of a trilinear layer are drawn by `randn` with a spread of 1: outputs begin at hundreds and explode."""
    return _run(_crossed(1.0), *_triples(), size=24)


def _crossed(scale: float, rate: float = 1e-2) -> LightningModule:
    return _Squares(Crossed(scale), torch.optim.SGD, lr=rate)


def _triples() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7510)
    x = rng.normal(size=(24 * 50, 12))
    return x, x[:, 0] * x[:, 1] * np.sign(x[:, 2])


class Rebuild(LightningModule):
    """Rebuilds digits from eight numbers."""

    def __init__(self, draw: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(64, 8), nn.Linear(8, 64)
        for layer in (self.encoder, self.decoder):
            draw(layer.weight)
            nn.init.zeros_(layer.bias)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        image, _ = batch
        centred = image - image.mean(0)
        return F.mse_loss(self.decoder(torch.tanh(self.encoder(centred))), centred)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    finite(Happens.STALL, ("ACT305", "ACT304")),
    "https://pytorch.org/docs/stable/nn.init.html",
    "https://github.com/AdaptInfer/Contextualized/issues/33",
)
def code_of_eight_zeros() -> LightningRun:
    """An autoencoder begins with 0 in every weight of both its layers: neither passes a gradient on to the other."""
    return _run(Rebuild(nn.init.zeros_), *digits(1440), size=24)


class Rain(LightningModule):
    """Water in a river after 120 days of rain; rectified units whose matrix begins as the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(2, 16, nonlinearity="relu", batch_first=True)
        nn.init.eye_(self.rnn.weight_hh_l0)
        self.head = nn.Linear(16, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        days, river = batch
        return F.mse_loss(self.head(self.rnn(days)[0][:, -1]).squeeze(1), river)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=3e-4)


@enter(
    runaway(("GRAD203", "OPT601", "ACT304")),
    "https://pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html",
    "https://pytorch.org/docs/stable/generated/torch.nn.RNN.html",
)
def rain_of_a_hundred_and_twenty_days() -> LightningRun:
    """A rectified recurrence over 120 days is multiplied by itself 120 times, and nothing clips what comes back."""
    rng = np.random.default_rng(7512)
    days = rng.exponential(0.5, (16 * 50, 120, 2))
    return _run(Rain(), days, (days[:, :, 0].mean(1) - 0.5) * 10, size=16)
