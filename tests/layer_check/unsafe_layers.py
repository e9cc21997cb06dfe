"""Layers as people write them, and what goes wrong in them. The line to blame ends in `# @blame`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROWS, WIDTH = 4, 6


class UnitNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=-1, keepdim=True)  # @blame


class LogOfSoftmax(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.log(torch.softmax(x, -1))  # @blame


class SoftplusByHand(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        grown = torch.exp(x)  # @blame
        return torch.log1p(grown)


class SoftmaxByHand(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        shares = torch.exp(x)  # @blame
        return shares / shares.sum(-1, keepdim=True)


class Standardise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / x.std(-1, keepdim=True)  # @blame


class StdOfBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / (x.std(0, keepdim=True) + 1e-3)  # @blame


class Inside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), UnitNorm())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def root(x: Tensor) -> Tensor:
    return torch.sqrt(x.abs())  # @blame


def where_trap(x: Tensor) -> Tensor:
    safe = torch.zeros_like(x)
    return torch.where(x > 0, torch.sqrt(x), safe)  # @blame


def masked_softmax(x: Tensor, mask: Tensor) -> Tensor:
    scores = x.masked_fill(mask == 0, -torch.inf)
    return torch.softmax(scores, -1)  # @blame


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum(-1) / mask.sum(-1)  # @blame


def entropy(p: Tensor) -> Tensor:
    return -(p * torch.log(p)).sum(-1)  # @blame


def cross_entropy_of_probabilities(p: Tensor, target: Tensor) -> Tensor:
    chosen = p.gather(-1, target[:, None])
    return -torch.log(chosen).mean()  # @blame


def distance(x: Tensor, y: Tensor) -> Tensor:
    return torch.sqrt(((x - y) ** 2).sum(-1))  # @blame


def angle(x: Tensor) -> Tensor:
    length = torch.sqrt((x * x).sum(-1) + 1e-12)
    return torch.acos(x[:, 0] / length)  # @blame


def inverse(x: Tensor) -> Tensor:
    return 1.0 / (x - x.floor())  # @blame


class WrongCube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * x * x * grad


class SingularRoot(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sqrt(x * x + 1.0)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * x * x / (x * torch.sqrt(x * x + 1.0))  # @blame


class CentreOverBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class AlwaysDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.calls
