"""Layers each of which began a little too small, and a slow fall towards where a model could have begun."""

import pytest

from nan_callbacks.core.finding import Action, Finding, Severity
from nan_callbacks.diagnosis.diagnose import diagnose
from nan_callbacks.diagnosis.diagnosis import Confidence
from nan_callbacks.diagnosis.evidence import Evidence, History, LayerEvidence
from nan_callbacks.diagnosis.lab import Trial, Variation
from tests.diagnosis.test_diagnose import ScriptedLab, seen, standing_still

UNITS = 32
"""Of each layer: the norm of its weights is their scale times the root of it."""


def layers(scale: float, passed_on: float, *, count: int = 6) -> tuple[LayerEvidence, ...]:
    """A stack; each layer's signal is a share of the one before it."""
    norm = scale * UNITS**0.5
    return tuple(
        LayerEvidence(
            name=f"dense_{index}",
            kind="relu",
            activation_std=passed_on**index,
            weight_norm=norm,
            weight_scale=scale,
            dead_share=0.9,
        )
        for index in range(count)
    )


def told(stack: tuple[LayerEvidence, ...], *, grown: float = 1.0) -> list[str]:
    norm = sum((each.weight_norm or 0.0) ** 2 for each in stack) ** 0.5
    history = History(losses=(1.0,) * 64, grad_norms=(0.5,) * 64, param_norms=(norm / grown, norm), from_start=True)
    evidence = Evidence(seen=seen(loss=1.0, grad_norm=0.5), history=history, layers=stack)
    return [each.code for each in diagnose(evidence, ScriptedLab(standing_still)).verdicts]


def test_a_stack_that_leaves_nothing_of_its_signal_began_too_small():
    assert told(layers(0.16, 0.1))[0] == "ACT304"


@pytest.mark.parametrize(
    ("stack", "grown"),
    [
        (layers(0.16, 0.9), 1.0),  # something keeps the signal up
        (layers(0.6, 0.1), 1.0),  # a usual start
        (layers(0.16, 0.1, count=3), 1.0),  # two of them, and an output
        (layers(0.16, 0.1), 0.2),  # training has shrunk them
    ],
    ids=["kept up", "usual", "few", "shrunk"],
)
def test_other_stacks(stack, grown):
    assert "ACT304" not in told(stack, grown=grown)


@pytest.mark.parametrize(
    ("halved", "backwards", "unasked", "code"),
    [(0.5, 0.5, False, "GRAD202"), (0.5, 0.5, True, None), (0.9, 0.5, False, None), (0.5, 0.9, False, None)],
    ids=["both ways", "nobody has asked", "heard behind", "felt in front"],
)
def test_usual_layers_that_each_halve_a_signal_leave_nothing_of_it(halved, backwards, unasked, code):
    """The gradient of the first layers is a thousandth of the last one's: too much to speak for itself."""
    stack = tuple(
        LayerEvidence(
            name=f"gate_{index}",
            kind="Conv2D",
            activation_std=halved**index,
            weight_norm=5.0,
            weight_scale=1.0,
            grad_norm=backwards ** (11 - index),
        )
        for index in range(12)
    )
    finding = Finding(
        code="LOSS406", title="", step=200, epoch=0, batch_index=1, severity=Severity.WARNING, action=Action.OBSERVE,
        quantity="loss",
    )  # fmt: skip
    history = History(losses=(1.0,) * 64, grad_norms=(0.5,) * 64, param_norms=(17.0, 17.0), from_start=True)
    evidence = Evidence(
        seen=seen(loss=1.0, grad_norm=0.5), history=history, layers=stack, findings=(finding,) if unasked else ()
    )
    found = [each.code for each in diagnose(evidence, ScriptedLab(standing_still)).verdicts]
    assert found == ([code] if code else [])


@pytest.mark.parametrize(("constant", "codes"), [(0.65, ["ACT302"]), (0.9, []), (None, [])])
def test_what_falls_slowly_towards_a_constant_has_learnt_nothing_yet(constant, codes):
    losses = tuple(0.69 - 0.0003 * step for step in range(64))
    gates = LayerEvidence(name="lstm/gates", kind="sigmoid/tanh", saturated_share=0.97)

    def answer(variation: Variation) -> Trial:
        steps = max(1, variation.steps)
        return Trial(variation=variation, losses=(losses[-1],) * steps, grad_norms=(0.5,) * steps)

    history = History(losses=losses, grad_norms=(0.5,) * 64, from_start=True)
    evidence = Evidence(
        seen=seen(loss=losses[-1], grad_norm=0.5), history=history, layers=(gates,), constant_loss=constant
    )
    found = diagnose(evidence, ScriptedLab(answer))
    assert [each.code for each in found.verdicts] == codes
    assert all(each.confidence is Confidence.LIKELY for each in found.verdicts)
    assert found.note.startswith("Nothing to diagnose") is not bool(codes)
