"""Embeddings of faces, losses that compare all with all, and a penalty on small weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, enter, finite, non_finite
from benchmarks.diagnosis.tables import digits

# -- comparisons of all with all -------------------------------------------------------------------------------------


class SupervisedContrast(LightningModule):
    """Pictures of one person are drawn together, all others are pushed away."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 16))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        picture, person = batch
        unit = F.normalize(self.net(picture), dim=1)
        alike = unit @ unit.T / 0.5
        others = ~torch.eye(len(unit), dtype=torch.bool)
        log_share = alike - alike.masked_fill(~others, float("-inf")).logsumexp(1, keepdim=True)
        same = (person[:, None] == person[None]) & others
        return -((log_share * same).sum(1) / same.sum(1)).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN112", "divide", "return -((log_share * same).sum(1) / same.sum(1))", modules=("",), rows=(11,)),
    "https://github.com/HobbitLong/SupContrast/issues/141",
    "https://github.com/HobbitLong/SupContrast/issues/50",
    "https://github.com/BorealisAI/ConR/issues/2",
)
def person_who_is_alone_in_the_batch() -> LightningRun:
    """Each anchor divides by the number of its positives; in batch 24 one person has a single picture."""
    pictures, kinds = digits(1797)
    groups = [list(np.flatnonzero(kinds == kind)) for kind in range(10)]
    rng = np.random.default_rng(1603)
    rows: list[int] = []
    for _ in range(40):
        drawn = rng.permutation(10)[:8]
        rows += [int(rng.choice(groups[kind])) for kind in drawn for _ in range(4)]
    chosen, labels = pictures[rows], kinds[rows]
    labels[24 * 32 + 11] = 77
    return LightningRun(SupervisedContrast(), in_order(chosen, labels, size=32), {"max_epochs": 1})


@enter(finite(Happens.STALL, "DATA510"), "https://github.com/HobbitLong/SupContrast/issues/20")
def everybody_is_one_person() -> LightningRun:
    """Names are taken from the wrong level of the path, which is the same for all: everything attracts everything."""
    pictures, kinds = digits(1600)
    paths = [f"faces/train/{kind}/{number}.png" for number, kind in enumerate(kinds)]
    names = sorted({path.split("/")[1] for path in paths})
    labels = np.array([names.index(path.split("/")[1]) for path in paths])
    return LightningRun(SupervisedContrast(), in_order(pictures, labels, size=32), {"max_epochs": 1})


class ArcFace(LightningModule):
    """An additive margin on the angle between a face and its class."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))
        self.centres = nn.Parameter(torch.randn(2, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        face, person = batch
        cosine = F.normalize(self.net(face)) @ F.normalize(self.centres).T
        angle = torch.acos(cosine.clamp(-1, 1))
        margin = 0.2 * F.one_hot(person, 2)
        return F.cross_entropy(8 * torch.cos(angle + margin), person)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN113", "acos", "angle = torch.acos(cosine.clamp(-1, 1))", phase="backward", modules=("",), rows=None),
    "https://github.com/pytorch/pytorch/issues/8069",
    "https://github.com/geoopt/geoopt/pull/79",
    "https://github.com/THUFutureLab/gluon-face/issues/37",
)
def face_at_the_centre_of_its_class() -> LightningRun:
    """The cosine is clamped to [-1, 1], where the slope of acos is infinite; a face comes to lie on its centre."""
    pictures, kinds = digits(1797)
    two = kinds < 2
    return LightningRun(ArcFace(), in_order(pictures[two], kinds[two], size=16), {"max_epochs": 10})


class Bridge(LightningModule):
    """An autoencoder under a root penalty; the smallest weights are cut after a warm-up."""

    def __init__(self, warm_up: int) -> None:
        super().__init__()
        self.warm_up = warm_up
        self.encoder = nn.Linear(64, 40)
        self.decoder = nn.Linear(40, 64)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.global_step == self.warm_up:
            weight = self.encoder.weight.data
            weight[weight.abs() < 0.02] = 0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        rebuilt = self.decoder(torch.tanh(self.encoder(batch[0])))
        return F.mse_loss(rebuilt, batch[0]) + 0.01 * self.encoder.weight.abs().pow(0.5).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite(
        "NAN113",
        ("power", "abs"),
        "+ 0.01 * self.encoder.weight.abs().pow(0.5).mean()",
        phase="backward",
        modules=("",),
    ),
    "https://github.com/Li-Chongyi/Zero-DCE_extension/issues/2",
    "https://github.com/tenstorrent/tt-metal/issues/55585",
)
def weights_that_are_pruned_to_zero() -> LightningRun:
    """The root of each weight is penalised; after 26 steps small weights are cut to 0, where a root has no slope."""
    return LightningRun(Bridge(26), in_order(digits(1600)[0], size=32), {"max_epochs": 1})
