"""Names and vectors of words, and an LSTM that begins with one number."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, bad_batch, enter, finite, non_finite

# -- names and vectors -----------------------------------------------------------------------------------------------


class NameMatcher(LightningModule):
    """Are two spellings one company? Cosine of sums of trigram vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.grams = nn.EmbeddingBag(256, 24, mode="sum", padding_idx=0)
        self.sharpness, self.shift = nn.Parameter(torch.tensor(4.0)), nn.Parameter(torch.tensor(0.0))

    def unit(self, grams: Tensor) -> Tensor:
        total = self.grams(grams)
        return total / total.square().sum(1, keepdim=True).sqrt()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        left, right, same = batch
        cosine = (self.unit(left) * self.unit(right)).sum(1)
        return F.binary_cross_entropy_with_logits(self.sharpness * cosine + self.shift, same)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


def trigrams(name: str) -> list[int]:
    """Numbers from 1 to 255 of all trigrams, padded with 0."""
    found = [1 + sum(ord(c) * 31**i for i, c in enumerate(name[k : k + 3])) % 255 for k in range(len(name) - 2)]
    return (found + [0] * 12)[:12]


@enter(
    non_finite("NAN112", "divide", "return total / total.square().sum(1", modules=("",), rows=(18,)),
    "https://github.com/huggingface/sentence-transformers/issues/625",
    "https://github.com/facebookresearch/fastText/pull/259",
)
def name_of_two_letters() -> LightningRun:
    """A name is the sum of its trigrams, divided by its length; a company of two letters has no trigram."""
    rng = np.random.default_rng(1706)
    letters = np.array(list("abcdefghiklmnoprstuw"))
    names = ["".join(rng.choice(letters, rng.integers(6, 12))) for _ in range(32 * 40)]
    same = rng.random(len(names)) < 0.5
    others = ["".join([*name[:4], "x", *name[5:]]) if same[k] else names[-k] for k, name in enumerate(names)]
    names[23 * 32 + 18] = "hp"
    columns = [np.array([trigrams(name) for name in side]) for side in (names, others)]
    return LightningRun(NameMatcher(), in_order(*columns, same.astype("float32"), size=32), {"max_epochs": 1})


@enter(
    bad_batch(None, (21,)),
    "https://github.com/Lab41/pythia/pull/126",
    "https://github.com/seomoz/word2gauss/issues/22",
)
def headline_of_unknown_words() -> LightningRun:
    """A headline is the mean of the vectors of its known words; one headline has none, and its mean is NaN."""
    rng = np.random.default_rng(1707)
    vectors = rng.normal(size=(80, 16)).astype("float32")
    headlines = [rng.integers(0, 80, rng.integers(3, 9)) for _ in range(32 * 45)]
    headlines[30 * 32 + 21] = np.array([], dtype=int)
    with np.errstate(invalid="ignore"):
        features = np.stack([vectors[known].sum(0) / np.float32(len(known)) for known in headlines])
    about = (np.nan_to_num(features[:, 0]) > 0).astype("float32")
    return LightningRun(Topic(), in_order(features, about, size=32), {"max_epochs": 1})


class Topic(LightningModule):
    """A small classifier of averaged vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features, about = batch
        return F.binary_cross_entropy_with_logits(self.net(features).squeeze(1), about)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


# -- initialisation --------------------------------------------------------------------------------------------------


class SameForAll(LightningModule):
    """An LSTM whose parameters all begin with one number."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 24, batch_first=True), nn.Linear(24, 1)
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        signal, agree = batch
        return F.binary_cross_entropy_with_logits(self.head(self.lstm(signal)[0][:, -1]), agree)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


@enter(finite(Happens.STALL, "ACT305", rows=None), "https://github.com/soumith/net2net.torch/issues/3")
def lstm_of_one_number() -> LightningRun:
    """All parameters of an LSTM begin at 0.1: its 24 units stay one, which cannot tell whether two signs agree."""
    rng = np.random.default_rng(1708)
    signal = rng.normal(size=(32 * 60, 6, 2)).astype("float32")
    agree = (signal[:, -1, :1] * signal[:, -1, 1:] > 0).astype("float32")
    return LightningRun(SameForAll(), in_order(signal, agree, size=32), {"max_epochs": 2})
