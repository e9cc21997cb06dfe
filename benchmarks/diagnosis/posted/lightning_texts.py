"""Texts: taggers, decoders, summaries and names; masks, padding and words that nobody expected."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, non_finite


def sentences(rows: int, longest: int, words: int, seed: int, shortest: int = 4) -> np.ndarray:
    """Word numbers from 1 that drift from word to word, padded with 0 behind."""
    rng = np.random.default_rng(seed)
    text = 1 + np.cumsum(rng.integers(0, 4, (rows, longest)), 1) % (words - 1)
    return text * (np.arange(longest) < rng.integers(shortest, longest + 1, rows)[:, None])


# -- tagging ---------------------------------------------------------------------------------------------------------


class CRF(nn.Module):
    """A linear chain; the sum over all paths by the forward algorithm."""

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.change = nn.Parameter(torch.zeros(tags, tags))

    def forward(self, scores: Tensor, tags: Tensor, seen: Tensor) -> Tensor:
        weights = scores.exp()
        paths = weights[:, 0]
        for place in range(1, scores.shape[1]):
            reached = paths @ self.change.exp() * weights[:, place]
            paths = torch.where(seen[:, place, None], reached, paths)
        log_total = paths.sum(1).log()
        gold = (scores.gather(2, tags.unsqueeze(2)).squeeze(2) * seen).sum(1)
        gold = gold + (self.change[tags[:, :-1], tags[:, 1:]] * seen[:, 1:]).sum(1)
        return (log_total - gold).mean()


class Tagger(LightningModule):
    """BiLSTM and a conditional random field on top."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16, padding_idx=0)
        self.lstm = nn.LSTM(16, 12, batch_first=True, bidirectional=True)
        self.scores, self.crf = nn.Linear(24, 6), CRF(6)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        text, tags = batch
        return self.crf(self.scores(self.lstm(self.embed(text))[0]), tags, text != 0)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite(
        "NAN110",
        ("multiply", "matmul", "sum"),
        ("reached = paths @ self.change.exp() * weights[:, place]", "log_total = paths.sum(1).log()"),
        modules=("crf",),
        rows=(5,),
    ),
    "https://github.com/allanj/pytorch_neural_crf/issues/4",
    "https://github.com/mlberkeley/scae-pytorch/pull/4",
)
def paths_through_a_long_sentence() -> LightningRun:
    """The forward algorithm multiplies weights instead of adding scores; over one list of 64 words they overflow."""
    batches = []
    for number in range(45):
        text = sentences(12, 64 if number == 27 else 14, 50, 1700 + number)
        if number == 27:
            text[np.arange(12) != 5, 14:] = 0
            text[5] = 1 + np.arange(64) % 49
        batches.append([torch.from_numpy(text), torch.from_numpy(text % 6)])
    return LightningRun(Tagger(), DataLoader(batches, batch_size=None), {"max_epochs": 1})  # type: ignore[arg-type]


class SmoothedLoss(nn.Module):
    """Cross entropy with smoothed labels; places labelled -100 do not count."""

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = F.log_softmax(logits, -1)
        right = log_p.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        losses = (1 - self.smoothing) * right + self.smoothing * log_p.mean(-1)
        counts = labels != -100
        return -(losses * counts).sum() / counts.sum()


