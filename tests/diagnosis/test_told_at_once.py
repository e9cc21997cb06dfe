"""Failures that need no trial, and rows that are no samples."""

import math
from dataclasses import replace

import pytest

from nan_callbacks.core.finding import Action, Finding, Severity
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.diagnose import diagnose
from nan_callbacks.diagnosis.evidence import BatchPart, Evidence, History, Role
from nan_callbacks.diagnosis.lab import Trial, Variation
from nan_callbacks.diagnosis.origin import Origin, OriginKind, ReplayResult


class Lab:
    """Sixteen rows, of which some break the step; another batch does not."""

    rows = 16
    step_seconds = 0.0

    def __init__(self, guilty=()):
        self.guilty, self.ran = set(guilty), []

    def replay(self):
        return ReplayResult()

    def run(self, variation: Variation) -> Trial:
        self.ran.append(variation)
        well = variation.other_batch or (self.guilty and self.guilty <= set(variation.without_rows))
        losses = (1.0 if well else math.nan,) * max(1, variation.steps)
        return Trial(variation=variation, losses=losses, grad_norms=losses)


def failed(origin, **about):
    replay = ReplayResult(origin=origin, reproduced=True)
    observed = StepObservation(step=about.pop("step", 100), loss=math.nan, grad_norm=math.nan)
    about = {"history": History(losses=(1.0,) * 50), "framework": "lightning", **about}
    return Evidence(seen=observed, replay=replay, **about)


def error(kind, message):
    return Origin(kind=OriginKind.EXCEPTION, operation=kind, detail=f"{kind}: {message}")


def codes(diagnosis):
    return [verdict.code for verdict in diagnosis.verdicts]


NO_GRADIENT = error("RuntimeError", "element 0 of tensors does not require grad and does not have a grad_fn")


@pytest.mark.parametrize(("frozen", "said"), [(True, "is frozen"), (False, "depends on none of them")])
def test_a_loss_that_nothing_can_be_differentiated_of_is_told_at_once(frozen, said):
    lab = Lab()
    found = diagnose(failed(NO_GRADIENT, all_frozen=frozen), lab)
    assert (codes(found), lab.ran) == (["OPT608"], [])
    assert said in found.describe()


def test_a_tensor_that_was_overwritten_is_told_at_once():
    overwritten = error("RuntimeError", "one of the variables needed has been modified by an inplace operation: [8, 8]")
    lab = Lab()
    assert (codes(diagnose(failed(overwritten), lab)), lab.ran) == (["ENV703"], [])


TEACHER = Origin(
    kind=OriginKind.PARAMETERS,
    operation="teacher.weight",
    is_trained=False,
    result=TensorSummary(name="teacher.weight", shape=(4, 4), dtype="float32", nan=1),
)


def test_a_parameter_that_the_fit_was_given_broken_is_named_at_once():
    lab = Lab()
    found = diagnose(failed(TEACHER, step=0, history=History(is_complete=True, incidents=1, skipped=1)), lab)
    assert (codes(found), lab.ran) == (["NAN103"], [])
    assert "teacher.weight was non-finite before the first step of this fit" in found.describe()


@pytest.mark.parametrize(
    "history",
    [
        History(),
        History(is_complete=True, losses=(1.0,), grad_norms=(1.0,)),
        History(is_complete=True, incidents=1),
        History(is_complete=True, incidents=1, skipped=1, rollbacks=1),
    ],
    ids=["without a fit", "after a step", "after a step that was let pass", "after a rollback"],
)
def test_what_the_fit_may_have_broken_is_not_said_to_be_given(history):
    assert "NAN103" not in codes(diagnose(failed(TEACHER, step=0, history=history), Lab()))


def masked(**result):
    return Origin(
        kind=OriginKind.OPERATION,
        operation="masked_fill",
        operands=(TensorSummary(name="self", shape=(16, 3), dtype="float32", minimum=-1.0, maximum=1.0),),
        result=TensorSummary(name="result", shape=(16, 3), dtype="float32", **result),
    )


def test_a_row_in_which_everything_is_masked_is_named():
    found = diagnose(failed(masked(negative_inf=11), guilty_rows=(4,)), Lab(guilty=[4]))
    assert codes(found)[0] == "NAN112"
    assert found.cause.confidence == "confirmed"
    assert "sample 4" in found.describe()


def test_a_fill_with_something_else_is_no_mask():
    assert "NAN112" not in codes(diagnose(failed(masked(nan=11)), Lab()))


@pytest.mark.parametrize(
    "message", ["InputOutsideDomain: ", "ValueError: the input is outside of the domain of the spline"]
)
def test_an_operand_that_a_library_refuses_is_outside_of_its_domain(message):
    refused = replace(error("ValueError", ""), operation=message.partition(":")[0], detail=message)
    assert codes(diagnose(failed(refused, guilty_rows=(3,)), Lab(guilty=[3])))[0] == "NAN114"


def far_off(rows, shape):
    summary = TensorSummary(name="batch[0]", shape=shape, dtype="float32")
    return BatchPart(role=Role.INPUT, failed=summary, outlier_rows=rows, outlier_ratio=1e4)


def test_rows_of_a_part_of_another_length_are_not_left_out():
    lab = Lab()
    operation = Origin(kind=OriginKind.OPERATION, operation="multiply")
    found = diagnose(failed(operation, batch=(far_off((19,), (24, 2)),), rows=16), lab)
    assert found.cause.code == "DATA503"
    assert not any(variation.without_rows or variation.only_rows for variation in lab.ran)


def test_a_nan_that_led_to_an_error_is_the_origin_and_the_error_is_known():
    raised = error("ValueError", "Expected parameter loc")
    replay = ReplayResult(origin=TEACHER, others=(raised,), reproduced=True)
    assert replay.error is raised
    assert ReplayResult(origin=TEACHER, reproduced=True).error is None


def test_an_incident_of_nothing_but_parameters_is_named_without_a_replay():
    seen = StepObservation(step=0, non_finite_parameters=1, non_finite_names=("teacher.weight",), applied=False)
    finding = Finding.of(
        seen, code="NAN103", title="non-finite parameters", quantity="parameters", severity=Severity.ERROR,
        action=Action.OBSERVE,
    )  # fmt: skip
    evidence = Evidence(seen=seen, findings=(finding,), history=History(is_complete=True), framework="keras")
    assert codes(diagnose(evidence, None)) == ["NAN103"]


@pytest.mark.parametrize(("what", "is_label"), [("list index", False), ("Target 7 is", True), ("index 9 is", True)])
def test_a_list_of_the_program_that_is_too_short_is_no_label(what, is_label):
    raised = error("IndexError", f"{what} out of {'bounds' if is_label else 'range'}")
    assert ("DATA505" in codes(diagnose(failed(raised), Lab()))) == is_label


def test_a_value_that_was_picked_without_an_error_was_there():
    """Such as -Inf out of a mask, by a label that is as ever."""
    summary = TensorSummary(name="batch[1]", shape=(16,), dtype="int64", minimum=0.0, maximum=3.0)
    label = BatchPart(role=Role.TARGET, failed=summary, recent=summary, is_integral=True)
    picked = Origin(kind=OriginKind.OPERATION, operation="gather", native_operation="aten.gather.default")
    assert "DATA511" not in codes(diagnose(failed(picked, batch=(label,)), Lab()))
