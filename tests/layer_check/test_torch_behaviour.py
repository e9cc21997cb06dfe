"""Wrong gradients, dependence on the batch, randomness; and nothing of the layer changes."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from nan_callbacks.errors import ConfigurationError
from nan_callbacks.layer_check import assert_numerically_safe, check_layer
from tests.layer_check import unsafe_layers as unsafe

SHAPE = (4, 6)


def checks_failed(layer, **options):
    return [failure.check for failure in check_layer(layer, SHAPE, **options).failures]


def test_a_wrong_gradient_is_caught_with_its_function():
    (failure,) = check_layer(lambda x: unsafe.WrongCube.apply(x) + x, SHAPE).failures

    assert failure.check == "gradient"
    assert failure.operation == "WrongCube"
    assert failure.source is not None
    assert failure.source.text == "def backward(ctx, grad):"
    assert failure.input.shape == (1, 6)


def test_a_wrong_gradient_of_a_parameter_is_caught():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(6))

        def forward(self, x):
            return unsafe.WrongCube.apply(self.scale) * x

    (failure,) = check_layer(Scaled(), SHAPE).failures

    assert failure.check == "gradient"
    assert "the gradient of scale[" in failure.message


def test_a_detached_factor_is_told_as_a_difference():
    assert checks_failed(lambda x: x * x.detach()) == ["gradient"]
    assert checks_failed(lambda x: x * x.detach(), gradient_check=False) == []


@pytest.mark.parametrize("function", [torch.relu, torch.abs, torch.round, torch.sort], ids=lambda f: f.__name__)
def test_corners_and_jumps_are_left_out(function):
    assert "gradient" not in checks_failed(function)


def test_a_corner_at_a_parameter_of_zero_is_left_out():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.zeros(6))

        def forward(self, x):
            return torch.relu(self.gain * x)

    assert checks_failed(Gate()) == []


def test_dependence_on_the_batch_is_caught():
    (failure,) = check_layer(unsafe.CentreOverBatch(), SHAPE).failures

    assert failure.check == "batch invariance"
    assert "in the batch and" in failure.message
    assert failure.source is not None
    assert failure.source.function == "forward"
    assert checks_failed(unsafe.CentreOverBatch(), batch_invariance=False) == []


@pytest.mark.parametrize("layer", [unsafe.AlwaysDropout(), unsafe.Counting()], ids=["random", "counting"])
def test_nondeterminism_is_caught(layer):
    assert checks_failed(layer) == ["determinism"]
    assert checks_failed(layer, determinism=False) == []


def test_the_backward_pass_can_be_left_out():
    assert checks_failed(unsafe.root, backward=False, gradient_check=False) == []


def test_the_module_and_the_random_streams_are_left_as_they_were():
    module = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5)).eval()
    module[0].weight.grad = torch.ones(6, 6)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    streams = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002

    check_layer(module, SHAPE, half_precision=True)

    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(module[0].weight.grad, torch.ones(6, 6))
    assert not module.training
    assert torch.equal(torch.get_rng_state(), streams[0])
    assert random.getstate() == streams[1]
    assert (np.random.get_state()[1] == streams[2]).all()  # noqa: NPY002
    assert torch.get_default_dtype() is torch.float32


def test_the_same_seed_gives_the_same_report():
    assert check_layer(unsafe.where_trap, SHAPE).describe() == check_layer(unsafe.where_trap, SHAPE).describe()


def test_the_assertion_tells_line_input_and_remedy():
    with pytest.raises(AssertionError) as raised:
        assert_numerically_safe(unsafe.UnitNorm(), SHAPE)

    said = str(raised.value)
    assert "UnitNorm: 1 failure" in said
    assert "in divide" in said
    assert "return x / x.norm(dim=-1, keepdim=True)" in said
    assert "to do: Put an epsilon" in said
    assert_numerically_safe(nn.Linear(6, 2), SHAPE)


@pytest.mark.parametrize(
    ("layer", "spec"), [(nn.Linear, SHAPE), (3, SHAPE), (torch.relu, 4), (torch.relu, (0, 2)), (torch.relu, "abc")]
)
def test_what_cannot_be_checked_is_refused(layer, spec):
    with pytest.raises(ConfigurationError, match="must be"):
        check_layer(layer, spec)
