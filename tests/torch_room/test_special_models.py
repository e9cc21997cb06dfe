"""Checkpointed segments, autocast, compiled modules, recurrent layers and attention."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from nan_callbacks.diagnosis.origin import OriginKind, Phase
from nan_callbacks.torch.replay import replay
from tests.torch_room.step import Net, make_batch, marked, origin_of, replay_net


class SqrtOfZero(nn.Module):
    def forward(self, x):
        nothing = x * 0
        return x + torch.sqrt(nothing)  # @sqrt in a segment


class LogOfNegative(nn.Module):
    def forward(self, x):
        return torch.log(-x.abs() - 1)  # @log in a segment


class Segment(nn.Module):
    def __init__(self, inner, reentrant):
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize(
    ("inner", "operation", "phase", "mark"),
    [
        (SqrtOfZero(), "sqrt", Phase.BACKWARD, "sqrt in a segment"),
        (LogOfNegative(), "log", Phase.FORWARD, "log in a segment"),
    ],
)
def test_a_checkpointed_segment(inner, operation, phase, mark, reentrant):
    result = replay_net(Segment(inner, reentrant))
    origin = origin_of(result)

    assert (origin.operation, origin.phase, origin.module) == (operation, phase, "body.1.inner")
    assert marked(result) == mark
    assert not origin.custom_gradient


class Large(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)
        nn.init.constant_(self.linear.weight, 3e4)

    def forward(self, x):
        return self.linear(x.abs() + 1)  # @half overflow


class TooWideForHalf(nn.Module):
    def forward(self, x):
        return (x + 1e6).half().float()  # @cast overflow


def test_a_product_overflows_under_float16_autocast():
    torch.manual_seed(0)
    net, (x, y) = Net(Large()), make_batch()

    def step():
        with torch.autocast("cpu", dtype=torch.float16):
            logits = net(x)
        return F.cross_entropy(logits.float(), y)

    result = replay(step, modules={"": net}, parameters=dict(net.named_parameters()), batch=(x, y))
    origin = origin_of(result)

    assert (origin.operation, origin.module) == ("matmul", "body.1.linear")
    assert marked(result) == "half overflow"
    assert {operand.dtype for operand in origin.operands} == {"float16"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_without_overflow_has_no_origin(dtype):
    torch.manual_seed(0)
    net, (x, y) = Net(nn.LayerNorm(6)), make_batch()

    def step():
        with torch.autocast("cpu", dtype=dtype):
            return F.cross_entropy(net(x), y)

    assert not replay(step, modules={"": net}, parameters=dict(net.named_parameters()), batch=(x, y)).reproduced


def test_a_cast_overflows():
    result = replay_net(TooWideForHalf())

    assert (origin_of(result).operation, origin_of(result).module) == ("cast", "body.1")
    assert marked(result) == "cast overflow"


@pytest.mark.parametrize("warm", [False, True])
def test_a_compiled_module_runs_as_it_was_written(warm):
    net = Net(LogOfNegative())
    compiled = torch.compile(net, backend="aot_eager")
    x, y = make_batch()
    if warm:
        F.cross_entropy(compiled(x), y).backward()
    result = replay(
        lambda: F.cross_entropy(compiled(x), y),
        modules={"": compiled},
        parameters=dict(net.named_parameters()),
        batch=(x, y),
    )
    origin = origin_of(result)

    assert (origin.operation, origin.module, origin.module_type) == ("log", "body.1", "LogOfNegative")
    assert marked(result) == "log in a segment"


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.into, self.back = nn.Linear(6, 6), nn.Linear(6, 6)
        with torch.no_grad():
            self.back.weight.copy_(torch.eye(6) * 100)

    def forward(self, x, h):
        return torch.exp(self.into(x) * 0 + self.back(h) * 1e-2 * 3)  # @cell overflow


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = Cell()

    def forward(self, x):
        h = torch.zeros(8, 6)
        for _ in range(6):
            h = self.cell(x, h)
        return h / (1 + h)


def first_overflow(factor=3.0):
    h = 0.0
    for step in range(20):
        if factor * h > math.log(torch.finfo(torch.float32).max):
            return step
        h = math.exp(factor * h)
    return None


def test_the_time_step_of_a_cell_in_a_python_loop():
    net = Loop()
    nn.init.zeros_(net.cell.back.bias)
    result = replay_net(net)
    origin = origin_of(result)

    assert (origin.operation, origin.module) == ("exp", "body.1.cell")
    assert marked(result) == "cell overflow"
    assert origin.time_step == first_overflow()


class RawLoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.eye(6))
        self.u = nn.Parameter(torch.eye(6) * 3)

    def forward(self, x):
        h = torch.zeros(8, 6)
        for _ in range(6):
            h = torch.exp(x @ self.w * 0 + h @ self.u)  # @raw loop
        return h / (1 + h)


def test_the_time_step_of_a_loop_over_raw_parameters():
    result = replay_net(RawLoop())

    assert marked(result) == "raw loop"
    assert origin_of(result).time_step == first_overflow()


class Recurrent(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x):
        series = x[:, None].repeat(1, 5, 1)
        series[4, 3] = 3e38
        series = series * 2  # @series overflow
        return self.layer(series)[0][:, -1]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_what_goes_into_a_recurrent_layer_is_blamed_not_the_layer(kind):
    result = replay_net(Recurrent(kind(6, 6, batch_first=True)))
    origin = origin_of(result)

    assert (origin.operation, origin.module, origin.rows) == ("multiply", "body.1", (4,))
    assert marked(result) == "series overflow"


class Overflowing(nn.Module):
    """Finite input and weights, but their product is not."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        for name, parameter in layer.named_parameters():
            nn.init.constant_(parameter, 1e30 if "weight_ih" in name else -3e38 if "weight_hh" in name else 0.0)

    def forward(self, x):
        series = (x * 0)[:, None].repeat(1, 5, 1)
        series[4, 3:] = 1e30
        return self.layer(series)[0][:, -1]  # @inside of the recurrent layer


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_an_overflow_inside_of_a_recurrent_layer(kind):
    result = replay_net(Overflowing(kind(6, 6, batch_first=True)))
    origin = origin_of(result)

    assert (origin.module, origin.module_type) == ("body.1.layer", kind.__name__)
    assert origin.operation in ("recurrent", "matmul")
    assert marked(result) == "inside of the recurrent layer"
    if origin.operation == "recurrent":
        assert (origin.time_step, origin.rows) == (4, (4,))


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x):
        tokens = torch.stack([x, x + 1, x - 1], dim=1)
        padding = torch.zeros(8, 3, dtype=torch.bool)
        padding[5] = True
        mixed, _ = self.attention(tokens, tokens, tokens, key_padding_mask=padding)  # @padded throughout
        return mixed.mean(1)


