"""Unsafe torch layers and functions are caught, with the operation and the line."""

import numpy as np
import pytest
import torch

from nan_callbacks.layer_check import Failure, InputSpec, check_layer
from tests.layer_check import unsafe_layers as unsafe
from tests.layer_check.unsafe_layers import ROWS, WIDTH

SHAPE = (ROWS, WIDTH)
MASKED = [InputSpec(SHAPE), InputSpec(SHAPE, kind="mask")]
SHARES = InputSpec(SHAPE, kind="probabilities")

# layer, input_spec, phase, operation, a case in which it fails
UNSAFE = [
    (unsafe.UnitNorm(), SHAPE, "forward", "divide", "zeros"),
    (unsafe.LogOfSoftmax(), SHAPE, "forward", "log", "large scale (100 to 600)"),
    (unsafe.SoftplusByHand(), SHAPE, "forward", "exp", "large scale (100 to 600)"),
    (unsafe.SoftmaxByHand(), SHAPE, "forward", "exp", "huge scale (1e4)"),
    (unsafe.Standardise(), SHAPE, "forward", "divide", "constant rows"),
    (unsafe.StdOfBatch(), SHAPE, "forward", "std", "one-element batch"),
    (unsafe.root, SHAPE, "backward", "sqrt", "zeros"),
    (unsafe.where_trap, SHAPE, "backward", "sqrt", "ordinary noise"),
    (unsafe.masked_softmax, MASKED, "forward", "softmax", "all-masked row"),
    (unsafe.masked_mean, MASKED, "forward", "divide", "empty mask"),
    (unsafe.entropy, SHARES, "forward", "log", "zeros"),
    (unsafe.distance, [SHAPE, SHAPE], "backward", "sqrt", "zeros"),
    (unsafe.angle, (ROWS, 1), "backward", "acos", "large scale (100 to 600)"),
    (unsafe.inverse, SHAPE, "forward", "reciprocal", "zeros"),
    (unsafe.SingularRoot.apply, SHAPE, "backward", "divide", "zeros"),
]


def blamed(failure: Failure) -> bool:
    return failure.source is not None and failure.source.text.endswith("# @blame")


@pytest.mark.parametrize(
    ("layer", "spec", "phase", "operation", "case"), UNSAFE, ids=lambda value: getattr(value, "__qualname__", None)
)
def test_operation_line_and_case_are_named(layer, spec, phase, operation, case):
    result = check_layer(layer, spec)

    found = [failure for failure in result.failures if failure.check == "finite" and failure.phase == phase]
    assert found, result.describe()
    assert operation in {failure.operation for failure in found}, result.describe()
    assert all(blamed(failure) for failure in found), result.describe()
    assert case in {name for failure in found for name in (failure.case, *failure.also_in)}, result.describe()
    assert all(failure.remedy for failure in found)


def test_a_loss_on_probabilities_is_given_targets():
    target = InputSpec((ROWS,), kind="indices", high=WIDTH)

    result = check_layer(unsafe.cross_entropy_of_probabilities, SHARES, target_spec=target)

    assert [failure.operation for failure in result.failures] == ["log"]
    assert set(result.failures[0].inputs) == {"input", "target"}


def test_the_input_is_minimised_to_one_row_of_zeros_and_ones():
    (failure,) = check_layer(unsafe.UnitNorm(), SHAPE).failures

    assert failure.input.shape == (1, WIDTH)
    assert not failure.input.any()


def test_only_what_matters_is_left_of_a_large_input():
    (failure,) = check_layer(unsafe.SoftmaxByHand(), SHAPE).failures

    assert failure.input.shape == (1, WIDTH)
    assert np.isin(failure.input, (0.0, 1.0)).sum() == WIDTH - 1
    assert failure.input.max() > 88


def test_outputs_too_large_to_add_up_do_not_hide_the_origin():
    def enormous(x):
        return 2e38 + torch.sqrt(x * 0.0)

    (failure,) = check_layer(enormous, (ROWS, WIDTH)).failures

    assert (failure.phase, failure.operation) == ("backward", "sqrt")


def test_the_module_inside_is_named():
    (failure,) = check_layer(unsafe.Inside(), SHAPE).failures

    assert failure.module == "body.1 (UnitNorm)"


def test_half_precision_is_checked_on_request_only():
    def epsilon_too_small(x):
        return x / (x.norm(dim=-1, keepdim=True) + 1e-8)

    assert check_layer(epsilon_too_small, SHAPE, backward=False).passed
    (failure,) = check_layer(epsilon_too_small, SHAPE, backward=False, half_precision=True).failures
    assert failure.case == "half precision, zeros"
    assert failure.operation == "divide"


def test_an_error_at_an_ordinary_input_is_a_failure():
    result = check_layer(unsafe.Inside(), (ROWS, WIDTH + 1))

    assert [failure.check for failure in result.failures] == ["call"]
    assert "RuntimeError" in result.describe()
