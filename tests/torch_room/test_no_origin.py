"""Infinities and NaNs that models use on purpose are no origins, and a finite step has none."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.torch_room.step import make_batch, origin_of, replay_net


class CausalMask(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.full((6, 6), float("-inf")).triu(1))

    def forward(self, x):
        scores = x[:, :, None] * x[:, None, :] + self.mask
        return (scores.softmax(-1) @ x[:, :, None]).squeeze(-1)


class MaskedFill(nn.Module):
    def forward(self, x):
        return torch.softmax(x.masked_fill(x < -0.5, float("-inf")).masked_fill(x == x.max(), 1.0), -1)


class LogOfAMask(nn.Module):
    def forward(self, x):
        mask = torch.ones(6, 6).tril()
        scores = x[:, :, None] * x[:, None, :] + torch.log(mask)
        return (scores.softmax(-1) @ x[:, :, None]).squeeze(-1)


class RunningMaximum(nn.Module):
    def forward(self, x):
        best = torch.full_like(x[:, 0], -float("inf"))
        for column in x.unbind(1):
            best = torch.maximum(best, column)
        return x - best[:, None]


class MaxPool(nn.Module):
    def forward(self, x):
        return F.max_pool1d(x[:, None], 3, stride=1, padding=1).squeeze(1)


class NanAware(nn.Module):
    def forward(self, x):
        gaps = x.masked_fill(x.abs() < 0.1, float("nan"))
        return x - torch.nanmean(gaps, dim=-1, keepdim=True)


class EmptyThenFilled(nn.Module):
    def forward(self, x):
        result = torch.empty(8, 6).fill_(float("nan"))
        for i in range(6):
            result[:, i] = x[:, i] * i
        return result


class TopKFilter(nn.Module):
    def forward(self, x):
        threshold = x.topk(2, dim=-1).values[:, -1:]
        return torch.where(x < threshold, torch.tensor(-float("inf")), x).softmax(-1)


class AttentionWithAMaskedRow(nn.Module):
    def forward(self, x):
        mask = torch.ones(8, 8, dtype=torch.bool).tril()
        mask[2] = False
        q = x[None, None]
        return F.scaled_dot_product_attention(q, q, q, attn_mask=mask)[0, 0]


HEALTHY = [
    CausalMask, MaskedFill, LogOfAMask, RunningMaximum, MaxPool, NanAware, EmptyThenFilled, TopKFilter,
    AttentionWithAMaskedRow, nn.Identity,
]  # fmt: skip


@pytest.mark.parametrize("kind", HEALTHY)
def test_a_finite_step_has_no_origin(kind):
    result = replay_net(kind())

    assert not result.reproduced
    assert result.origin is None
    assert "not reproduced" in result.note
    assert result.others == ()
    assert result.loss is not None
    assert result.grad_norm is not None


def test_loss_and_gradient_norm_are_those_of_the_step():
    torch.manual_seed(0)
    from tests.torch_room.step import Net

    net, (x, y) = Net(nn.Identity()), make_batch()
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in net.parameters()])
    result = replay_net(nn.Identity())

    assert result.loss == loss.item()
    assert result.grad_norm == pytest.approx(norm.item(), rel=1e-6)


@pytest.mark.parametrize("kind", [CausalMask, LogOfAMask, RunningMaximum, NanAware])
def test_a_real_fault_beside_a_legal_infinity_is_found(kind):
    class Faulty(nn.Module):
        def __init__(self):
            super().__init__()
            self.healthy = kind()

        def forward(self, x):
            return torch.log(self.healthy(x) * 0)

    origin = origin_of(replay_net(Faulty()))

    assert (origin.operation, origin.module) == ("log", "body.1")


def test_a_row_that_is_masked_throughout_is_laid_to_the_softmax():
    class FullyMasked(nn.Module):
        def forward(self, x):
            padding = torch.zeros_like(x, dtype=torch.bool)
            padding[2] = True
            return torch.softmax(x.masked_fill(padding, float("-inf")), -1) * x

    origin = origin_of(replay_net(FullyMasked()))

    assert (origin.operation, origin.module, origin.rows) == ("softmax", "body.1", (2,))
    assert origin.operands[0].negative_inf == 6


def test_uninitialised_memory_is_named_if_nothing_else_explains_the_loss():
    class Unfilled(nn.Module):
        def forward(self, x):
            scratch = torch.empty(8, 6)
            torch.full((8, 6), float("nan"), out=scratch)
            return x + scratch

    origin = origin_of(replay_net(Unfilled()))

    assert origin.operation == "full"


def test_a_spent_budget_is_told():
    result = replay_net(nn.Identity(), budget_seconds=0.0)

    assert result.origin is None
    assert not result.reproduced
    assert "time for the replay was spent" in result.note