def test_a_sample_that_is_padded_throughout():
    result = replay_net(SelfAttention())
    origin = origin_of(result)

    assert (origin.operation, origin.module) == ("softmax", "body.1.attention")
    assert origin.rows == (5,)
    assert marked(result) == "padded throughout"


class FusedAttention(nn.Module):
    def forward(self, x):
        tokens = torch.stack([x, x + 1, x - 1], dim=1)[:, None]
        scale = torch.ones(8, 1, 1, 1)
        scale[6] = 1e25
        q = tokens * scale
        return F.scaled_dot_product_attention(q, q, tokens).mean((1, 2))  # @fused attention


def test_scores_overflow_in_fused_attention():
    result = replay_net(FusedAttention())
    origin = origin_of(result)

    assert (origin.operation, origin.module, origin.rows) == ("attention", "body.1", (6,))
    assert marked(result) == "fused attention"


def test_rows_are_found_where_time_is_folded_into_the_batch():
    class PerToken(nn.Module):
        def forward(self, x):
            tokens = x[:, None].repeat(1, 5, 1)
            tokens[3, 2] = 0
            flat = tokens.reshape(40, 6)
            return (flat / flat.norm(dim=-1, keepdim=True)).reshape(8, 5, 6).mean(1)

    origin = origin_of(replay_net(PerToken()))

    assert (origin.kind, origin.operation, origin.rows) == (OriginKind.OPERATION, "divide", (3,))


def test_rows_of_a_failure_in_the_backward_pass():
    class Spread(nn.Module):
        def forward(self, x):
            keep = torch.ones(8, 1)
            keep[2] = 0
            return x + (x * keep).pow(2).sum(-1, keepdim=True).sqrt()

    origin = origin_of(replay_net(Spread()))

    assert (origin.operation, origin.phase, origin.rows) == ("sqrt", Phase.BACKWARD, (2,))