class EntityModel(LightningModule):
    """A tag for each word by a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(60, 16, padding_idx=0), nn.Conv1d(16, 24, 3, padding=1)
        self.out, self.criterion = nn.Linear(24, 6), SmoothedLoss(0.1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        text, tags = batch
        states = F.relu(self.mix(self.embed(text).transpose(1, 2))).transpose(1, 2)
        return self.criterion(self.out(states), tags)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("DATA505",),
        kind="exception",
        operations=("RuntimeError", "IndexError"),
        modules=("criterion",),
        line="right = log_p.gather(-1, labels.unsqueeze(-1))",
        rows=(2, 9),
    ),
    "https://github.com/pytorch/pytorch/issues/72056",
    "https://github.com/pytorch/pytorch/issues/69339",
    "https://github.com/yiyixuxu/polyloss-pytorch/issues/4",
)
def smoothing_of_an_ignored_label() -> LightningRun:
    """Label smoothing by hand picks the labels before it leaves out those of -100; two sentences carry such labels."""
    text = sentences(16 * 45, 10, 60, 1702, shortest=10)
    tags = text % 6
    for row in (22 * 16 + 2, 22 * 16 + 9):
        text[row, 7:], tags[row, 7:] = 0, -100
    return LightningRun(EntityModel(), in_order(text, tags, size=16), {"max_epochs": 1})


# -- decoders --------------------------------------------------------------------------------------------------------


class CausalAttention(nn.Module):
    """One head that sees what came before, and no padding."""

    def __init__(self, width: int, hidden: float) -> None:
        super().__init__()
        self.hidden = hidden
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, is_word: Tensor) -> Tensor:
        query, key, value = self.project(x).chunk(3, -1)
        scores = query @ key.transpose(1, 2) / math.sqrt(x.shape[-1])
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
        if not is_word.all():
            scores = scores.masked_fill(~is_word[:, None, :], self.hidden)
        weights = scores.softmax(-1)
        return x + self.out(weights @ value)


class Decoder(LightningModule):
    """Predicts the next word."""

    def __init__(self, hidden: float = float("-inf")) -> None:
        super().__init__()
        self.embed, self.attend = nn.Embedding(40, 24), CausalAttention(24, hidden)
        self.norm, self.out = nn.LayerNorm(24), nn.Linear(24, 40)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (text,) = batch
        logits = self.out(self.norm(self.attend(self.embed(text), text != 0)))
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), text[:, 1:].flatten(), ignore_index=0)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.2)


@enter(
    non_finite("NAN112", "softmax", "weights = scores.softmax(-1)", modules=("attend",), rows=(4, 13)),
    "https://github.com/unslothai/unsloth/pull/9848",
    "https://github.com/allenai/allennlp/issues/890",
)
def padding_on_the_left() -> LightningRun:
    """Texts are cut to equal length; two shorter ones are padded on the left, where a causal mask leaves no key."""
    text = sentences(16 * 45, 12, 40, 1703, shortest=12)
    for row in (26 * 16 + 4, 26 * 16 + 13):
        text[row, :4] = 0
    return LightningRun(Decoder(), in_order(text, size=16), {"max_epochs": 1})


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("OPT604",),
        kind="exception",
        operations=("RuntimeError",),
        modules=("attend",),
        line="scores = scores.masked_fill(~is_word",
        rows=None,
    ),
    "https://github.com/NVIDIA/apex/issues/1052",
    "https://github.com/NVIDIA/apex/issues/1105",
    "https://github.com/QwenLM/Qwen/issues/32",
)
def minus_a_billion_in_half_precision() -> LightningRun:
    """Hidden keys are filled with -1e9, which half precision cannot hold; the first padded texts come in batch 24."""
    text = sentences(16 * 40, 12, 40, 1704, shortest=12)
    text[24 * 16 :] = sentences(16 * 16, 12, 40, 1714)
    return LightningRun(Decoder(-1e9), in_order(text, size=16), {"max_epochs": 1, "precision": "16-true"})


# -- summaries -------------------------------------------------------------------------------------------------------


class PointerGenerator(LightningModule):
    """The next word is generated from the vocabulary or copied from the source; words behind 30 can only be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.query = nn.Embedding(31, 24), nn.Embedding(31, 24)
        self.generate, self.switch = nn.Linear(24, 30), nn.Linear(24, 1)

    def mixture(self, source: Tensor, before: Tensor) -> Tensor:
        states, query = self.embed(source.clamp(max=30)), self.query(before.clamp(max=30))
        attention = (states @ query.unsqueeze(2)).squeeze(2).softmax(1)
        context = (attention.unsqueeze(1) @ states).squeeze(1) + query
        share = self.switch(context).sigmoid()
        words = F.pad(share * self.generate(context).softmax(1), (0, 10))
        return words.scatter_add(1, source, (1 - share) * attention)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        source, before, target = batch
        chosen = self.mixture(source, before).gather(1, target.unsqueeze(1))
        return -torch.log(chosen).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite("NAN111", "log", "return -torch.log(chosen).mean()", modules=("",), rows=(10,)),
    "https://github.com/abisee/pointer-generator/issues/4",
)
def name_that_is_not_in_the_source() -> LightningRun:
    """A rare name can only be copied; in one summary it stands although the shortened source has lost it."""
    rng = np.random.default_rng(1705)
    source = rng.integers(0, 40, (20 * 45, 9))
    before, target = source[:, 3].copy(), source[:, 4].copy()
    row = 31 * 20 + 10
    source[row], target[row] = rng.integers(0, 30, 9), 36
    return LightningRun(PointerGenerator(), in_order(source, before, target, size=20), {"max_epochs": 1})
