"""Steps that raise: class, message, module and the user's line."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nan_callbacks.diagnosis.origin import OriginKind
from tests.torch_room.step import make_batch, marked, origin_of, replay_net


def label_out_of_range(logits, y):
    wrong = y.clone()
    wrong[5] = 99
    return F.cross_entropy(logits, wrong)  # @label out of range


def outside_of_unit_interval(logits, y):
    targets = F.one_hot(y, 4).float()
    return F.binary_cross_entropy(logits * 3, targets)  # @outside of unit interval


def shapes_do_not_fit(logits, y):
    return (logits @ torch.ones(3, 1)).sum()  # @shapes do not fit


CASES = [
    (label_out_of_range, "IndexError", "Target 99"),
    (outside_of_unit_interval, "RuntimeError", "between 0 and 1"),
    (shapes_do_not_fit, "RuntimeError", "shapes"),
]


@pytest.mark.parametrize(("loss", "kind", "message"), CASES, ids=[case[0].__name__ for case in CASES])
def test_an_error_in_the_loss(loss, kind, message):
    result = replay_net(nn.Identity(), loss=loss)
    origin = origin_of(result)

    assert (origin.kind, origin.operation, origin.module) == (OriginKind.EXCEPTION, kind, "")
    assert origin.detail.startswith(f"{kind}: ")
    assert message in origin.detail
    assert marked(result) == loss.__name__.replace("_", " ")


class Lookup(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 6)

    def forward(self, x):
        return self.table((x[:, 0] * 0 + 50).long())  # @lookup


def test_an_error_in_a_library_layer_is_told_with_the_caller_s_line():
    result = replay_net(Lookup())
    origin = origin_of(result)

    assert (origin.kind, origin.operation) == (OriginKind.EXCEPTION, "IndexError")
    assert (origin.module, origin.module_type) == ("body.1.table", "Embedding")
    assert [operand.name for operand in origin.operands] == ["weight", "indices"]
    assert marked(result) == "lookup"


class Checks(nn.Module):
    def forward(self, x):
        if x.shape[0] != 5:
            raise ValueError("five rows expected")  # @checks
        return x


def test_an_error_that_python_raises():
    result = replay_net(Checks())
    origin = origin_of(result)

    assert (origin.operation, origin.module) == ("ValueError", "body.1")
    assert origin.module_is_custom
    assert marked(result) == "checks"


class Distribution(nn.Module):
    def forward(self, x):
        scale = torch.sqrt(x - 4)  # @distribution
        # Said, because torch.compile turns the validation off in the whole process.
        return torch.distributions.Normal(x, scale, validate_args=True).log_prob(x)


def test_an_error_that_a_nan_led_to_is_laid_to_the_nan():
    result = replay_net(Distribution())
    origin = origin_of(result)

    assert (origin.kind, origin.operation) == (OriginKind.OPERATION, "sqrt")
    assert marked(result) == "distribution"
    assert [other.operation for other in result.others] == ["ValueError"]


class RaisesBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        raise ArithmeticError("no gradient today")  # @in the backward


def test_an_error_in_the_backward_pass():
    class Layer(nn.Module):
        def forward(self, x):
            return RaisesBackward.apply(x)

    result = replay_net(Layer())

    assert origin_of(result).operation == "ArithmeticError"
    assert marked(result) == "in the backward"


def test_an_error_that_the_model_handles_is_none():
    class Handles(nn.Module):
        def forward(self, x):
            try:
                return x @ torch.ones(1, 1)
            except RuntimeError:
                return x

    assert not replay_net(Handles()).reproduced


def test_an_interrupt_passes_through():
    def interrupted(logits, y):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay_net(nn.Identity(), loss=interrupted, batch=make_batch())
