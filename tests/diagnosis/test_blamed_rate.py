"""When a lower rate helps and the rate is not to blame all the same: what it takes to confirm one that is too high."""

import math

import numpy as np
import pytest

from nan_callbacks.core.observation import StepObservation
from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.diagnose import diagnose
from nan_callbacks.diagnosis.diagnosis import Confidence
from nan_callbacks.diagnosis.evidence import Evidence, History
from nan_callbacks.diagnosis.goal import Goal, Kind
from nan_callbacks.diagnosis.hypotheses.learning_rate import too_high
from nan_callbacks.diagnosis.lab import Start, Trial, Variation
from nan_callbacks.diagnosis.origin import Origin, OriginKind, Phase, ReplayResult
from tests.diagnosis.test_diagnose import ScriptedLab, seen, spike


def failing(operation: str, operand: float, *, losses: int = 40, norms: tuple[float, ...] = (4.0, 4.0)) -> Evidence:
    origin = Origin(
        kind=OriginKind.OPERATION,
        operation=operation,
        phase=Phase.FORWARD,
        operands=(TensorSummary.of(np.array([operand], np.float32)),),
        result=TensorSummary.of(np.array([math.inf], np.float32)),
    )
    return Evidence(
        seen=StepObservation(step=losses, loss=math.nan, grad_norm=math.nan, learning_rates=(0.05,)),
        replay=ReplayResult(reproduced=True, origin=origin),
        history=History(losses=(1.0,) * losses, grad_norms=(1.0,) * losses, param_norms=norms, from_start=True),
    )


def confirmed(evidence: Evidence, lab: ScriptedLab) -> list[str]:
    return [each.code for each in diagnose(evidence, lab).verdicts if each.confidence is Confidence.CONFIRMED]


@pytest.mark.parametrize(
    ("operation", "operand", "norms", "circumstantial"),
    [
        ("log", -0.1, (4.0, 4.0), True),  # a lower rate only takes longer to come to the same place
        ("log", -0.1, (4.0, 12.0), False),
        ("power", 1e30, (4.0, 4.0), False),
    ],
    ids=["ordinary numbers", "thrown weights", "overflow"],
)
@pytest.mark.parametrize("losses", [11, 40])
def test_ordinary_numbers_outside_of_a_domain_bear_a_rate_out_and_do_not_prove_it(
    operation, operand, norms, circumstantial, losses
):
    evidence = failing(operation, operand, losses=losses, norms=norms)
    assert too_high(evidence, Goal(kind=Kind.NON_FINITE, base=Variation())).circumstantial is circumstantial


@pytest.mark.parametrize(
    ("pace", "norms", "told"),
    [(0.97, (4.0, 4.0), ["OPT601"]), (0.9995, (4.0, 4.0), []), (0.9995, (4.0, 12.0), ["OPT601"])],
    ids=["gets somewhere", "stands still", "thrown weights"],
)
def test_a_rate_at_which_nothing_moves_does_not_come_to_where_the_run_fails_either(pace, norms, told):
    def answer(variation: Variation) -> Trial:
        if variation.lr_factor < 1.0:
            losses = tuple(pace**step for step in range(max(1, variation.steps)))
            return Trial(variation=variation, losses=losses, grad_norms=losses)
        steps = max(1, variation.steps)
        return Trial(variation=variation, losses=(1.0,) * (steps - 1) + (math.nan,), grad_norms=(math.nan,))

    assert confirmed(failing("sum", 1e38, losses=6, norms=norms), ScriptedLab(answer)) == told


@pytest.mark.parametrize(("constant", "told"), [(None, ["OPT601"]), (0.5, [])])
def test_a_fall_that_stays_above_the_best_constant_is_no_learning(constant, told):
    """Units that are saturated on any weights let a loss fall a little as well, at a rate that is low enough."""

    def answer(variation: Variation) -> Trial:
        steps = max(1, variation.steps)
        lower = variation.start is Start.FRESH and variation.lr_factor < 1.0
        losses = tuple(1.05 * (0.97 if lower else 1.0) ** step for step in range(steps))
        return Trial(variation=variation, losses=losses, grad_norms=(0.5,) * steps)

    history = History(losses=(1.0,) * 64, grad_norms=(0.5,) * 64, param_norms=(1.0, 3.0), learning_rates=(0.1,) * 64)
    last = StepObservation(step=64, loss=1.0, grad_norm=0.5, learning_rates=(0.1,))
    assert confirmed(Evidence(seen=last, history=history, constant_loss=constant), ScriptedLab(answer)) == told


@pytest.mark.parametrize(("loss", "told"), [(40.0, ["OPT609"]), (0.9, []), (-0.4, [])])
def test_weights_with_which_a_batch_costs_no_more_were_not_thrown(loss, told):
    """A gradient that grows while the loss falls is that of a loss with a pole, not of weights that were thrown."""

    def answer(variation: Variation) -> Trial:
        good = variation.start is Start.WEIGHTS or variation.steps > 1
        steps = max(1, variation.steps)
        norms = (1.0 if good else 900.0,) * steps
        return Trial(variation=variation, losses=(1.0 if good else loss,) * steps, grad_norms=norms)

    assert confirmed(spike(seen=seen(loss=loss, grad_norm=900.0)), ScriptedLab(answer)) == told
