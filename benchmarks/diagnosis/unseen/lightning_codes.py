"""Embeddings, tags, codes and energies: spaces with an edge, derivatives by hand, optimizers without epsilon."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, non_finite, runaway
from benchmarks.diagnosis.tables import digits, regression

# -- NAN114 ----------------------------------------------------------------------------------------------------------


class HyperbolicDistance(nn.Module):
    """Distance of two points in the Poincaré ball."""

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        room = (1 - u.pow(2).sum(-1)) * (1 - v.pow(2).sum(-1))
        return torch.acosh(1 + 2 * (u - v).pow(2).sum(-1) / room + 1e-6)


class Taxonomy(LightningModule):
    """Embeds the nodes of a tree, so that a child is closer to its parent than to others."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.place = nn.Embedding(nodes, 3)
        nn.init.uniform_(self.place.weight, -0.2, 0.2)
        self.distance = HyperbolicDistance()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        child, candidates = batch
        distances = self.distance(self.place(child).unsqueeze(1), self.place(candidates))
        return F.cross_entropy(-distances, torch.zeros_like(child))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.3)


@enter(
    non_finite("NAN114", "acosh", "return torch.acosh(1 + 2 * (u - v)", modules=("distance",), rows=None),
    "https://github.com/facebookresearch/poincare-embeddings/issues/86",
    "https://github.com/ferrine/hyrnn/issues/14",
)
def leaves_that_leave_the_ball() -> LightningRun:
    """Hyperbolic embeddings by plain SGD, without a projection: a point leaves the unit ball, where acosh ends."""
    rng = np.random.default_rng(203)
    child = rng.integers(1, 121, 32 * 150)
    candidates = np.concatenate([((child - 1) // 3)[:, None], rng.integers(0, 121, (len(child), 8))], axis=1)
    return LightningRun(Taxonomy(121), in_order(child, candidates, size=32), {"max_epochs": 1})


# -- NAN115 ----------------------------------------------------------------------------------------------------------


class TaggingLoss(torch.autograd.Function):
    """Cross-entropy of tags, where -100 does not count, fused with its gradient."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, tags: Tensor) -> Tensor:
        counts = tags != -100
        log_p = scores.log_softmax(-1)
        ctx.save_for_backward(log_p, tags, counts)
        picked = log_p.gather(-1, tags.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return -(picked * counts).sum() / counts.sum().clamp(min=1)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        log_p, tags, counts = ctx.saved_tensors
        wrong = log_p.exp() - F.one_hot(tags.clamp(min=0), log_p.shape[-1])
        return upstream * wrong * counts.unsqueeze(-1) / counts.sum(), None


class Tagger(LightningModule):
    """Tags of words in sentences."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(80, 16)
        self.context = nn.Conv1d(16, 24, 3, padding=1)
        self.tags = nn.Linear(24, 5)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        hidden = self.context(self.words(batch["words"]).transpose(1, 2)).tanh().transpose(1, 2)
        return TaggingLoss.apply(self.tags(hidden), batch["tags"])

    def configure_optimizers(self) -> Any:
        return torch.optim.NAdam(self.parameters(), lr=2e-3)


@enter(
    non_finite(
        ("NAN115", "NAN112"),
        None,
        ("return TaggingLoss.apply(self.tags(hidden)", "return upstream * wrong * counts.unsqueeze(-1)"),
        kind="operation",
        phase="backward",
        modules=("",),
    ),
    "https://github.com/meta-pytorch/torchtune/issues/2341",
    "https://github.com/pytorch/pytorch/issues/116349",
    "https://github.com/nvidia-cosmos/cosmos-rl/pull/155",
)
def sentences_that_nobody_tagged() -> LightningRun:
    """The loss counts at least one tag, its own derivative does not: a batch without any tag is 0 / 0 in it."""
    rng = np.random.default_rng(204)
    words = rng.integers(0, 80, (50 * 16, 9))
    tags = np.where(rng.random(words.shape) < 0.7, (words + np.roll(words, 1, 1)) % 5, -100)
    tags[27 * 16 : 28 * 16] = -100
    batches = [
        {"words": torch.from_numpy(words[s : s + 16]), "tags": torch.from_numpy(tags[s : s + 16])}
        for s in range(0, len(words), 16)
    ]
    return LightningRun(Tagger(), DataLoader(batches, batch_size=None), {"max_epochs": 1})  # type: ignore[arg-type]


# -- NAN115, NAN110 --------------------------------------------------------------------------------------------------


class FlippedVAE(LightningModule):
    """An autoencoder with a Gaussian code."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(64, 16), nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        mean, log_var = self.encode(batch[0]).chunk(2, -1)
        code = mean + torch.randn_like(mean) * torch.exp(0.5 * log_var)
        error = F.mse_loss(self.decode(code), batch[0], reduction="none").sum(-1)
        divergence = 0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(-1)
        return (error + divergence).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=3e-3, momentum=0.9)


@enter(
    runaway(("NAN115", "NAN110")),
    "https://github.com/wiseodd/generative-models/issues/43",
    "https://github.com/keras-team/keras/issues/4967",
)
def divergence_with_the_wrong_sign() -> LightningRun:
    """The KL term of a VAE has lost its minus: the wider and farther away the code, the lower the loss, without end."""
    images, _ = digits(1600)
    return LightningRun(FlippedVAE(), in_order(images, size=16), {"max_epochs": 4})


# -- ACT302 ----------------------------------------------------------------------------------------------------------


class HashCode(nn.Module):
    """Codes of 24 almost binary numbers."""

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.project, self.sharpness = nn.Linear(48, 24), sharpness

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.sharpness * self.project(x))


class Hashing(LightningModule):
    """Pictures of the same digit should have similar codes."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.code = nn.Sequential(nn.Linear(64, 48), nn.ReLU()), HashCode(300.0)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        image, label = batch
        code = self.code(self.body(image - 0.3))
        likeness = code @ code.T / 6
        same = (label[:, None] == label[None]).float()
        return F.binary_cross_entropy_with_logits(likeness, same)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


@enter(
    finite(Happens.STALL, ("ACT302", "GRAD202")),
    "https://github.com/kevinlin311tw/Caffe-DeepBinaryCode/issues/17",
    "https://github.com/thuml/HashNet/issues/38",
)
def codes_that_are_sharp_at_once() -> LightningRun:
    """A hashing network should sharpen its tanh slowly and starts with the end: every unit is at 1 or -1."""
    return LightningRun(Hashing(), in_order(*digits(1600), size=20), {"max_epochs": 1})


# -- DATA509 ---------------------------------------------------------------------------------------------------------


class TotalEnergy(LightningModule):
    """Energy of a molecule from its descriptors."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        descriptors, energy = batch
        return F.mse_loss(self.net(descriptors), energy)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    finite(Happens.STALL, "DATA509"),
    "https://github.com/deepmodeling/deepmd-kit/pull/1477",
    "https://github.com/isayev/ASE_ANI/issues/12",
    "https://github.com/Benzoin96485/Enerzyme/issues/16",
)
def energy_with_all_its_electrons() -> LightningRun:
    """Targets are total energies, around -76 000 with a spread of 30: the output would have to walk there first."""
    descriptors, spread = regression(32 * 100, seed=301)
    return LightningRun(TotalEnergy(), in_order(descriptors, 30 * spread - 76_000, size=32), {"max_epochs": 1})


# -- OPT605 ----------------------------------------------------------------------------------------------------------


class Sentiment(LightningModule):
    """Mood of a sentence from its words."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.mood = nn.Embedding(60, 12), nn.Linear(12, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        sentence, good = batch
        return F.binary_cross_entropy_with_logits(self.mood(self.words(sentence).mean(1)).squeeze(1), good)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adamax(self.parameters(), lr=0.01, eps=0.0)


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("OPT605",), phase="optimizer", rows=None),
    "https://github.com/ml-explore/mlx/pull/3712",
    "https://github.com/google-deepmind/optax/issues/1754",
)
def words_of_the_second_shard() -> LightningRun:
    """Adamax with eps=0 makes 0 / 0 of every word that the first batch lacks; such words come with the second shard."""
    rng = np.random.default_rng(302)
    sentence = rng.integers(0, 20, (50 * 32, 12))
    sentence[28 * 32 :] = rng.integers(0, 60, (22 * 32, 12))
    good = (sentence % 2).mean(1) > 0.5
    return LightningRun(Sentiment(), in_order(sentence, good.astype("float32"), size=32), {"max_epochs": 1})
