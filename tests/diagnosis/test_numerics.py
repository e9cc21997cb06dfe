"""Which cause an operation and the ranges of its operands point to."""

import numpy as np
import pytest

from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.hypotheses.numerics import code_of_origin
from nan_callbacks.diagnosis.origin import Origin, OriginKind, Phase

ZERO, ONE, HUGE, NEGATIVE, TINY = [0.0, 1.0], [1.0, 2.0], [1e30, 1e30], [-1e-9, 1.0], [1e-39, 1.0]


def code(operation: str, *operands: list[float], phase: Phase = Phase.FORWARD, result: float = np.inf, **about):
    return code_of_origin(
        Origin(
            kind=OriginKind.OPERATION,
            operation=operation,
            phase=phase,
            operands=tuple(TensorSummary.of(np.array(values, np.float32)) for values in operands),
            result=TensorSummary.of(np.array([result], np.float32)),
            **about,
        )
    )


@pytest.mark.parametrize(
    ("operation", "operands", "expected"),
    [
        ("log", [ZERO], "NAN111"),
        ("log", [NEGATIVE], "NAN114"),
        ("log1p", [[-1.0, 0.0]], "NAN111"),
        ("log1p", [[-1.5, 0.0]], "NAN114"),
        ("logit", [[0.0, 1.0]], "NAN111"),
        ("logit", [[0.0, 1.1]], "NAN114"),
        ("xlogy", [ONE, ZERO], "NAN111"),
        ("divide", [ONE, ZERO], "NAN112"),
        ("divide", [ZERO, TINY], "NAN112"),
        ("divide", [HUGE, [0.1, 0.2]], "NAN110"),
        ("prod", [[2.0, 23.0]], "NAN110"),
        ("rsqrt", [ZERO], "NAN112"),
        ("rsqrt", [NEGATIVE], "NAN114"),
        ("reciprocal", [ZERO], "NAN112"),
        ("mean", [[]], "NAN112"),
        ("sqrt", [NEGATIVE], "NAN114"),
        ("acos", [[1.0000001]], "NAN114"),
        ("cholesky", [ONE], "NAN114"),
        ("inverse", [ZERO], "NAN112"),
        ("exp", [[89.0]], "NAN110"),
        ("matmul", [HUGE, HUGE], "NAN110"),
        ("norm", [HUGE], "NAN110"),
        ("power", [HUGE, [2.0]], "NAN110"),
        ("power", [ZERO, [-1.0]], "NAN112"),
        ("cast", [HUGE], "NAN110"),
        ("my_kernel", [ONE], None),
    ],
)
def test_forward(operation: str, operands: list[list[float]], expected: str | None):
    assert code(operation, *operands) == expected


@pytest.mark.parametrize(
    ("operation", "operands", "expected"),
    [
        ("sqrt", [ZERO], "NAN113"),
        ("norm", [ZERO], "NAN113"),
        ("std", [ONE], "NAN113"),
        ("acos", [[1.0]], "NAN113"),
        ("power", [ZERO, [0.5]], "NAN113"),
        ("power", [NEGATIVE, [0.4]], "NAN113"),  # as of the logarithm of a negative number: not used, but derived
        ("power", [HUGE, [3.0]], "NAN110"),
        ("log", [ZERO], "NAN113"),  # the trap of `where`: its forward value was not used
        ("divide", [ONE, ZERO], "NAN113"),  # the same trap
        ("divide", [ONE, TINY], "NAN112"),
        ("matmul", [HUGE, HUGE], "NAN110"),
        ("decomposition", [ONE], "NAN113"),
        ("my_kernel", [ONE], None),
    ],
)
def test_backward(operation: str, operands: list[list[float]], expected: str | None):
    assert code(operation, *operands, phase=Phase.BACKWARD) == expected


def test_a_logarithm_of_zero_that_was_computed_with_is_no_trap_of_where():
    assert code("log", ZERO, phase=Phase.BACKWARD, absorbed_by="exp") == "NAN111"


def test_a_quotient_that_was_computed_with_is_none_either():
    assert code("divide", ONE, ZERO, phase=Phase.BACKWARD, absorbed_by="exp") == "NAN112"


def test_the_power_of_a_negative_base_is_outside_of_its_domain():
    assert code("power", [-1.0], [0.5], result=np.nan) == "NAN114"


def test_the_spread_of_a_single_value_is_a_division_by_zero():
    assert code("std", [1.0], result=np.nan) == "NAN112"


def test_a_row_that_is_masked_entirely_is_a_division_by_zero():
    assert code("softmax", [-np.inf, -np.inf], result=np.nan) == "NAN112"


def test_a_hand_written_gradient_is_not_judged_by_its_operation():
    assert code("log", ZERO, custom_gradient=True) is None


def test_an_optimizer_is_not_judged_by_its_operation():
    assert code("sqrt", ZERO, phase=Phase.OPTIMIZER) is None


@pytest.mark.parametrize("operation", ["smooth_l1_loss", "mse_loss", "nll_loss", "mean", "std"])
def test_a_mean_over_nothing_is_a_division_by_zero(operation: str):
    assert code(operation, [], [], result=np.nan) == "NAN112"


def test_targets_that_are_all_left_out_are_averaged_as_nothing():
    assert code("nll_loss", [-1.0, -2.0], [-100.0, -100.0], result=np.nan) == "NAN112"
    assert code("nll_loss", [-1.0, np.nan], [-100.0, -100.0], result=np.nan) is None
    assert code("nll_loss", [-1.0, -np.inf], [0.0, 1.0], result=np.inf) is None


def test_a_nan_of_an_unknown_operation_on_some_elements_is_not():
    assert code("smooth_l1_loss", ONE, ONE, result=np.nan) is None


def test_infinity_that_was_there_before_the_step():
    assert code("nll_loss", ONE, [np.inf, 1.0], result=np.nan) == "NAN112"


def test_running_statistics_are_shown_as_they_have_become():
    assert code("batch_norm", HUGE, [np.inf, 1.0], result=np.nan) is None
