"""A batch whose labels say the opposite: the error explains the gradient, and clipping proves nothing."""

import pytest

from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.diagnose import diagnose
from nan_callbacks.diagnosis.diagnosis import Confidence
from nan_callbacks.diagnosis.evidence import BatchPart, Role
from nan_callbacks.diagnosis.lab import Start, Trial, Variation
from tests.diagnosis.test_diagnose import ScriptedLab, labels_of, seen, spike


def lab(loss: float, norm: float, *, fresh: float = 3.0) -> ScriptedLab:
    """A batch that spikes, whose update harms other batches unless it is clipped."""

    def answer(variation: Variation) -> Trial:
        if variation.then_other:
            after = 1.1 if variation.clip_norm else 80.0
            return Trial(variation=variation, losses=(loss, after), grad_norms=(norm,))
        if variation.other_batch:
            return Trial(variation=variation, losses=(1.0,), grad_norms=(1.0,))
        of_batch = fresh if variation.start is Start.FRESH else loss
        steps = max(1, variation.steps)
        return Trial(variation=variation, losses=(of_batch,) * steps, grad_norms=(norm,) * steps)

    return ScriptedLab(answer)


def told(loss: float, norm: float, *, fresh: float = 3.0, **about) -> list[tuple[str, Confidence]]:
    evidence = spike(**{"seen": seen(loss=loss, grad_norm=norm), "batch": (labels_of(0.0, 1.0),), **about})
    return [(each.code, each.confidence) for each in diagnose(evidence, lab(loss, norm, fresh=fresh)).verdicts]


def test_labels_that_a_model_had_better_not_have_learnt_are_likely_wrong():
    assert told(60.0, 50.0, fresh=20.0) == [("DATA504", Confidence.LIKELY)]


def test_a_batch_that_is_hard_for_whoever_knows_nothing_as_well_is_not_called_wrong():
    assert told(60.0, 50.0, fresh=90.0) == []


def test_an_explosion_is_proved_by_clipping_where_the_gradient_has_outgrown_the_loss():
    assert told(1.2, 1e4)[0] == ("GRAD203", Confidence.CONFIRMED)


def test_it_stays_likely_where_the_loss_explains_most_of_it():
    assert told(60.0, 250.0) == [("GRAD203", Confidence.LIKELY)]


@pytest.mark.parametrize("about", [{"moved_share": 0.9}, {"outlier_rows": (3,), "outlier_ratio": 20.0}])
def test_inputs_that_differ_as_well_speak_against_the_labels(about):
    failed = TensorSummary(name="x", shape=(16, 3), dtype="float32", minimum=-1.0, maximum=1.0)
    inputs = BatchPart(role=Role.INPUT, failed=failed, recent=failed, **about)
    codes = [code for code, _ in told(60.0, 50.0, fresh=20.0, batch=(labels_of(0.0, 1.0), inputs))]
    assert "DATA504" not in codes
