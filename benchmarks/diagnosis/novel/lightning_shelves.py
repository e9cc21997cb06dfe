"""What is near to what, in Lightning: metric learning, recommendations, fine-tuned heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, enter, finite, non_finite
from benchmarks.diagnosis.tables import digits


class Proxies(LightningModule):
    """One proxy for each class; the loss as in the paper, with the other proxies alone below the line."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
        self.proxies = nn.Parameter(torch.randn(10, 16) / 4)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch
        near = torch.exp(-torch.cdist(self.embed(images), self.proxies).square())
        own = F.one_hot(labels, 10).bool()
        others = torch.log(near.masked_fill(own, 0.0).sum(1))
        return (others - torch.log(near[own].clamp(min=1e-30))).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


@enter(
    non_finite("NAN111", "log", "others = torch.log(near.masked_fill", modules=("",), rows=None),
    "https://github.com/euwern/proxynca_pp/issues/6",
    "https://github.com/KevinMusgrave/pytorch-metric-learning/issues/206",
)
def proxies_that_are_pushed_away() -> LightningRun:
    """The other proxies are pushed away for ever; from a distance of ten on exp(-d²) is 0, and so is their sum."""
    images, labels = digits(1280)
    return LightningRun(Proxies(), in_order(images, labels, size=32), {"max_epochs": 3})


class Towers(LightningModule):
    """Towers for readers and for books; other books of the batch are the negatives, corrected by popularity."""

    def __init__(self, popularity: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("popularity", torch.from_numpy(popularity))
        self.readers, self.books = nn.Linear(12, 16), nn.Embedding(len(popularity), 16)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        reader, book = batch
        scores = self.readers(reader) @ self.books(book).T
        corrected = scores - torch.log(self.popularity[book])
        return F.cross_entropy(corrected, torch.arange(len(book)))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


@enter(
    non_finite("NAN111", "log", "corrected = scores - torch.log(self.popularity[book])", modules=("",), rows=(20,)),
    "https://github.com/NVIDIA-Merlin/models/pull/1051",
    "https://github.com/tensorflow/recommenders/issues/257",
)
def book_that_had_not_been_lent_yet() -> LightningRun:
    """Popularity was counted last month; a book that came since has a share of 0, and its score is less log 0."""
    rng = np.random.default_rng(1)
    book = rng.integers(0, 50, 1280)
    book[34 * 32 + 20] = 50
    popularity = np.append(np.bincount(book[book < 50], minlength=50) / 1280, 0.0).astype("float32")
    taste = rng.normal(size=(51, 12))
    reader = (taste[book] + 0.5 * rng.normal(size=(1280, 12))).astype("float32")
    return LightningRun(Towers(popularity), in_order(reader, book, size=32), {"max_epochs": 1})


class Tuned(LightningModule):
    """A frozen body with a head for the new classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 64), nn.ReLU()).requires_grad_(False)
        self.head = nn.Linear(64, 1000)

    def on_train_start(self) -> None:
        self.head = nn.Linear(64, 10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.head(self.body(images)), labels)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    finite(Happens.STALL, "OPT608"),
    "https://github.com/Lightning-AI/pytorch-lightning/issues/9982",
    "https://github.com/Lightning-AI/pytorch-lightning/pull/19067",
)
def head_that_was_swapped_at_the_start() -> LightningRun:
    """The head for the new classes is put in when training starts: the optimizer has got the weights of the old one."""
    images, labels = digits(1280)
    return LightningRun(Tuned(), in_order(images, labels, size=32), {"max_epochs": 2})
