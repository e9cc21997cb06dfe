"""Labels are accused only where labels are what has changed."""

import numpy as np
import pytest

from nan_callbacks.core.finding import Action, Finding, Severity
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.batch_evidence import NamedArray, batch_parts
from nan_callbacks.diagnosis.diagnose import diagnose
from nan_callbacks.diagnosis.diagnosis import Confidence
from nan_callbacks.diagnosis.evidence import Evidence, History, LayerEvidence, Role
from nan_callbacks.diagnosis.history import HistoryRecorder
from nan_callbacks.diagnosis.hypotheses import hypothesise
from nan_callbacks.diagnosis.lab import Start, Trial, Variation
from nan_callbacks.diagnosis.origin import Origin, OriginKind, Phase, ReplayResult

ROWS = 16


class Lab:
    """Batches cost 0.1, and the failed one 20, unless something that cures it is done."""

    rows, step_seconds = ROWS, 0.0

    def __init__(self, cured) -> None:
        self.cured = cured

    def replay(self) -> ReplayResult:
        return ReplayResult()

    def run(self, variation: Variation) -> Trial:
        loss = 0.1 if variation.other_batch or self.cured(variation) else 20.0
        return Trial(variation=variation, losses=(loss,) * max(1, variation.steps), grad_norms=(loss,))


def batches(inputs, labels):
    """The failed batch is the last one."""
    named = [
        (NamedArray(name="x", values=x.astype(np.float32)), NamedArray(name="y", values=y))
        for x, y in zip(inputs, labels, strict=True)
    ]
    return batch_parts(named[-1], named[:-1], (Role.INPUT, Role.TARGET))


def spike(parts, **about) -> Evidence:
    step = StepObservation(step=100, loss=20.0, grad_norm=20.0)
    finding = Finding.of(
        step, code="LOSS401", title="loss spike", severity=Severity.ERROR, action=Action.SKIP_STEP, quantity="loss",
        value=20.0, limit=5.0,
    )  # fmt: skip
    history = History(losses=(0.1,) * 50, grad_norms=(0.1,) * 50, param_norms=(5.0,) * 4)
    return Evidence(
        **{"seen": step, "findings": (finding,), "history": history, "batch": parts, "classifies": True, **about}
    )


def drawn(count=9):
    draw = np.random.default_rng(0)
    return [draw.random((ROWS, 6)) for _ in range(count)], [draw.integers(0, 4, ROWS) for _ in range(count)]


def found(evidence, cured=lambda variation: False):
    return [(each.code, each.confidence) for each in diagnose(evidence, Lab(cured)).verdicts]


def test_labels_of_a_batch_whose_inputs_are_as_ever_are_accused():
    assert found(spike(batches(*drawn())))[0] == ("DATA504", Confidence.CONFIRMED)


def test_who_compares_no_classes_with_labels_accuses_none():
    assert "DATA504" not in dict(found(spike(batches(*drawn()), classifies=False)))


def test_inverted_pictures_are_data_of_another_kind():
    inputs, labels = drawn()
    inputs = [np.where(np.arange(6) == 2, 0.0, x) for x in inputs]  # a margin that is always black
    inputs[-1] = 1 - inputs[-1]
    assert found(spike(batches(inputs, labels)))[0] == ("DATA512", Confidence.CONFIRMED)


def test_a_change_that_a_batch_has_passed_with_is_one_still():
    inputs, labels = drawn()
    inputs[-2:] = [255 * x for x in inputs[-2:]]
    few = spike(batches(inputs, labels), guilty_rows=(3, 9))

    def without_them(variation):
        return variation.without_rows == (3, 9) or variation.input_scale < 0.1

    assert found(few, without_them) == [("DATA512", Confidence.CONFIRMED)]
    kept = spike(batches(*drawn()), guilty_rows=(3, 9))
    assert found(kept, without_them)[0] == ("DATA504", Confidence.CONFIRMED)


@pytest.mark.parametrize(("rows", "code"), [(ROWS, "DATA512"), (2, "DATA504")])
def test_a_unit_change_of_all_targets_is_no_wrong_label(rows, code):
    inputs, _ = drawn()
    targets = [x.sum(1).astype(np.float32) - 3 for x in inputs]
    targets[-1][:rows] *= 1000
    evidence = spike(batches(inputs, targets), classifies=False)
    assert found(evidence, lambda variation: variation.clip_targets)[0] == (code, Confidence.CONFIRMED)


def test_steps_that_a_rollback_undid_have_shown_that_the_start_was_good():
    recorder = HistoryRecorder()
    for step in range(37):
        recorder.observe(StepObservation(step=step, loss=1.0, grad_norm=1.0))
    recorder.rolled_back(1)
    broken = StepObservation(step=41, loss=float("nan"), grad_norm=float("nan"))
    accused = {
        history.reached: [each.code for each in hypothesise(Evidence(seen=broken, history=history))]
        for history in (recorder.history(), History(losses=(1.0,), grad_norms=(1.0,)))
    }
    assert "ACT304" not in accused[37]
    assert "ACT304" in accused[0]
    other = HistoryRecorder()
    other.load_state_dict(recorder.state_dict())
    assert other.history() == recorder.history()


def test_zeros_are_no_scale_on_which_signals_explode():
    """They are meant: at the identity, where the derivative of a square root is infinite."""
    layers = (
        LayerEvidence(name="to", kind="Linear", weight_norm=0.0, weight_scale=0.0, consumed=True),
        LayerEvidence(name="head", kind="Linear", weight_norm=1.0, weight_scale=1.0),
    )
    zeros = TensorSummary.of([0.0, 0.0], name="squares")
    origin = Origin(
        kind=OriginKind.OPERATION, phase=Phase.BACKWARD, operation="sqrt", operands=(zeros,),
        result=TensorSummary.of([np.nan]),
    )  # fmt: skip
    step = StepObservation(step=0, loss=1.0, grad_norm=float("nan"))
    evidence = Evidence(seen=step, layers=layers, replay=ReplayResult(origin=origin, reproduced=True))
    assert "ACT304" not in [each.code for each in hypothesise(evidence)]


def test_one_matrix_of_zeros_that_all_weights_are_made_of_blocks_them_all():
    mute = (LayerEvidence(name="relu", kind="ReLU", dead_share=1.0),)
    evidence = Evidence(
        seen=StepObservation(step=99, loss=1.0, grad_norm=0.0), layers=mute, zero_weights=("makes.weights",),
        history=History(losses=(1.0,) * 64, grad_norms=(0.0,) * 64),
    )  # fmt: skip

    class Fresh(Lab):
        def run(self, variation: Variation) -> Trial:
            share = 0.9 if variation.start is Start.FRESH else 1.0
            losses = tuple(share**step for step in range(max(1, variation.steps)))
            return Trial(variation=variation, losses=losses, grad_norms=(0.0,) * len(losses))

    cause = diagnose(evidence, Fresh(None)).cause
    assert cause is not None
    assert cause.code == "ACT305"
