"""Tagging, attention over words, transcripts, adapters: models of sequences of symbols with one mistake each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, healthy, non_finite
from benchmarks.diagnosis.tables import digits


def loader(*columns: np.ndarray, size: int = 32) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*(torch.as_tensor(column) for column in columns)), batch_size=size)


# -- a conditional random field --------------------------------------------------------------------------------------


class Tagger(LightningModule):
    """Names in sentences: O, B, I; the grammar forbids I after O."""

    def __init__(self) -> None:
        super().__init__()
        self.emission = nn.Sequential(nn.Embedding(60, 16), nn.Linear(16, 3))
        self.transition = nn.Parameter(torch.zeros(3, 3))
        allowed = torch.zeros(3, 3)
        allowed[0, 2] = -math.inf
        self.register_buffer("grammar", allowed)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        words, tags = batch
        score, step = self.emission(words), self.transition + self.grammar
        gold = score.gather(2, tags[..., None]).squeeze(2).sum(1) + step[tags[:, :-1], tags[:, 1:]].sum(1)
        total = score[:, 0]
        for position in range(1, words.shape[1]):
            total = torch.logsumexp(total[:, :, None] + step, 1) + score[:, position]
        return (total.logsumexp(1) - gold).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def tagged(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    tags = np.zeros((rows, 10), "int64")
    for row in range(rows):
        start = rng.integers(0, 8)
        tags[row, start] = 1
        tags[row, start + 1 : start + 1 + rng.integers(0, 3)] = 2
    return tags * 20 + rng.integers(0, 20, tags.shape), tags


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("DATA505", "DATA504"), rows=(9,)),
    "https://github.com/kmkurn/pytorch-crf/issues/90",
    "https://github.com/lonePatient/BERT-NER-Pytorch/issues/64",
    "https://github.com/guillaumegenthial/tf_ner/issues/17",
)
def tags_that_the_grammar_forbids() -> LightningRun:
    """A random field gives forbidden transitions a score of minus infinity; one sentence is tagged O, I by mistake."""
    words, tags = tagged(32 * 40, 7401)
    tags[27 * 32 + 9] = (0, 0, 2, 2, 0, 0, 0, 0, 0, 0)
    return LightningRun(Tagger(), loader(words, tags), {"max_epochs": 1})


@enter(
    healthy(),
    "https://github.com/kmkurn/pytorch-crf/issues/90",
    "https://github.com/keras-team/keras-contrib/issues/235",
)
def grammar_with_a_score_of_minus_infinity() -> LightningRun:
    """The same field with an infinity in its transitions and no sentence against the grammar."""
    return LightningRun(Tagger(), loader(*tagged(32 * 40, 7402)), {"max_epochs": 1})


# -- attention over words --------------------------------------------------------------------------------------------


class CosineAttention(nn.Module):
    """Attention by cosines: queries and keys of unit length and a learnt scale."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(size, size, bias=False) for _ in range(3))
        self.scale = nn.Parameter(torch.tensor(5.0))

    def forward(self, words: Tensor, padding: Tensor) -> Tensor:
        query, key = self.query(words), self.key(words)
        query = query / query.square().sum(-1, keepdim=True).sqrt()
        key = F.normalize(key, dim=-1)
        score = self.scale * query @ key.transpose(1, 2)
        return score.masked_fill(padding[:, None, :], -1e9).softmax(-1) @ self.value(words)


class Topics(LightningModule):
    """Topics of headlines: an encoder that ignores padding, mean over the words that are there."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(80, 24, padding_idx=0)
        self.attention = CosineAttention(24)
        self.head = nn.Linear(24, 4)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        tokens, topics = batch
        padding = tokens == 0
        words = self.embedding(tokens)
        words = words + self.attention(words, padding)
        there = (~padding).float()[..., None]
        return F.cross_entropy(self.head((words * there).sum(1) / there.sum(1)), topics)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def headlines(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    topics = rng.integers(0, 4, rows)
    own = rng.random((rows, 12)) < 0.5
    tokens = np.where(own, 2 + topics[:, None] * 18 + rng.integers(0, 18, (rows, 12)), rng.integers(2, 80, (rows, 12)))
    return tokens, topics


@enter(
    non_finite(
        "NAN112",
        ("div", "divide", "truediv"),
        "query = query / query.square().sum(-1, keepdim=True).sqrt()",
        modules=("attention",),
        rows=(18,),
    ),
    "https://github.com/torch/nn/pull/444",
    "https://github.com/pytorch/pytorch/pull/9448",
)
def headline_that_had_to_be_padded() -> LightningRun:
    """Queries are divided by their length, and padding is a vector of zeros; one headline is shorter than the rest."""
    tokens, topics = headlines(32 * 45, 7403)
    tokens[35 * 32 + 18, 8:] = 0
    return LightningRun(Topics(), loader(tokens, topics), {"max_epochs": 1})


@enter(
    finite(Happens.STALL, "DATA506"),
    "https://github.com/daniel-kukiela/nmt-chatbot/issues/13",
)
def headlines_in_an_alphabet_of_strangers() -> LightningRun:
    """The vocabulary was built for another alphabet: each word of each headline is the unknown word, number 1."""
    tokens, topics = headlines(32 * 40, 7404)
    return LightningRun(Topics(), loader(np.ones_like(tokens), topics), {"max_epochs": 2})


class RawAttention(nn.Module):
    """Scores without the root of the size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        score = torch.matmul(self.query(x), self.key(x).transpose(1, 2))
        return torch.matmul(score.softmax(-1), self.value(x))


