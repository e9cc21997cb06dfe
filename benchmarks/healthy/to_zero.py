"""Runs whose loss falls towards zero by many orders of magnitude, or is exactly zero in many batches."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.healthy.digits import digits, digits_cnn
from benchmarks.healthy.registry import Parts, healthy_run
from benchmarks.healthy.supervised import Supervised, adam, mlp, sgd, shuffled


@healthy_run("batches of 4 learnt to a loss below 1e-6, among them a few mislabelled samples")
def overfit_with_hard_batches(seed: int) -> Parts:
    inputs, labels = digits()
    inputs, labels = inputs[:600], labels[:600].clone()
    labels[::120] = (labels[::120] + 1) % 10
    module = Supervised(mlp(64, 128, 10), F.cross_entropy, adam(5e-3))
    return module, shuffled(inputs, labels, batch_size=4, seed=seed), {"max_steps": 1500}


@healthy_run("a small set learnt by heart, full batches, down to a loss below 1e-6")
def overfit_full_batch(seed: int) -> Parts:
    inputs, labels = digits()
    module = Supervised(digits_cnn(), F.cross_entropy, adam(2e-2))
    return module, shuffled(inputs[:64], labels[:64], batch_size=64, seed=seed), {"max_steps": 900}


@healthy_run("noise-free linear regression: the loss falls by more than 8 orders of magnitude")
def linear_regression(seed: int) -> Parts:
    inputs = torch.randn(256, 8)
    targets = inputs @ torch.randn(8, 1) * 10 + 3
    module = Supervised(nn.Linear(8, 1), F.mse_loss, sgd(0.015))
    return module, shuffled(inputs, targets, batch_size=32, seed=seed), {"max_steps": 800}


@healthy_run("Adam on an ill-conditioned quadratic at a high rate: it oscillates five orders below its start")
def adam_on_quadratic(seed: int) -> Parts:
    inputs = torch.randn(256, 12) * torch.logspace(-1, 1, 12)
    targets = 3 * inputs @ torch.randn(12, 1) + 0.1 * torch.randn(256, 1)
    module = Supervised(nn.Linear(12, 1, bias=False), F.mse_loss, adam(0.3))
    return module, shuffled(inputs, targets, batch_size=64, seed=seed), {"max_steps": 700}


class MarginLoss(nn.Module):
    """The multi-class hinge loss: exactly zero, with zero gradients, once every margin is kept."""

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        return F.multi_margin_loss(scores, labels)


@healthy_run("hinge loss: exactly zero in most batches of the second half, now and then a hard one")
def hinge_loss(seed: int) -> Parts:
    inputs, labels = digits()
    module = Supervised(mlp(64, 64, 10), MarginLoss(), adam(2e-3))
    return module, shuffled(inputs, labels, batch_size=8, seed=seed), {"max_steps": 1200}


class Triplets(Supervised):
    """Anchor, positive and negative embedded by one network."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        anchor, positive, negative = (F.normalize(self(part)) for part in batch)
        loss = F.triplet_margin_loss(anchor, positive, negative, margin=0.3)
        self.log("train_loss", loss)
        return loss


@healthy_run("triplet loss on batches of 6: many batches have loss and gradients of exactly zero")
def triplet_ranking(seed: int) -> Parts:
    inputs, labels = digits()
    order = torch.randperm(len(labels))
    anchors = order[:900]
    positives = torch.stack([order[labels[order] == labels[i]][int(i) % 100] for i in anchors])
    negatives = torch.stack([order[labels[order] != labels[i]][int(i) % 1000] for i in anchors])
    module = Triplets(mlp(64, 64, 16), F.mse_loss, adam(1e-3))
    loader = shuffled(inputs[anchors], inputs[positives], inputs[negatives], batch_size=6, seed=seed)
    return module, loader, {"max_steps": 1000}
