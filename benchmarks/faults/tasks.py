"""The healthy halves: six small problems, each with the learning rate that suits it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from sklearn.datasets import load_digits, make_friedman1
from torch import Tensor, nn

from benchmarks.faults.module import Batch, Task

VOCABULARY, CONTEXT = 12, 24
HELD_OUT_SEED = 2024


@cache
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and held-out images (0 to 1, flat) and labels, 1400 and 397 rows."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(data.data, dtype=torch.float32)[order] / 16
    labels = torch.tensor(data.target, dtype=torch.int64)[order]
    return images[:1400], labels[:1400], images[1400:], labels[1400:]


@cache
def friedman() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Friedman's first regression problem, inputs and targets standardised, 2000 and 500 rows."""
    inputs, targets = make_friedman1(n_samples=2500, noise=1.0, random_state=0)
    x = torch.tensor((inputs - inputs.mean(0)) / inputs.std(0), dtype=torch.float32)
    y = torch.tensor((targets - targets.mean()) / targets.std(), dtype=torch.float32)
    return x[:2000], y[:2000], x[2000:], y[2000:]


@cache
def grammar() -> Tensor:
    """The next symbol after each pair of symbols; the language follows it nine times in ten."""
    return torch.randint(VOCABULARY, (VOCABULARY, VOCABULARY), generator=torch.Generator().manual_seed(7))


def draw_rows(source: Callable[[], tuple[Tensor, ...]], generator: torch.Generator, size: int = 64) -> Batch:
    x, y = source()[:2]
    rows = torch.randint(len(x), (size,), generator=generator)
    return x[rows].clone(), y[rows].clone()


def draw_text(generator: torch.Generator, size: int = 32) -> Batch:
    symbols = torch.randint(VOCABULARY, (size, CONTEXT + 1), generator=generator)
    follows = torch.rand(size, CONTEXT + 1, generator=generator) < 0.9
    for position in range(2, CONTEXT + 1):
        expected = grammar()[symbols[:, position - 2], symbols[:, position - 1]]
        symbols[:, position] = torch.where(follows[:, position], expected, symbols[:, position])
    return symbols[:, :-1].clone(), symbols[:, 1:].clone()


def cross_entropy(net: nn.Module, batch: Batch) -> Tensor:
    logits = net(batch[0])
    return nn.functional.cross_entropy(logits.flatten(0, -2), batch[1].flatten())


def squared_error(net: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.mse_loss(net(batch[0]).squeeze(-1), batch[1])


def digit_accuracy(net: nn.Module) -> float:
    _, _, x, y = digits()
    return float((net(x).argmax(-1) == y).float().mean())


def friedman_error(net: nn.Module) -> float:
    return float(squared_error(net, friedman()[2:]))


def text_loss(net: nn.Module) -> float:
    return float(cross_entropy(net, draw_text(torch.Generator().manual_seed(HELD_OUT_SEED), size=256)))


def mlp(inputs: int = 64, outputs: int = 10, width: int = 64) -> nn.Module:
    hidden = [nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(width, outputs))


def batchnorm_cnn() -> nn.Module:
    first = [nn.Unflatten(-1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    second = [nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(256, 10))


class Transformer(nn.Module):
    """A decoder of two post-norm layers, 32 wide."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.symbol, self.position = nn.Embedding(VOCABULARY, width), nn.Embedding(CONTEXT, width)
        layer = nn.TransformerEncoderLayer(width, 2, 64, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, VOCABULARY)
        mask = nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, symbols: Tensor) -> Tensor:
        hidden = self.symbol(symbols) + self.position.weight
        return self.head(self.layers(hidden, mask=self.mask, is_causal=True))


class RowReader(nn.Module):
    """Reads an image row by row with a recurrent network; each row is repeated `repeat` times."""

    def __init__(self, cell: Callable[[], nn.Module], repeat: int = 1) -> None:
        super().__init__()
        self.cell, self.repeat = cell(), repeat
        self.head = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.unflatten(-1, (8, 8)).repeat_interleave(self.repeat, dim=1)
        return self.head(self.cell(rows)[0][:, -1])


def lstm() -> nn.Module:
    return nn.LSTM(8, 32, batch_first=True)


def momentum_sgd(parameters: Any, learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9)


def adam(parameters: Any, learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=learning_rate)


draw_digits, draw_friedman = partial(draw_rows, digits), partial(draw_rows, friedman)

MLP_SGD = Task(mlp, momentum_sgd, 0.05, draw_digits, cross_entropy, digit_accuracy, True, 600)
MLP_ADAM = replace(MLP_SGD, make_optimizer=adam, learning_rate=1e-3)
CNN_ADAM = replace(MLP_ADAM, make_net=batchnorm_cnn, learning_rate=2e-3)
LSTM_SGD = replace(MLP_SGD, make_net=partial(RowReader, lstm), learning_rate=0.3)
TRANSFORMER_ADAM = Task(Transformer, adam, 3e-3, draw_text, cross_entropy, text_loss, False, 600)
REGRESSION_SGD = Task(lambda: mlp(10, 1), momentum_sgd, 0.02, draw_friedman, squared_error, friedman_error, False, 600)
REGRESSION_ADAM = replace(REGRESSION_SGD, make_optimizer=adam, learning_rate=2e-3)
TASKS = {
    "mlp_sgd": MLP_SGD, "mlp_adam": MLP_ADAM, "cnn_bn_adam": CNN_ADAM, "transformer_adam": TRANSFORMER_ADAM,
    "lstm_sgd": LSTM_SGD, "regression_sgd": REGRESSION_SGD, "regression_adam": REGRESSION_ADAM,
}  # fmt: skip
