"""What weights that were thrown in the first steps tell: how far too long these were, and whose the overflow is."""

import math
from dataclasses import replace

import numpy as np
import pytest

from nan_callbacks.core.observation import StepObservation
from nan_callbacks.core.stall import BEYOND
from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.evidence import Evidence, History, LayerEvidence
from nan_callbacks.diagnosis.goal import Goal, Kind
from nan_callbacks.diagnosis.hypotheses.gradients import vanishing
from nan_callbacks.diagnosis.hypotheses.learning_rate import far_too_high
from nan_callbacks.diagnosis.hypotheses.numerics import numerics
from nan_callbacks.diagnosis.hypotheses.precision import squared
from nan_callbacks.diagnosis.lab import Start, Variation
from nan_callbacks.diagnosis.origin import Origin, OriginKind, Phase, ReplayResult

NON_FINITE = Goal(kind=Kind.NON_FINITE, base=Variation())
DIVERGENCE = Goal(kind=Kind.DIVERGENCE, base=Variation(start=Start.SNAPSHOT, steps=12))
STALL = Goal(kind=Kind.STALL, base=Variation(steps=12))


def thrown(growth, *, steps=1):
    origin = Origin(
        kind=OriginKind.OPERATION,
        operation="power",
        phase=Phase.FORWARD,
        operands=(TensorSummary.of(np.array([1e30], np.float32)),),
        result=TensorSummary.of(np.array([math.inf], np.float32)),
    )
    return Evidence(
        seen=StepObservation(step=steps, loss=math.inf, grad_norm=math.nan, param_norm=4.0 * growth),
        replay=ReplayResult(reproduced=True, origin=origin),
        history=History(losses=(1.0,) * steps, grad_norms=(1.0,) * steps, param_norms=(4.0,), from_start=True),
    )


def rates(evidence, goal):
    found = far_too_high(evidence, goal)
    return [] if found is None else [each.treatment.lr_factor for each in found.experiments]


@pytest.mark.parametrize("goal", [NON_FINITE, DIVERGENCE])
def test_the_growth_of_the_weights_says_how_low_a_rate_must_be_tried(goal):
    assert rates(thrown(1.2), goal) == []
    assert rates(thrown(35.0), goal) == pytest.approx([1e-4])
    assert rates(thrown(3500.0), goal) == pytest.approx([1e-6])
    assert rates(thrown(3500.0, steps=100), goal) == []  # it took long: that is another matter


def test_an_overflow_on_thrown_weights_is_not_confirmed_by_a_wider_format():
    assert [each.treatment.dtype for each in numerics(thrown(1.2), NON_FINITE).experiments] == ["float64"]
    assert numerics(thrown(300.0), NON_FINITE).experiments == ()
    assert numerics(thrown(300.0), NON_FINITE).observed


def enormous(norm, **about):
    history = History(losses=(1e34,) * 40, grad_norms=(norm,) * 40)
    seen = StepObservation(step=40, loss=1e34, grad_norm=norm)
    return Evidence(seen=seen, history=history, **{"optimizer": "Adam", "optimizer_epsilon": 1e-8, **about})


def test_gradients_whose_squares_overflow_stop_an_adaptive_optimizer():
    found = squared(enormous(4e35), STALL)
    assert found.code == "NAN110"
    assert found.observed
    assert "Adam" in found.because[0]
    assert squared(enormous(1e18), STALL) is None
    assert squared(enormous(4e35, optimizer_epsilon=None), STALL) is None
    short = replace(enormous(4e35), history=History(grad_norms=(4e35,) * (BEYOND - 1)))
    assert squared(short, STALL) is None


def test_layers_whose_gradients_have_no_norm_are_not_starved():
    layers = tuple(LayerEvidence(name=str(place), kind="Linear", grad_norm=math.inf) for place in range(3))
    assert vanishing(enormous(4e35, layers=layers), STALL) is None
