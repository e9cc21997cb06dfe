"""What is named where nothing could be proved, and in whose place outliers step back."""

import pytest

from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.diagnose import diagnose
from nan_callbacks.diagnosis.diagnosis import Confidence
from nan_callbacks.diagnosis.evidence import BatchPart, Concern, Evidence, Role
from nan_callbacks.diagnosis.hypotheses import hypothesise
from nan_callbacks.diagnosis.lab import Trial
from tests.diagnosis.test_diagnose import ScriptedLab, broken_rows, seen, spike, stalled, standing_still


def raw(size: float) -> BatchPart:
    """Inputs on another scale than that of the weights."""
    failed = TensorSummary(name="x", shape=(16, 3), dtype="float32", minimum=-size, maximum=size)
    return BatchPart(role=Role.INPUT, failed=failed, recent=failed, recent_mean=size / 2, recent_std=size)


@pytest.mark.parametrize(("size", "told"), [(300.0, ["DATA502"]), (1.0, [])])
def test_unscaled_data_that_a_trial_is_too_short_to_mend_are_possible(size, told):
    found = diagnose(stalled(batch=(raw(size),)), ScriptedLab(standing_still))
    assert [(each.code, each.confidence) for each in found.verdicts] == [(code, Confidence.POSSIBLE) for code in told]


def test_they_are_not_named_beside_a_cause():
    seen_too = Concern(code="DATA507", kind="filled", because=("x fills int32",))
    found = diagnose(stalled(batch=(raw(300.0),), concerns=(seen_too,)), ScriptedLab(standing_still))
    assert [(each.code, each.confidence) for each in found.verdicts] == [("DATA507", Confidence.LIKELY)]


def test_a_filled_type_is_no_reason_for_a_nan():
    filled = Concern(code="DATA507", kind="filled", because=("x fills int32",))
    assert "DATA507" not in [each.code for each in hypothesise(Evidence(seen=seen(), concerns=(filled,)))]


@pytest.mark.parametrize(("rows", "score"), [((3,), 0.9), (tuple(range(8)), 0.9), (tuple(range(16)), 0.75)])
def test_outliers_are_a_few_samples(rows, score):
    """A batch of which most are is one of another kind."""
    (outliers,) = [each for each in hypothesise(broken_rows(*rows)) if each.code == "DATA503"]
    assert outliers.score == score


def test_what_a_trial_cannot_do_is_said_in_a_line():
    def refusing(variation):
        note = "\x1b[1mit cannot run\x1b[0m in float64:\n\n" + 300 * "word "
        return Trial(variation=variation, supported=False, note=note)

    lab = ScriptedLab(refusing)
    trials = diagnose(broken_rows(3), lab).trials
    assert trials
    assert all("\x1b" not in each.outcome and "\n" not in each.outcome and len(each.outcome) < 125 for each in trials)


def test_leaving_out_rows_proves_nothing_about_labels_of_one_class():
    one_class = Concern(code="DATA510", kind="single_class", because=("every label is 0",))
    evidence = spike(concerns=(one_class,), guilty_rows=(3,), batch=(raw(1.0),))
    (suspected,) = [each for each in hypothesise(evidence) if each.code == "DATA510"]
    assert suspected.experiments == ()
