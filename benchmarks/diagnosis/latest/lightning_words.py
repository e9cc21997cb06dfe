"""Sentences and sequences: masks the wrong way round, positions beyond the table, recurrences that nobody clips."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, non_finite, runaway


def stream(*columns: np.ndarray, size: int = 24) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*map(torch.from_numpy, columns)), batch_size=size)


def reviews(rows: int, words: int, longest: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Word numbers padded with 0, lengths below `longest`, and whether good words (even numbers) prevail."""
    rng = np.random.default_rng(seed)
    length = rng.integers(3, longest, rows)
    text = rng.integers(1, words, (rows, longest)) * (np.arange(longest) < length[:, None])
    good = ((text > 0) & (text % 2 == 0)).sum(1) > ((text > 0) & (text % 2 == 1)).sum(1)
    return text, length, good.astype("float32")


# -- NAN112 ----------------------------------------------------------------------------------------------------------


class SelfAttention(nn.Module):
    """One head, written out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).transpose(1, 2) / math.sqrt(x.shape[-1])
        weights = F.softmax(scores.masked_fill(mask.unsqueeze(1), float("-inf")), dim=-1)
        return x + weights @ self.value(x)


class ReviewTransformer(LightningModule):
    """Mood of a review by attention over its words."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(60, 16, padding_idx=0)
        self.attend = SelfAttention(16)
        self.out = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        text, good = batch
        is_word = text != 0
        states = self.attend(self.embed(text), is_word)
        return F.binary_cross_entropy_with_logits(self.out(states.mean(1)).squeeze(1), good)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN112", "softmax", "weights = F.softmax(scores.masked_fill(", modules=("attend",), rows=(7, 15)),
    "https://github.com/mlwithme/TransformerTranslation/issues/2",
    "https://github.com/pytorch/pytorch/issues/27968",
    "https://github.com/pytorch/pytorch/issues/40932",
)
def mask_the_wrong_way_round() -> LightningRun:
    """masked_fill gets a mask that is true for words, so it hides the words; two reviews have no padding at all."""
    text, _, good = reviews(24 * 45, 60, 14, 1201)
    rng = np.random.default_rng(1201)
    for row in (29 * 24 + 7, 29 * 24 + 15):
        text[row] = rng.integers(1, 60, 14)
    return LightningRun(ReviewTransformer(), stream(text, good), {"max_epochs": 1})


# -- DATA511 ---------------------------------------------------------------------------------------------------------


class WithPositions(nn.Module):
    """Embeddings of words and of places."""

    def __init__(self, words: int, places: int, width: int) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(words, width), nn.Embedding(places, width)

    def forward(self, text: Tensor) -> Tensor:
        return self.token(text) + self.position(torch.arange(text.shape[1]))


class LanguageModel(LightningModule):
    """Next word by a convolution over the words before."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = WithPositions(40, 24, 20)
        self.mix, self.out = nn.Conv1d(20, 20, 3), nn.Linear(20, 40)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        states = F.pad(self.embed(batch).transpose(1, 2), (2, 0))
        logits = self.out(F.relu(self.mix(states)).transpose(1, 2))
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("DATA511",),
        kind="exception",
        operations=("IndexError",),
        modules=("position", "embed"),
        line="return self.token(text) + self.position(",
        rows=None,
    ),
    "https://github.com/huggingface/transformers/issues/15867",
    "https://github.com/ajhalthor/Transformer-Neural-Network/issues/13",
    "https://github.com/abhishekkrthakur/bert-sentiment/issues/6",
)
def sentence_of_thirty_words() -> LightningRun:
    """The table of positions has 24 places; batches are as long as their longest sentence, and one has 30 words."""
    rng = np.random.default_rng(1202)
    lengths = [30 if number == 35 else int(rng.integers(9, 24)) for number in range(50)]
    batches = []
    for length in lengths:
        text = np.cumsum(rng.integers(0, 3, (16, length)), 1) % 40
        batches.append(torch.from_numpy(text))
    return LightningRun(LanguageModel(), DataLoader(batches, batch_size=None), {"max_epochs": 1})  # type: ignore[arg-type]


# -- GRAD203, OPT601 -------------------------------------------------------------------------------------------------


class Adding(LightningModule):
    """The adding problem: two numbers out of a hundred are marked, and their sum is wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(2, 64, nonlinearity="relu", batch_first=True)
        nn.init.orthogonal_(self.rnn.weight_hh_l0, gain=1.3)
        self.head = nn.Linear(64, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        numbers, total = batch
        states, _ = self.rnn(numbers)
        return F.mse_loss(self.head(states[:, -1]), total)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


@enter(
    runaway(("GRAD203", "OPT601")),
    "https://github.com/Marcovaldong/lstmp.pytorch/issues/2",
    "https://github.com/austineaero/Remaining-Useful-Life-RUL-Estimation/issues/19",
    "https://github.com/horenbergerb/BernoulliDiffusion/issues/15",
)
def two_numbers_of_a_hundred() -> LightningRun:
    """A rectified recurrence over a hundred moments, without clipping: a cliff, one overlong step, and it is gone."""
    rng = np.random.default_rng(1203)
    value = rng.uniform(0, 1, (24 * 60, 100)).astype("float32")
    mark = np.zeros_like(value)
    for row in mark:
        row[rng.choice(100, 2, replace=False)] = 1
    total = (value * mark).sum(1, keepdims=True)
    return LightningRun(Adding(), stream(np.stack([value, mark], -1), total), {"max_epochs": 1})


class TinyEncoder(LightningModule):
    """Two encoder layers and a mean, as the tutorial has it, but for the rate."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(24, 3, 48, dropout=0.0, batch_first=True)
        self.embed, self.encoder = nn.Embedding(60, 24), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(24, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        text, good = batch
        states = self.encoder(self.embed(text), src_key_padding_mask=text == 0)
        return F.binary_cross_entropy_with_logits(self.out(states.mean(1)), good.unsqueeze(1))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.1)


@enter(
    finite(Happens.STALL, "OPT601", rows=None),
    "https://github.com/rajveermalviya/language-modeling/issues/3",
    "https://github.com/PeizeSun/OneNet/issues/18",
    "https://github.com/BobLiu20/FaceRecognition_PyTorch/issues/2",
)
def adam_at_a_tenth() -> LightningRun:
    """A transformer under Adam with a learning rate of 0.1: it learns nothing at all."""
    text, _, good = reviews(24 * 50, 60, 14, 1204)
    return LightningRun(TinyEncoder(), stream(text, good), {"max_epochs": 2})


class Averaged(LightningModule):
    """Small batches, accumulated by hand."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.parts = parts
        self.gru, self.head = (
            nn.GRU(1, 24, batch_first=True),
            nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1)),
        )

    def training_step(self, batch: Any, batch_idx: int) -> None:
        wave, following = batch
        optimizer: Any = self.optimizers()
        loss = F.mse_loss(self.head(self.gru(wave)[0][:, -1]), following)
        self.manual_backward(loss)
        if (batch_idx + 1) % self.parts == 0:
            optimizer.step()
            optimizer.zero_grad()
        self.log("loss", loss)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.15, momentum=0.9)


@enter(
    runaway(("OPT601", "GRAD203")),
    "https://github.com/fastai/fastai/issues/3023",
    "https://github.com/hirofumi0810/neural_sp/issues/168",
    "https://github.com/ApolloResearch/e2e_sae/pull/70",
)
def sixteen_batches_summed() -> LightningRun:
    """Gradients of sixteen batches are accumulated and never divided: the step is sixteen times the one intended."""
    rng = np.random.default_rng(1205)
    phase, pace = rng.uniform(0, 6, (1200, 1)), rng.uniform(0.1, 0.5, (1200, 1))
    wave = 3 * np.sin(phase + pace * np.arange(21)).astype("float32")
    return LightningRun(Averaged(16), stream(wave[:, :-1, None], wave[:, -1:], size=8), {"max_epochs": 1})
