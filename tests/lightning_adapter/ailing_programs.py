"""Ordinary programs with one mistake each, as users write them: what the diagnosis must name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer

FEATURES, ROWS, STEPS = 6, 16, 16
AT = 12
"""The batch that goes wrong, where a single one does."""

Batches = list[tuple[Tensor, Tensor]]


def regression(count: int = STEPS, seed: int = 1) -> Batches:
    """Batches of a learnable linear problem."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(FEATURES, 1, generator=generator)
    inputs = [torch.randn(ROWS, FEATURES, generator=generator) for _ in range(count)]
    return [(x, x @ truth + 0.1 * torch.randn(ROWS, 1, generator=generator)) for x in inputs]


class Program(LightningModule):
    """A small regression; each program changes one thing."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(FEATURES, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, targets = batch
        loss = F.mse_loss(self(inputs), targets)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Optimizer:
        return SGD(self.parameters(), lr=0.02)


class Simple(Program):
    """Without a bound on its activations."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, 1))


class RateTooHigh(Simple):
    def configure_optimizers(self) -> Optimizer:
        return SGD(self.parameters(), lr=30.0)


class LogOfZero(Program):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, targets = batch
        share = torch.relu(targets)
        return F.mse_loss(self(inputs), targets) - 0.01 * torch.log(share * self.net(inputs).sigmoid()).mean()


class Ratio(nn.Module):
    """Divides by what may be zero."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x / x.abs().sum(dim=1, keepdim=True)


class DividesByZero(Program):
    def __init__(self) -> None:
        super().__init__()
        self.ratio = Ratio()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.ratio(x))


class WhereTrap(Program):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scale
        rooted = torch.where(x > 0, torch.sqrt(x.clamp(min=0.0)), 0.1 * x)
        return self.net(rooted)


class ExpOverflows(Program):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, targets = batch
        rate = torch.exp(self(inputs) + inputs.sum(dim=1, keepdim=True))
        return F.mse_loss(rate.clamp(max=10.0) + 1e-30 * rate, targets)


class Recurrent(Program):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(FEATURES, 16)
        self.recur = nn.Linear(16, 16, bias=False)
        self.head = nn.Linear(16, 1)
        with torch.no_grad():
            self.recur.weight.mul_(8.0)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(len(x), 16)
        for _ in range(60):
            state = self.inner(x) + self.recur(state)
        return self.head(state)


class BadInit(Program):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(*(layer for _ in range(6) for layer in (nn.Linear(FEATURES, FEATURES), nn.ReLU())),
                                 nn.Linear(FEATURES, 1))  # fmt: skip
        for module in self.net:
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=1e7)


class HalfPrecision(Program):
    """In float16 throughout; squares overflow beyond 256."""

    def __init__(self) -> None:
        super().__init__()
        self.half()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.half()) * 400.0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, targets = batch
        return (self(inputs) - 400.0 * targets.half()).square().mean()

    def configure_optimizers(self) -> Optimizer:
        return SGD(self.parameters(), lr=1e-8)


class ConstantNorm(Program):
    """Normalises each feature of the batch by hand."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.net[0](x)
        hidden = (hidden - hidden.mean(dim=0)) / hidden.std(dim=0)
        return self.net[2](hidden)


def spoil(change: Callable[[Tensor, Tensor], None], at: int = AT) -> Batches:
    """Batches of which one is changed in place."""
    batches = [(x.clone(), y.clone()) for x, y in regression()]
    change(*batches[at])
    return batches


def set_input(row: int, value: float, column: int | slice = 2) -> Callable[[Tensor, Tensor], None]:
    def change(inputs: Tensor, targets: Tensor) -> None:
        inputs[row, column] = value

    return change


def set_target(row: int, value: float) -> Callable[[Tensor, Tensor], None]:
    def change(inputs: Tensor, targets: Tensor) -> None:
        targets[row] = value

    return change


def same_rows(inputs: Tensor, targets: Tensor) -> None:
    """A batch of one sample, over and over."""
    inputs[:] = inputs[0].clone()


@dataclass(frozen=True)
class Expected:
    """What the printed diagnosis must name; empty strings: not asked."""

    codes: tuple[str, ...]
    module: str = ""
    line: str = ""
    row: int | None = None


PROGRAMS: dict[str, tuple[Callable[[], Program], Callable[[], Batches], Expected]] = {
    "nan-in-data": (Program, lambda: spoil(set_input(3, torch.nan)), Expected(("DATA501",), row=3)),
    "outlier": (Simple, lambda: spoil(set_input(5, 1e8)), Expected(("DATA503",), row=5)),
    "wrong-label": (Program, lambda: spoil(set_target(7, 1e7)), Expected(("DATA504", "DATA503"), row=7)),
    "rate-too-high": (RateTooHigh, regression, Expected(("OPT601",))),
    "log-of-zero": (
        LogOfZero,
        lambda: [(x, y if i == AT else y.abs() + 0.1) for i, (x, y) in enumerate(regression())],
        Expected(("NAN111",), line="torch.log(share * self.net(inputs).sigmoid())"),
    ),
    "division-by-zero": (
        DividesByZero,
        lambda: spoil(set_input(9, 0.0, slice(None))),
        Expected(("NAN112",), module="ratio", line="x.abs().sum(dim=1, keepdim=True)", row=9),
    ),
    "where-trap": (
        WhereTrap,
        lambda: spoil(set_input(4, -1.0)) and spoil(set_input(4, 0.0)),
        Expected(("NAN113",), line="torch.sqrt(x.clamp(min=0.0))"),
    ),
    "exp-overflow": (
        ExpOverflows,
        lambda: spoil(set_input(11, 200.0)),
        Expected(("NAN110", "DATA503"), line="torch.exp(", row=11),
    ),
    "recurrent": (Recurrent, regression, Expected(("GRAD203", "ACT304"))),
    "bad-init": (BadInit, regression, Expected(("ACT304",))),
    "float16": (
        HalfPrecision,
        lambda: [(x, 5.0 * y if i == AT else 0.1 * y) for i, (x, y) in enumerate(regression())],
        Expected(("OPT604",), line="self.net(x.half())"),
    ),
    "constant-batch": (
        ConstantNorm,
        lambda: spoil(same_rows),
        Expected(("NAN112", "NAN113"), line="hidden.std(dim=0)"),
    ),
    "unscaled": (
        Simple,
        lambda: [(x * torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 1e5]), y) for x, y in regression()],
        Expected(("DATA502",)),
    ),
    "adam-without-epsilon": (
        type("NoEpsilon", (Program,), {
            "configure_optimizers": lambda self: Adam(self.parameters(), lr=0.01, eps=0.0),
            "training_step": lambda self, batch, batch_idx: Program.training_step(self, (batch[0] * 0, batch[1]), 0),
        }),
        regression,
        Expected(("OPT605",)),
    ),
}  # fmt: skip
