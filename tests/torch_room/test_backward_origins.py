"""Failures that only the gradient shows: they are traced to the forward operation and its line."""

import pytest
import torch
from torch import nn

from nan_callbacks.diagnosis.origin import Phase
from tests.torch_room.step import marked, origin_of, replay_net


class WhereLog(nn.Module):
    def forward(self, x):
        safe = x * (x > 0)
        return torch.where(safe > 0, torch.log(safe), torch.zeros_like(x))  # @where log


class WhereReciprocal(nn.Module):
    def forward(self, x):
        q = x * (x > 0)
        return torch.where(q > 0, 1.0 / q, q)  # @where reciprocal


class WhereSqrt(nn.Module):
    def forward(self, x):
        return torch.where(x > 0, (x * (x > 0)).sqrt(), 0.0)  # @where sqrt


class SqrtOfZero(nn.Module):
    def forward(self, x):
        spread = ((x - x) ** 2).sum(-1, keepdim=True)
        return x + torch.sqrt(spread)  # @sqrt of zero


class PowerHalf(nn.Module):
    def forward(self, x):
        return x + (x * 0) ** 0.5  # @power half


class Angle(nn.Module):
    def forward(self, x):
        cosine = (x / x.detach())[:, :1]
        return x * torch.acos(cosine)  # @angle


class ArcSine(nn.Module):
    def forward(self, x):
        return x + torch.asin(torch.sign(x) + 0 * x)  # @arc sine


class PairDistance(nn.Module):
    def forward(self, x):
        difference = x[:, None] - x[None]
        distance = difference.pow(2).sum(-1).sqrt()  # @pair distance
        return x + distance.mean(-1, keepdim=True)


class CubeRoot(nn.Module):
    def forward(self, x):
        return x + torch.sign(x) * (x * 0).abs().pow(1 / 3)  # @cube root


class MaskedExp(nn.Module):
    def forward(self, x):
        big = torch.exp(x.abs() * 1e4)  # @masked exp
        return torch.where(big < 1, big * x, x)


CASES = [
    ("where log", WhereLog(), "log"),
    ("where reciprocal", WhereReciprocal(), "reciprocal"),
    ("where sqrt", WhereSqrt(), "sqrt"),
    ("sqrt of zero", SqrtOfZero(), "sqrt"),
    ("power half", PowerHalf(), "power"),
    ("angle", Angle(), "acos"),
    ("arc sine", ArcSine(), "asin"),
    ("pair distance", PairDistance(), "sqrt"),
    ("cube root", CubeRoot(), "power"),
    ("masked exp", MaskedExp(), "exp"),
]


@pytest.mark.parametrize(("name", "layer", "operation"), CASES, ids=[case[0] for case in CASES])
def test_is_traced_to_the_forward_operation(name, layer, operation):
    result = replay_net(layer)
    origin = origin_of(result)

    assert origin.operation == operation
    assert origin.phase is Phase.BACKWARD
    assert (origin.module, origin.module_is_custom) == ("body.1", True)
    assert marked(result) == name
    assert "first.weight" in result.non_finite_gradients
    assert not origin.custom_gradient


class SoftMinimum(nn.Module):
    def forward(self, x):
        nearest = torch.log(x * (x > 0))  # @soft minimum
        return x + torch.exp(nearest - 1.0)


def test_what_has_made_a_finite_number_of_an_infinite_one_is_known():
    result = replay_net(SoftMinimum())
    assert (origin_of(result).operation, origin_of(result).absorbed_by) == ("log", "exp")
    assert marked(result) == "soft minimum"
    assert origin_of(replay_net(WhereLog())).absorbed_by == ""


def test_the_gradient_that_came_in_is_among_the_operands():
    origin = origin_of(replay_net(SqrtOfZero()))

    assert [operand.name for operand in origin.operands] == ["self", "gradient"]
    operand, gradient = origin.operands
    assert (operand.minimum, operand.maximum, operand.zeros) == (0.0, 0.0, 8)
    assert gradient.is_finite
    assert gradient.shape == (8, 1)


class DividesInItsBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient / (x - x)  # @hand-written


class HandWritten(nn.Module):
    def forward(self, x):
        return DividesInItsBackward.apply(x)


def test_a_hand_written_gradient_is_named_with_the_line_inside_of_it():
    result = replay_net(HandWritten())
    origin = origin_of(result)

    assert origin.custom_gradient
    assert origin.phase is Phase.BACKWARD
    assert origin.operation == "divide"
    assert origin.native_operation == "DividesInItsBackward.backward: aten.div.Tensor"
    assert origin.module == "body.1"
    assert marked(result) == "hand-written"


class NumPyInItsBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        values = gradient.detach().numpy()
        return torch.from_numpy(values * float("inf"))  # @numpy backward


def test_a_gradient_made_by_numpy_is_laid_to_its_function():
    class Layer(nn.Module):
        def forward(self, x):
            return NumPyInItsBackward.apply(x)

    result = replay_net(Layer())
    origin = origin_of(result)

    assert origin.custom_gradient
    assert origin.operation == "NumPyInItsBackward"
    assert origin.module == "body.1"
    assert marked(result) == "numpy backward"


class ScalesItsGradient(nn.Module):
    def forward(self, x):
        y = x * 1
        y.register_hook(lambda g: g / (g.norm() * 0))  # @gradient hook
        return y


def test_a_gradient_hook_is_named():
    result = replay_net(ScalesItsGradient())

    assert origin_of(result).custom_gradient
    assert marked(result) == "gradient hook"
