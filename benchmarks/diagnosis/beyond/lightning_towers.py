"""Two towers, half precision by hand, landmarks and money: what scales, counters and rates of groups do to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, non_finite
from benchmarks.diagnosis.tables import digits


def loader(*columns: np.ndarray, size: int = 32) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*(torch.as_tensor(column) for column in columns)), batch_size=size)


# -- two towers ------------------------------------------------------------------------------------------------------


class TwoTowers(LightningModule):
    """Users and films of a batch; every other film is a negative, corrected by how often it is drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.film = nn.Linear(12, 16), nn.Linear(12, 16)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        users, films, frequency = batch
        user, film = F.normalize(self.user(users), dim=1), F.normalize(self.film(films), dim=1)
        correction = torch.log(frequency)
        return F.cross_entropy(user @ film.T / 0.1 - correction, torch.arange(len(users)))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def tastes(rows: int, seed: int, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    users = rng.normal(size=(rows, 12))
    films = users @ np.linalg.qr(rng.normal(size=(12, 12)))[0] + noise * rng.normal(size=(rows, 12))
    frequency = rng.pareto(1.5, rows) * 1e-4 + 1e-5
    return users.astype("float32"), films.astype("float32"), frequency.astype("float32")


@enter(
    non_finite(("NAN111", "DATA505", "DATA503"), "log", "correction = torch.log(frequency)", modules=("",), rows=(23,)),
    "https://github.com/tensorflow/recommenders/pull/441",
    "https://github.com/tensorflow/recommenders/issues/440",
)
def film_that_the_counter_never_saw() -> LightningRun:
    """Scores are corrected by the logarithm of a film's frequency; a new film has been counted no times."""
    users, films, frequency = tastes(32 * 45, 7801)
    frequency[34 * 32 + 23] = 0
    return LightningRun(TwoTowers(), loader(users, films, frequency), {"max_epochs": 1})


class SharpTowers(TwoTowers):
    """The same towers with a learnt scale of the cosines, in a group of its own."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate, self.scale = rate, nn.Parameter(torch.tensor(2.66))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        users, films, _ = batch
        user, film = F.normalize(self.user(users), dim=1), F.normalize(self.film(films), dim=1)
        return F.cross_entropy(self.scale.exp() * user @ film.T, torch.arange(len(users)))

    def configure_optimizers(self) -> Any:
        towers = [*self.user.parameters(), *self.film.parameters()]
        return torch.optim.Adam([{"params": towers, "lr": 3e-3}, {"params": [self.scale], "lr": self.rate}])


@enter(
    finite(Happens.STALL, "OPT601"),
    "https://github.com/mlfoundations/open_clip/issues/815",
    "https://github.com/openai/CLIP/issues/46",
)
def scale_in_a_group_of_its_own() -> LightningRun:
    """The logarithm of a contrastive scale has a group with a rate of 1: a few steps, and the scale is next to zero."""
    return LightningRun(SharpTowers(1.0), loader(*tastes(32 * 40, 7802, 1.5)), {"max_epochs": 2})


# -- half precision by hand ------------------------------------------------------------------------------------------


class StaticScale(LightningModule):
    """Weights and gradients in float16, with a fixed scale of the loss that is taken out before the step."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10)).half()

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        images, labels = batch
        return {"loss": F.cross_entropy(self.net(images.half()).float(), labels) * self.scale}

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        for weight in self.parameters():
            weight.grad /= self.scale

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("OPT604", "NAN110", "DATA502", "DATA512"), phase="backward", rows=None),
    "https://github.com/open-mmlab/mmdetection/issues/3690",
    "https://github.com/NVIDIA/apex/issues/43",
)
def fixed_scale_that_is_too_large_once() -> LightningRun:
    """Float16 with a loss scale of 16384 for ever; a batch of pictures in bytes has gradients beyond 65504."""
    images, labels = digits(1280)
    images[27 * 32 : 28 * 32] *= 255
    return LightningRun(StaticScale(16384.0), loader(images, labels), {"max_epochs": 1})


# -- landmarks -------------------------------------------------------------------------------------------------------


class Landmarks(LightningModule):
    """Where the ink of a digit is heaviest, from -1 to 1 in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    finite(Happens.SPIKE, "DATA504", rows=(14,)),
    "https://github.com/yuanwei1989/landmark-detection/issues/2",
    "https://github.com/facebookresearch/supervision-by-registration/issues/27",
)
def landmark_that_was_left_in_pixels() -> LightningRun:
    """Landmarks were brought to the range from -1 to 1, all but one, which is still in pixels of the scan."""
    images, _ = digits(1280)
    grid = np.linspace(-1, 1, 8)
    ink = images.reshape(-1, 8, 8)
    places = np.stack(((ink.sum(1) * grid).sum(1), (ink.sum(2) * grid).sum(1)), 1) / ink.sum((1, 2))[:, None]
    places[33 * 32 + 14] = (212.0, 148.0)
    return LightningRun(Landmarks(), loader(images, places.astype("float32")), {"max_epochs": 1})


# -- money -----------------------------------------------------------------------------------------------------------


class Revenue(LightningModule):
    """Is the revenue of a shop above the median? Cents sold in six departments, in billions."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        cents, above = batch
        return F.binary_cross_entropy_with_logits(self.net(cents.float() / 1e9), above)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


def revenues(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    pieces, price = rng.integers(1_000, 8_000, (1280, 6)), rng.integers(200_000, 900_000, (1280, 6))
    cents = pieces * price
    total = cents.sum(1)
    return cents, (total > np.median(total)).astype("float32")[:, None]


@enter(
    finite(Happens.STALL, "DATA507"),
    "https://github.com/pandas-dev/pandas/issues/25562",
    "https://github.com/pymc-devs/pymc/issues/4279",
    "https://github.com/facebookresearch/dlrm/issues/394",
)
def revenue_in_thirty_two_bits() -> LightningRun:
    """Pieces times cents in int32: what is beyond two billions has wrapped around, half of it below zero."""
    cents, above = revenues(7708)
    return LightningRun(Revenue(), loader(cents.astype("int32"), above), {"max_epochs": 3})
