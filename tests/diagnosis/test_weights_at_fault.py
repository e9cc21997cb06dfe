"""The same batches with the present weights and with the last good ones: a line through the origin, and its cost."""

import math
from dataclasses import dataclass

import pytest

from nan_callbacks.core.finding import Action, Finding, Severity
from nan_callbacks.diagnosis.lab import Start, Trial, Variation
from nan_callbacks.diagnosis.weights_at_fault import weights_at_fault


@dataclass
class Line:
    """y = weight * x at x = 1, squared error; the targets of the failed batch and of one before it."""

    present: float
    good: float
    failed: float
    other: float = 1.1
    supported: bool = True

    def run(self, variation: Variation) -> Trial:
        weight = self.good if variation.start is Start.WEIGHTS else self.present
        off = weight - (self.other if variation.other_batch else self.failed)
        trial = Trial(variation=variation, losses=(off * off,), grad_norms=(2 * abs(off),))
        return trial if self.supported else Trial(variation=variation, supported=False)


def finding(code, quantity="loss", limit=1.0):
    place = {"step": 9, "epoch": 0, "batch_index": 9}
    return Finding(code=code, title="", severity=Severity.ERROR, action=Action.ROLLBACK, quantity=quantity,
                   limit=limit, **place)  # fmt: skip


SPIKES = [finding("LOSS401"), finding("GRAD201", "grad_norm")]


@pytest.mark.parametrize("spike", SPIKES, ids=["loss", "gradient"])
def test_a_batch_that_spikes_with_the_good_weights_as_well_is_at_fault_itself(spike):
    assert weights_at_fault(Line(present=1.0, good=0.9, failed=50.0), spike) is False


@pytest.mark.parametrize("spike", SPIKES, ids=["loss", "gradient"])
def test_weights_with_which_every_batch_spikes_are_at_fault(spike):
    assert weights_at_fault(Line(present=30.0, good=1.0, failed=1.2), spike) is True


def test_weights_without_which_the_batch_is_calm_are_at_fault():
    assert weights_at_fault(Line(present=1.0, good=5.0, failed=5.5), finding("LOSS401")) is True


@pytest.mark.parametrize("code", ["LOSS402", "LOSS407"])
def test_a_level_that_the_good_weights_bring_down_is_the_fault_of_the_present_ones(code):
    assert weights_at_fault(Line(present=3.0, good=1.0, failed=1.2), finding(code)) is True


@pytest.mark.parametrize("code", ["LOSS402", "LOSS407"])
def test_a_level_that_is_as_high_with_the_good_weights_is_not_the_weights_fault(code):
    assert weights_at_fault(Line(present=1.0, good=0.9, failed=5.0, other=5.0), finding(code)) is False


def test_what_only_one_batch_says_blames_weights_that_were_seen_to_grow_and_no_others():
    lab = Line(present=3.0, good=1.0, failed=1.2, other=9.0)
    assert weights_at_fault(lab, finding("LOSS402")) is True
    assert weights_at_fault(lab, finding("LOSS407")) is False


@pytest.mark.parametrize(
    ("lab", "asked"),
    [
        (Line(1.0, 1.0, 50.0, supported=False), finding("LOSS401")),
        (Line(1.0, 1.0, 5.0, supported=False), finding("LOSS402")),
        (Line(1.0, math.nan, 50.0), finding("LOSS401")),
        (Line(1.0, 1.0, 50.0), finding("ACT301", "statistics_jump")),
        (Line(1.0, 1.0, 50.0), finding("LOSS401", limit=None)),
        (Line(1.0, 1.0, 1.1), finding("LOSS401")),
    ],
    ids=["no trial", "no trial of a level", "broken weights", "another quantity", "no limit", "it does not spike here"],
)
def test_what_trials_cannot_tell_is_not_told(lab, asked):
    assert weights_at_fault(lab, asked) is None
