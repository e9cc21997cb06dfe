"""Sparse gradients and contrastive objectives."""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from benchmarks.healthy.digits import digits
from benchmarks.healthy.recurrent import generated_text
from benchmarks.healthy.registry import Parts, healthy_run
from benchmarks.healthy.supervised import mlp, shuffled


def skip_grams(seed: int) -> tuple[Tensor, Tensor, int]:
    """Centre words, their neighbours within two places, and the size of the vocabulary."""
    words = generated_text(seed, 1200).replace(".", "").split()
    codes = {word: code for code, word in enumerate(sorted(set(words)))}
    stream = torch.tensor([codes[word] for word in words])
    pairs = [(stream[:-gap], stream[gap:]) for gap in (1, 2)]
    return torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs]), len(codes)


class SkipGram(LightningModule):
    """Word vectors by negative sampling; both tables have sparse gradients."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, 24, sparse=True)
        self.contexts = nn.Embedding(vocabulary, 24, sparse=True)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        words, contexts = batch
        negatives = torch.randint(0, self.words.num_embeddings, (len(words), 5))
        vectors = self.words(words).unsqueeze(1)
        true = (vectors * self.contexts(contexts).unsqueeze(1)).sum(2)
        false = (vectors * self.contexts(negatives)).sum(2)
        loss = -(F.logsigmoid(true).mean() + F.logsigmoid(-false).sum(1).mean())
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


@healthy_run("skip-gram with sparse gradients and SGD: the loss begins tens of times above its end")
def sparse_skip_gram(seed: int) -> Parts:
    words, contexts, vocabulary = skip_grams(seed)
    return SkipGram(vocabulary), shuffled(words, contexts, batch_size=64, seed=seed), {"max_steps": 1000}


class Recommender(LightningModule):
    """Sparse user and item tables under SparseAdam, a dense scorer under Adam, stepped by hand."""

    def __init__(self, users: int, items: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.users, self.items = nn.Embedding(users, 8, sparse=True), nn.Embedding(items, 8, sparse=True)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.3)
        self.scorer = mlp(16, 32, 1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        users, items, ratings = batch
        scores = self.scorer(torch.cat([self.users(users), self.items(items)], dim=1)).squeeze(1)
        loss = F.mse_loss(scores, ratings)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
        self.log("train_loss", loss)

    def configure_optimizers(self) -> Any:
        tables = [*self.users.parameters(), *self.items.parameters()]
        return [torch.optim.SparseAdam(tables, lr=2e-2), torch.optim.Adam(self.scorer.parameters(), lr=5e-3)]


@healthy_run("recommender: SparseAdam for the tables, Adam for the rest, one backward for two optimizers")
def sparse_adam_recommender(seed: int) -> Parts:
    users, items = torch.randint(0, 60, (8000,)), torch.randint(0, 80, (8000,))
    tastes, styles = torch.randn(60, 2), torch.randn(80, 2)
    ratings = (tastes[users] * styles[items]).sum(1) + 0.3 * torch.randn(8000)
    loader = shuffled(users, items, ratings, batch_size=64, seed=seed)
    return Recommender(60, 80), loader, {"max_steps": 1600}


class QueueContrast(LightningModule):
    """InfoNCE against a queue of past keys that grows from empty, and the loss with its logarithm."""

    def __init__(self, longest: int = 1024) -> None:
        super().__init__()
        self.encoder = mlp(64, 64, 16)
        self.longest = longest
        self.register_buffer("queue", torch.empty(0, 16))

    def embed(self, images: Tensor) -> Tensor:
        return F.normalize(self.encoder(images + 0.3 * torch.randn_like(images)), dim=1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        (images,) = batch
        queries, keys = self.embed(images), self.embed(images)
        scores = queries @ torch.cat([keys, self.queue]).T / 0.1
        loss = F.cross_entropy(scores, torch.arange(len(images)))
        if batch_idx % 2 == 0:
            self.queue = torch.cat([keys.detach(), self.queue])[: self.longest]
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


@healthy_run("InfoNCE with a growing queue: more negatives, a higher loss, then a slow fall")
def info_nce_queue(seed: int) -> Parts:
    inputs, _ = digits()
    return QueueContrast(), shuffled(inputs, batch_size=16, seed=seed), {"max_steps": 900}