class HalfEncoder(LightningModule):
    """An encoder of eight vectors, all of it in float16."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = RawAttention(32)
        self.head = nn.Linear(32, 3)
        self.half()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        vectors, kinds = batch
        hidden = self.attention(vectors.half()).mean(1)
        return F.cross_entropy(self.head(hidden).float(), kinds)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


@enter(
    non_finite(
        ("OPT604", "NAN110", "DATA503"),
        ("matmul", "bmm", "baddbmm"),
        "score = torch.matmul(self.query(x), self.key(x).transpose(1, 2))",
        modules=("attention",),
        rows=(5,),
    ),
    "https://github.com/pytorch/pytorch/issues/60939",
    "https://github.com/huggingface/transformers/pull/17437",
)
def scores_beyond_what_half_can_hold() -> LightningRun:
    """Attention in float16 without the root of its size; the scores of one loud sample are beyond 65504."""
    rng = np.random.default_rng(7405)
    kinds = rng.integers(0, 3, 32 * 40)
    vectors = rng.normal(size=(len(kinds), 8, 32)).astype("float32")
    vectors[np.arange(len(kinds)), :, kinds] += 2
    vectors[30 * 32 + 5] *= 300
    return LightningRun(HalfEncoder(), loader(vectors, kinds), {"max_epochs": 1})


# -- adapters --------------------------------------------------------------------------------------------------------


class Adapted(nn.Module):
    """A frozen layer and beside it a narrow one of two factors, which are kept in a list."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.factors = [nn.Linear(inputs, 4, bias=False), nn.Linear(4, outputs, bias=False)]
        nn.init.zeros_(self.factors[1].weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 8 * self.factors[1](self.factors[0](x))


class FineTuned(LightningModule):
    """A network of frozen layers with adapters."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(Adapted(64, 64), nn.GELU(), Adapted(64, 10))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    finite(Happens.STALL, "OPT608"),
    "https://github.com/pytorch/pytorch/issues/715",
    "https://github.com/pytorch/pytorch/issues/1053",
    "https://github.com/jmtomczak/intro_dgm/issues/6",
)
def adapters_in_a_plain_list() -> LightningRun:
    """The layers are frozen, and their adapters stand in a Python list, where the optimizer does not find them."""
    return LightningRun(FineTuned(), loader(*digits(1280)), {"max_epochs": 2})


class GainTuned(LightningModule):
    """Everything is frozen but the gains, which begin at one; weights of bfloat16 throughout."""

    def __init__(self, form: torch.dtype) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 512).requires_grad_(False), nn.Linear(512, 10).requires_grad_(False)
        self.gains = nn.ParameterList([torch.ones(64), torch.ones(512)])
        self.to(form)
        self.form = form

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        hidden = F.gelu(self.first(batch[0].to(self.form) * self.gains[0]) * 3)
        return F.cross_entropy(self.second(hidden * self.gains[1]).float() * 3, batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.gains.parameters(), lr=1.5e-3)


@enter(
    finite(Happens.STALL, ("OPT604", "OPT602")),
    "https://github.com/pytorch/ao/pull/1124",
    "https://github.com/workofart/ml-by-hand/pull/85",
    "https://github.com/tianweiy/CausVid/issues/19",
)
def gains_that_round_back_to_one() -> LightningRun:
    """Gains of 1 in bfloat16 with a rate of 0.0015: each step is less than half a digit and is rounded away."""
    return LightningRun(GainTuned(torch.bfloat16), loader(*digits(1280)), {"max_epochs": 3})
