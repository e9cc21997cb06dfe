"""Layers and losses that break at an edge: log(0), 0/0, the slope of sqrt at 0, log of a negative."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.faults.faulty_run import FaultyRun
from benchmarks.faults.module import Batch, Built, Corruption, FaultModule, Task, assemble
from benchmarks.faults.non_finite_data import happens
from benchmarks.faults.tasks import MLP_ADAM, MLP_SGD, cross_entropy, mlp

ROWS = 2
RARE = 0.03


class RowStandardised(nn.Module):
    """Standardises each row, with no epsilon: 0/0 on a constant row."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, images: Tensor) -> Tensor:
        centred = images - images.mean(-1, keepdim=True)
        return self.net(centred / centred.square().mean(-1, keepdim=True).sqrt())


class RowLength(nn.Module):
    """Adds the length of each row as a feature, by hand: sqrt has no slope at a blank row's 0."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.net = nn.Linear(64, 32, bias=False), mlp(33)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.embed(images)
        length = hidden.square().sum(-1, keepdim=True).sqrt()
        return self.net(torch.cat([hidden, length], -1))


def masked_loss(net: nn.Module, batch: Batch) -> Tensor:
    """Mean loss over the labelled rows (label -1 = unlabelled): 0/0 when a batch has none."""
    labelled = batch[1] >= 0
    rows = nn.functional.cross_entropy(net(batch[0]), batch[1].clamp(min=0), reduction="none")
    return (rows * labelled).sum() / labelled.sum()


def handmade_loss(net: nn.Module, batch: Batch) -> Tensor:
    """Cross entropy as -log(softmax): log(0) once a probability underflows."""
    probability = net(batch[0]).softmax(-1).gather(1, batch[1][:, None])
    return -probability.log().mean()


def label_entropy(classes: int, net: nn.Module, batch: Batch) -> Tensor:
    """Cross entropy plus p·log(p) of the labels, a constant: NaN if a class is absent, gradients right."""
    share = torch.bincount(batch[1], minlength=classes) / len(batch[1])
    return cross_entropy(net, batch) + 0.01 * (share * share.log()).sum()


class Scaled(nn.Module):
    """Logits times a learnt scale."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.net, self.scale = mlp(), nn.Parameter(torch.tensor(start))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images) * self.scale


def log_scale(pedestal: float, net: nn.Module, batch: Batch) -> Tensor:
    """Cross entropy plus log(scale · contrast): NaN if that is negative, its slope 1 / scale finite."""
    return cross_entropy(net, batch) + 1e-3 * (net.scale * (batch[0].mean() - pedestal)).log()


def _rarely(change: Callable[[Batch], None]) -> Corruption:
    def corrupt(step: int, batch: Batch) -> Batch:
        if happens(step, RARE):
            change(batch)
        return batch

    return corrupt


def _constant_row(batch: Batch) -> None:
    batch[0][:ROWS] = 0.5


def _blank_row(batch: Batch) -> None:
    batch[0][:ROWS] = 0.0


def _loud_row(batch: Batch) -> None:
    batch[0][:ROWS] = batch[0][:ROWS].flip(-1) * 300


def _no_labels(batch: Batch) -> None:
    batch[1].fill_(-1)


def _run(name: str, task: Task, note: str, corrupt: Corruption | None = None, twin: Task | None = None) -> FaultyRun:
    """A run with corrupt batches, to be skipped; or one whose loss alone is NaN where its twin's is not."""
    expected: Literal["none", "skip"] = "skip" if twin is None else "none"

    def build(seed: int, with_fault: bool) -> Built:
        torch.manual_seed(seed)
        chosen = task if with_fault or twin is None else twin
        return assemble(FaultModule(chosen, chosen.learning_rate), seed, corrupt if with_fault else None)

    return FaultyRun(name, build, note, expected, task.higher_is_better)


# The mean pixel of a batch of 64 digits is 0.305 with standard deviation 0.004: 2 % of the batches lie below.
RARE_PEDESTAL = 0.297
STANDARDISED = replace(MLP_ADAM, make_net=RowStandardised)
LENGTH = replace(MLP_ADAM, make_net=RowLength)
MASKED, HANDMADE = replace(MLP_SGD, loss=masked_loss), replace(MLP_SGD, loss=handmade_loss)
SCALED = replace(MLP_SGD, make_net=partial(Scaled, 1.0), loss=partial(log_scale, 0.0))
NEGATIVE = replace(SCALED, make_net=partial(Scaled, -1.0))
RARELY_NEGATIVE = replace(SCALED, loss=partial(log_scale, RARE_PEDESTAL))
ABSENT, RARELY_ABSENT = (replace(MLP_SGD, loss=partial(label_entropy, classes)) for classes in (11, 10))

RUNS = [
    _run(
        "div_zero_constant_row",
        STANDARDISED,
        "constant row in 3 %: 0/0",
        _rarely(_constant_row),
    ),
    _run("div_zero_empty_mask", MASKED, "no label in 3 % of the batches: 0/0", _rarely(_no_labels)),
    _run("sqrt_zero_backward", LENGTH, "blank row in 3 %: loss finite, slope NaN", _rarely(_blank_row)),
    _run("log_zero_handmade", HANDMADE, "loud row in 3 % of the batches: log(0)", _rarely(_loud_row)),
    _run("loss_nan_absent_class_always", ABSENT, "constant NaN term, every step", twin=MLP_SGD),
    _run("loss_nan_absent_class_rarely", RARELY_ABSENT, "constant NaN term, 1 % of steps", twin=MLP_SGD),
    _run("loss_nan_log_negative_always", NEGATIVE, "log of a negative, every step", twin=SCALED),
    _run("loss_nan_log_negative_rarely", RARELY_NEGATIVE, "log of a negative, 2 % of steps", twin=SCALED),
]
