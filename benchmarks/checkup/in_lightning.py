"""Builds set-ups for Lightning."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule, seed_everything
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.checkup.set_up import Net, SetUp
from nan_callbacks import checkup

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU, "selu": nn.SELU, "elu": nn.ELU,
}  # fmt: skip


class Residual(nn.Module):
    """A block that adds to its input."""

    def __init__(self, width: int, activation: str) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), ACTIVATIONS[activation](), nn.Linear(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Recurrent(nn.Module):
    """The last output of an LSTM, on numbers or on token ids."""

    def __init__(self, net: Net, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(net.tokens, 16) if net.tokens else nn.Identity()
        self.lstm = nn.LSTM(16 if net.tokens else width, net.hidden[0], batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(self.table(x))[0][:, -1]


class Tokens(nn.Module):
    """The mean of embedded tokens, through an encoder layer for a transformer."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.table = nn.Embedding(net.tokens, net.hidden[0])
        is_transformer = net.kind == "transformer"
        layer = nn.TransformerEncoderLayer(net.hidden[0], 4, 64, batch_first=True) if is_transformer else nn.Identity()
        self.encoder = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(self.table(x)).mean(1)


def _body(net: Net, shape: tuple[int, ...]) -> tuple[list[nn.Module], int]:
    """Layers before the output, and the width that they end with."""
    act = ACTIVATIONS[net.activation]
    if net.kind == "lstm":
        return [Recurrent(net, shape[-1])], net.hidden[0]
    if net.kind in ("embedding", "transformer"):
        return [Tokens(net)], net.hidden[0]
    layers: list[nn.Module] = []
    width = shape[0]
    for wide in net.hidden:
        if net.kind == "cnn":
            layers += [nn.Conv2d(width, wide, 3, padding=1)]
            layers += [nn.BatchNorm2d(wide)] if net.normalised else []
        elif net.kind == "residual":
            layers += [nn.Linear(width, wide)] if width != wide else []
            layers += [Residual(wide, net.activation)]
        else:
            layers += [nn.Linear(width, wide)]
            layers += [nn.LayerNorm(wide)] if net.normalised else []
        layers += [] if net.kind == "residual" else [act()]
        width = wide
    if net.kind == "cnn":
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return layers, width


class Scale(nn.Module):
    """Subtracts and divides by constants."""

    def __init__(self, mean: np.ndarray, std: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return (x.float() - self.mean) / self.std


def _first(net: Net, x: np.ndarray) -> list[nn.Module]:
    if net.first == "rescaling":
        return [Scale(np.zeros(()), np.full((), 255.0))]
    if net.first == "standardise":
        return [Scale(x.mean(0), x.std(0) + 1e-6)]
    if net.first == "batch_norm":
        return [nn.BatchNorm2d(x.shape[1]) if x.ndim == 4 else nn.BatchNorm1d(x.shape[1])]
    return []


@torch.no_grad()
def _initialise(model: nn.Module, init: str) -> None:
    weights = [p for p in model.parameters() if p.dim() >= 2]
    for weight in weights if init not in ("", "zero_last") else []:
        scale = 1 / math.sqrt(weight[0].numel())
        if init == "zeros":
            weight.zero_()
        elif init == "equal":
            weight.fill_(0.05)
        elif init == "orthogonal":
            nn.init.orthogonal_(weight)
        elif init in ("tiny", "huge"):
            nn.init.normal_(weight, std=scale * (0.01 if init == "tiny" else 30.0))
    if init == "zero_last":
        weights[-1].zero_()
    if init == "negative_bias":
        for name, bias in model.named_parameters():
            if name.endswith("bias"):
                bias.fill_(-30.0)


class Module(LightningModule):
    """The net of a set-up with its loss."""

    def __init__(self, spec: SetUp) -> None:
        super().__init__()
        layers, width = _body(spec.net, spec.x.shape[1:])
        self.layers = nn.Sequential(*_first(spec.net, spec.x), *layers)
        self.head = nn.Linear(width, spec.net.outputs)
        self.spec = spec
        _initialise(self, spec.net.init)
        if spec.net.frozen:
            self.layers.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        integral = not torch.is_floating_point(x)
        out = self.head(self.layers(x.float() if integral and not self.spec.net.tokens else x))
        final, operation = self.spec.net.final, self.spec.net.operation
        if operation == "log_of_softmax":
            return torch.log(out.softmax(1))
        if operation == "divide_by_norm":
            return out / out.norm(dim=1, keepdim=True)
        if operation == "divide_by_norm_safely":
            return out / out.norm(dim=1, keepdim=True).clamp_min(1e-6)
        if operation == "square_root_of_rectified":
            return out.relu().sqrt()
        if operation == "exponential":
            return torch.exp(30 * out.abs() + 60)
        if final == "softmax":
            return out.softmax(1)
        if final == "log_softmax":
            return out.log_softmax(1)
        return out if not final else getattr(torch, final)(out)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        out, loss, takes = self(x), self.spec.loss, self.spec.takes
        if loss == "cross_entropy":
            if takes == "logits":
                return F.cross_entropy(out, y)
            return F.nll_loss(out if takes == "logs" else torch.log(out + 1e-7), y)
        if loss == "soft_cross_entropy":
            return F.cross_entropy(out, y) if takes == "logits" else -(y * torch.log(out + 1e-7)).sum(1).mean()
        if loss == "binary":
            return (F.binary_cross_entropy_with_logits if takes == "logits" else F.binary_cross_entropy)(out, y)
        if loss == "poisson":
            return F.poisson_nll_loss(out, y, log_input=takes == "logs")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return (F.mse_loss if loss == "squared" else F.l1_loss)(out, y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = [p for p in self.parameters() if p.requires_grad]
        return {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[self.spec.optimizer](parameters, lr=self.spec.rate)


def look(spec: SetUp) -> Any:
    """The checkup's report."""
    if spec.x.ndim == 4:  # channels first
        from dataclasses import replace

        spec = replace(spec, x=np.ascontiguousarray(spec.x.transpose(0, 3, 1, 2)))
    seed_everything(0, verbose=False)
    module = Module(spec)
    if spec.precision == "float16":
        module = module.half()
    data = TensorDataset(torch.as_tensor(spec.x), torch.as_tensor(spec.y))
    return checkup(module, DataLoader(data, batch_size=spec.batch, shuffle=True), strict=True)
