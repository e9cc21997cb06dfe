"""Classifiers under noise: dropout, wrong labels, mixing, decay, rare classes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.healthy.digits import digits, digits_cnn
from benchmarks.healthy.registry import Parts, healthy_run
from benchmarks.healthy.supervised import Supervised, adam, adamw, mlp, sgd, shuffled


@healthy_run("dropout of 70 %: noisy losses and norms throughout")
def dropout_70(seed: int) -> Parts:
    inputs, labels = digits()
    hidden = [nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.7), nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.7)]
    module = Supervised(nn.Sequential(*hidden, nn.Linear(128, 10)), F.cross_entropy, adam(2e-3))
    return module, shuffled(inputs, labels, batch_size=32, seed=seed), {"max_steps": 800}


@healthy_run("30 % of the labels are wrong, and learnt by heart in the end")
def label_noise_30(seed: int) -> Parts:
    inputs, labels = digits()
    wrong = torch.rand(len(labels)) < 0.3
    noisy = torch.where(wrong, torch.randint(0, 10, labels.shape), labels)
    module = Supervised(mlp(64, 256, 10), F.cross_entropy, adam(3e-3))
    return module, shuffled(inputs, noisy, batch_size=32, seed=seed), {"max_steps": 1200}


class Mixup(Supervised):
    """Each batch is blended with a permutation of itself."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, labels = batch
        share = torch.distributions.Beta(0.4, 0.4).sample()
        order = torch.randperm(len(labels))
        scores = self(torch.lerp(inputs[order], inputs, share))
        loss = share * self.loss(scores, labels) + (1 - share) * self.loss(scores, labels[order])
        self.log("train_loss", loss)
        return loss


@healthy_run("mixup and label smoothing: the loss of a batch depends on its drawn share")
def mixup_label_smoothing(seed: int) -> Parts:
    inputs, labels = digits()
    module = Mixup(digits_cnn(), nn.CrossEntropyLoss(label_smoothing=0.1), sgd(0.05, momentum=0.9))
    return module, shuffled(inputs, labels, batch_size=64, seed=seed), {"max_steps": 500}


@healthy_run("heavy weight decay: parameters shrink steadily, the loss rises a little before it settles")
def heavy_weight_decay(seed: int) -> Parts:
    inputs, labels = digits()
    module = Supervised(mlp(64, 128, 10), F.cross_entropy, adamw(3e-3, weight_decay=3.0))
    return module, shuffled(inputs, labels, batch_size=64, seed=seed), {"max_steps": 800}


def focal_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Binary focal loss with gamma 2 and the positives weighted 9 to 1."""
    cross_entropy = F.binary_cross_entropy_with_logits(scores, labels, reduction="none")
    missed = 1 - torch.exp(-cross_entropy)
    return (torch.where(labels > 0, 0.9, 0.1) * missed**2 * cross_entropy).mean()


@healthy_run("focal loss, 2 % positives, batches of 16: most hold none and weigh next to nothing")
def focal_rare_positives(seed: int) -> Parts:
    inputs = torch.randn(6000, 10)
    score = inputs[:, :3].sum(1, keepdim=True) + 0.5 * torch.randn(6000, 1)
    labels = (score > score.quantile(0.98)).float()
    module = Supervised(mlp(10, 32, 1), focal_loss, adam(3e-3))
    return module, shuffled(inputs, labels, batch_size=16, seed=seed), {"max_steps": 1200}


@healthy_run("plain cross-entropy with 1 % positives in batches of 8: a positive multiplies the loss by tens")
def rare_positives(seed: int) -> Parts:
    inputs = torch.randn(8000, 10)
    score = inputs[:, :3].sum(1, keepdim=True) + torch.randn(8000, 1)
    labels = (score > score.quantile(0.99)).float()
    module = Supervised(mlp(10, 32, 1), F.binary_cross_entropy_with_logits, adam(1e-3))
    return module, shuffled(inputs, labels, batch_size=8, seed=seed), {"max_steps": 1200}
