"""Forward passes that make a NaN or an Inf: the operation, the module and the exact line are named."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nan_callbacks.diagnosis.origin import OriginKind, Phase
from tests.torch_room.step import marked, origin_of, replay_net


class LogOfSoftmax(nn.Module):
    def forward(self, x):
        return torch.log(torch.softmax(x * 400, dim=-1)) * 1e-3  # @log of softmax


class NormalisedByItsSum(nn.Module):
    def forward(self, x):
        weights = torch.relu(x - 2.0)
        return weights / weights.sum(-1, keepdim=True)  # @normalised by its sum


class Exponential(nn.Module):
    def forward(self, x):
        energy = x * 300
        return (
            torch.exp(energy)  # @exponential
            / (1 + energy)
        )


class StdOfOne(nn.Module):
    def forward(self, x):
        spread = x[:, :1].std(dim=-1, keepdim=True)  # @std of one
        return (x - x.mean()) / (spread + 1e-5)


class PowerOfNegative(nn.Module):
    def forward(self, x):
        return (x - 2).pow(0.3)  # @power of negative


class SquareRootOfNegative(nn.Module):
    def forward(self, x):
        variance = (x**2).mean(-1, keepdim=True) - 4
        return x * variance.sqrt()  # @square root of negative


class InPlaceDivision(nn.Module):
    def forward(self, x):
        centred = x.clone()
        centred -= x
        centred.div_(centred.sum())  # @in-place division
        return centred


class IntoAView(nn.Module):
    def forward(self, x):
        result = torch.empty_like(x)
        result[:, :3] = x[:, :3]
        result[:, 3:] = torch.rsqrt(x[:, 3:] * 0)  # @into a view
        return result


class WithOut(nn.Module):
    def forward(self, x):
        result = torch.zeros(x.shape)
        with torch.no_grad():
            torch.div(x.detach(), x.detach() * 0, out=result)  # @with out
        return x * result


class GarbageThenDivision(nn.Module):
    def forward(self, x):
        scratch = torch.empty(x.shape)
        scratch.fill_(float("nan"))
        scratch.copy_(x)
        return scratch / (x.sum() * 0)  # @garbage then division


class MaskThenLogarithm(nn.Module):
    def forward(self, x):
        blocked = torch.zeros_like(x, dtype=torch.bool)
        blocked[:, :2] = True
        attention = torch.softmax(x.masked_fill(blocked, float("-inf")), -1)
        return x * torch.log(attention - 1)  # @mask then logarithm


class LogTimesMask(nn.Module):
    def forward(self, x):
        logs = torch.log(F.relu(x))  # @log times mask
        return logs * (x > 0).float()


class BufferMaskThenQuotient(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.full((6, 6), float("-inf")).triu(1))

    def forward(self, x):
        scores = x[:, :, None] * x[:, None, :] + self.mask
        mixed = (scores.softmax(-1) @ x[:, :, None]).squeeze(-1)
        nothing = mixed * 0
        return nothing / nothing  # @buffer mask then quotient


class GaussianKernel(nn.Module):
    def forward(self, x):
        squared = torch.cdist(x, x).pow(2)
        bandwidth = squared.diagonal().mean()
        return torch.exp(-squared / bandwidth) @ x  # @gaussian kernel


class Normalised(nn.Module):
    def forward(self, x):
        return F.normalize(x * 0, dim=-1, eps=0.0)  # @normalised


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class ThroughNumPy(nn.Module):
    def forward(self, x):
        x = x + 0
        scale = torch.from_numpy(x.detach().numpy() * float("nan"))  # @through numpy
        return x * scale


class TwoFaults(nn.Module):
    def forward(self, x):
        first = torch.log(-x.abs() - 1)  # @two faults
        second = torch.sqrt(-x.abs() - 1)
        return first + second


FORWARD = [
    ("log of softmax", LogOfSoftmax(), "log"),
    ("normalised by its sum", NormalisedByItsSum(), "divide"),
    ("exponential", Exponential(), "exp"),
    ("std of one", StdOfOne(), "std"),
    ("power of negative", PowerOfNegative(), "power"),
    ("square root of negative", SquareRootOfNegative(), "sqrt"),
    ("in-place division", InPlaceDivision(), "divide"),
    ("into a view", IntoAView(), "rsqrt"),
    ("with out", WithOut(), "divide"),
    ("garbage then division", GarbageThenDivision(), "divide"),
    ("mask then logarithm", MaskThenLogarithm(), "log"),
    ("log times mask", LogTimesMask(), "log"),
    ("buffer mask then quotient", BufferMaskThenQuotient(), "divide"),
    ("gaussian kernel", GaussianKernel(), "divide"),
    ("normalised", Normalised(), "divide"),
    ("a lambda", Lambda(lambda x: 1 / (x - x)), "reciprocal"),  # @a lambda
    ("through numpy", ThroughNumPy(), "constant"),
    ("two faults", TwoFaults(), "log"),
]


@pytest.mark.parametrize(("name", "layer", "operation"), FORWARD, ids=[case[0] for case in FORWARD])
def test_names_operation_module_and_line(name, layer, operation):
    result = replay_net(layer)
    origin = origin_of(result)

    assert origin.kind is OriginKind.OPERATION
    assert origin.operation == operation
    assert origin.phase is Phase.FORWARD
    assert (origin.module, origin.module_type, origin.module_is_custom) == ("body.1", type(layer).__name__, True)
    assert marked(result) == name
    assert origin.result is not None
    assert not origin.result.is_finite


def log_of_sigmoid(logits, y):
    return -torch.log(torch.sigmoid(logits * 1e4)).mean()  # @log of sigmoid


def divergence(logits, y):
    p = F.one_hot(y, 4).float()
    q = torch.softmax(logits * 1e4, -1)
    return (p * (p / q).log()).sum(-1).mean()  # @divergence


def gaussian_likelihood(logits, y):
    variance = F.relu(logits[:, 0] - 10)
    error = (logits[:, 1] - y) ** 2
    return (error / (2 * variance) + torch.log(variance)).mean()  # @gaussian likelihood


def mean_over_nothing(logits, y):
    return logits[y > 99].mean()  # @mean over nothing


def share_of_an_overflow(logits, y):
    alike = torch.exp(87.8 + 0.01 * torch.tanh(logits))
    return -(alike[:, 0] / alike.sum(-1)).log().mean()  # @share of an overflow


def softmax_by_hand(logits, y):
    weights = torch.exp(logits.abs() * 1e5 * (logits == logits.amax(-1, keepdim=True)))  # @softmax by hand
    share = weights / weights.sum(-1, keepdim=True)
    return -torch.log(share.gather(1, logits.argmin(-1, keepdim=True))).mean()


LOSSES = [
    (log_of_sigmoid, "log"),
    (divergence, "divide"),
    (gaussian_likelihood, "divide"),
    (mean_over_nothing, "mean"),
    (share_of_an_overflow, "sum"),
    (softmax_by_hand, "exp"),
]


@pytest.mark.parametrize(("loss", "operation"), LOSSES, ids=[case[0].__name__ for case in LOSSES])
def test_a_loss_written_by_hand_belongs_to_no_module(loss, operation):
    result = replay_net(nn.Identity(), loss=loss)
    origin = origin_of(result)

    assert origin.operation == operation
    assert origin.phase is Phase.FORWARD
    assert (origin.module, origin.module_type) == ("", "")
    assert marked(result) == loss.__name__.replace("_", " ")


def test_a_zero_that_is_no_overflows_is_the_logarithms_own():
    def loss(logits, y):
        infinite = torch.exp(logits.abs() * 1e5)
        share = torch.relu(logits - 1e3) / (1.0 + infinite)
        return -torch.log(share).mean()  # @zero over anything

    # Some of the zeros would be there without an Inf as well: 0 over a finite number.
    result = replay_net(nn.Identity(), loss=lambda logits, y: loss(logits * (torch.arange(len(y)) > 3)[:, None], y))
    assert (origin_of(result).operation, marked(result)) == ("log", "zero over anything")


def test_a_library_layer_is_named_and_the_line_is_that_of_the_caller():
    class LossOnly:
        def training_step(self, net, x):
            return net(x).sum()  # @caller of a library layer

    from nan_callbacks.torch.replay import replay

    net = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6, eps=0.0))
    nn.init.zeros_(net[0].weight)
    nn.init.zeros_(net[0].bias)
    x = torch.ones(4, 6)
    result = replay(
        lambda: LossOnly().training_step(net, x), modules={"model": net}, parameters=dict(net.named_parameters())
    )
    origin = origin_of(result)

    assert (origin.operation, origin.module, origin.module_type) == ("layer_norm", "model.1", "LayerNorm")
    assert not origin.module_is_custom
    assert marked(result) == "caller of a library layer"


def test_operands_are_told_as_they_were_before_an_in_place_operation():
    origin = origin_of(replay_net(InPlaceDivision()))

    assert [operand.name for operand in origin.operands] == ["self", "other"]
    assert all(operand.is_finite for operand in origin.operands)
    assert origin.operands[0].zeros == 48
    assert origin.result.nan == 48


def test_a_second_independent_origin_is_told_as_well():
    result = replay_net(TwoFaults())

    assert [origin.operation for origin in result.others] == ["sqrt"]


class NumberReadBack(nn.Module):
    def forward(self, x):
        scale = torch.log(-x.abs().sum() - 1)  # @number read back
        factor, count = scale.item(), x.sum().item()
        return x * factor + count


class OverflowBesideAMask(nn.Module):
    """Only positions whose operands are finite count: the mask's -Inf does not hide the overflow beside it."""

    def forward(self, x):
        blocked = torch.zeros_like(x, dtype=torch.bool)
        blocked[:, 0] = True
        scores = -x.abs().masked_fill(blocked, float("inf")) - 1
        scores.mul_(-3e38).mul_(10)  # @overflow beside a mask
        return scores - scores


class CastIntoGarbage(nn.Module):
    def forward(self, x):
        scratch = torch.full(x.shape, float("inf"), dtype=torch.float16)
        scratch.copy_(x.detach() * 1e6)  # @cast into garbage
        return x * scratch.float()


@pytest.mark.parametrize(
    ("name", "layer", "operation"),
    [
        ("number read back", NumberReadBack(), "log"),
        ("overflow beside a mask", OverflowBesideAMask(), "multiply"),
        ("cast into garbage", CastIntoGarbage(), "copy"),
    ],
)
def test_ways_around_the_operands(name, layer, operation):
    result = replay_net(layer)

    assert origin_of(result).operation == operation
    assert marked(result) == name


def test_code_of_a_notebook_cell_has_its_line():
    import linecache

    name = "/tmp/ipykernel_7/1234.py"
    text = "def loss(logits, y):\n    return (logits / 0).sum()\n"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    space = {}
    exec(compile(text, name, "exec"), space)
    source = origin_of(replay_net(nn.Identity(), loss=space["loss"])).source

    assert (source.file, source.line, source.text) == (name, 2, "return (logits / 0).sum()")
