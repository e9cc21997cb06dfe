"""Operations that are one unlucky batch away from NaN or Inf."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nan_callbacks.checkup.hazards import CODES, FLOORS, LIMITS, examine_hazards, headroom_bits, judge_operand
from nan_callbacks.core.tensor_summary import TensorSummary
from tests.checkup.facts import hazard, healthy, said


def judged(operation, *values, before="", dtype="float32"):
    found = judge_operand(operation, TensorSummary.of(np.array(values, np.float64), dtype=dtype), before)
    return found and found[0]


# -- operands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["log", "sqrt", "rsqrt", "norm"])
def test_operands_near_zero(operation):
    assert judged(operation, 0.0, 1.0) == "near_zero"
    assert judged(operation, 1e-9, 1.0) == "near_zero"
    assert judged(operation, 0.1, 1.0) is None
    assert judged(operation, -1.0, 1.0) is None  # the step fails by itself


@pytest.mark.parametrize("operation", ["divide", "reciprocal"])
def test_divisors_near_zero(operation):
    assert judged(operation, 0.0, 1.0) == "near_zero"
    assert judged(operation, -1e-9, 1.0) == "near_zero"
    assert judged(operation, -1.0, 2.0) is None
    assert judged(operation, 3.0, 4.0, before="norm") == "near_zero"


@pytest.mark.parametrize("before", sorted(FLOORS))
@pytest.mark.parametrize("operation", ["log", "sqrt", "rsqrt", "divide", "reciprocal"])
def test_an_epsilon_keeps_operands_away_from_zero(operation, before):
    assert judged(operation, 1e-7, 1.0, before=before) is None
    assert judged(operation, 0.0, 1.0, before=before) == "near_zero"


@pytest.mark.parametrize("before", ["softmax", "sigmoid"])
def test_logarithms_of_probabilities(before):
    assert judged("log", 0.3, 0.7, before=before) == "log_of_probability"


@pytest.mark.parametrize("dtype", sorted(LIMITS))
def test_exponents_near_the_end_of_their_type(dtype):
    most = math.log(LIMITS[dtype])
    assert judged("exp", 0.0, 0.99 * most, dtype=dtype) == "near_overflow"
    assert judged("exp", -1e9, 0.5 * most, dtype=dtype) is None


@given(operation=st.sampled_from(["log", "sqrt", "rsqrt", "norm", "divide", "reciprocal", "exp", "power", "add"]))
def test_operands_without_any_number_are_not_judged(operation):
    for values in ([], [np.nan], [np.inf, -np.inf]):
        assert judged(operation, *values) is None


@pytest.mark.parametrize("operation", ["divide", "reciprocal"])
def test_counts_are_safe_divisors(operation):
    counts, none = (TensorSummary.of(np.array(each, np.float32)) for each in ([1.0, 7.0], [0.0, 7.0]))
    assert judge_operand(operation, counts, "sum") == ("near_zero", None)
    assert judge_operand(operation, counts, "sum", counts=True) is None
    assert judge_operand(operation, none, "sum", counts=True) == ("near_zero", None)
    assert judge_operand(operation, TensorSummary.of(np.ones(3, np.float32)), "sum") is None


@given(
    operation=st.sampled_from([*CODES, "add", "unknown"]),
    values=st.lists(st.floats(), max_size=5),
    before=st.sampled_from(["", "softmax", "norm", "add", "matmul"]),
    dtype=st.sampled_from(["float16", "bfloat16", "float32", "float64", "int64", ""]),
)
def test_any_operand_can_be_judged_and_told(operation, values, before, dtype):
    operand = TensorSummary.of(np.array(values, np.float64), dtype=dtype)
    found = judge_operand(operation, operand, before)
    if found is not None:
        made = hazard(operation, kind=found[0], operand=operand, headroom_bits=found[1], before=before)
        assert [code for code, _ in said(healthy(hazards=(made,)))] == [CODES[operation]]


def test_bits_to_the_largest_number():
    assert headroom_bits(65504, "float16") == 0
    assert headroom_bits(65504 / 8, "float16") == 3
    assert headroom_bits(0.0, "float32") > 100


# -- notices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", sorted(CODES))
def test_each_operation_has_a_code_and_a_remedy(operation):
    (notice,) = examine_hazards((hazard(operation),))
    assert notice.code == CODES[operation]
    assert notice.severity.name == "INFO"
    assert notice.remedy
    assert notice.source.line == 3
    assert notice.where == "net.head"


def test_a_logarithm_of_probabilities_is_a_warning():
    (notice,) = examine_hazards((hazard("log", kind="log_of_probability", before="softmax"),))
    assert notice.severity.name == "WARNING"
    assert "log_softmax" in notice.remedy


def test_half_precision_tells_its_bits():
    (notice,) = examine_hazards((hazard("matmul", kind="half_precision", headroom_bits=1.5),))
    assert notice.code == "OPT604"
    assert "1.5 bits" in notice.evidence[0]


def test_one_line_is_told_once():
    assert len(list(examine_hazards((hazard("log"),) * 3))) == 1
    assert len(list(examine_hazards((hazard("log"), hazard("log", line=4))))) == 2
    assert len(list(examine_hazards((hazard("log"), hazard("log", module="net.tail"))))) == 2


def test_two_operations_of_one_line_are_two_hazards():
    """``torch.log(x) / y``: both may fail, each has its own remedy."""
    told = [notice.code for notice in examine_hazards((hazard("log"), hazard("divide")))]
    assert told == ["NAN111", "NAN112"]


def test_nothing_is_known_of_the_place():
    (notice,) = examine_hazards((hazard(module="", source=None, operand=None),))
    assert notice.where == "outside of all modules"
    assert notice.describe()
