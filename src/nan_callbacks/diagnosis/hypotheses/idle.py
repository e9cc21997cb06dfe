"""Suspicions that nothing is trained at all, or one of several nets."""

from __future__ import annotations

from nan_callbacks.diagnosis.evidence import Evidence
from nan_callbacks.diagnosis.goal import Goal, Kind
from nan_callbacks.diagnosis.hypotheses.hypothesis import Hypothesis


def idle(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """OPT608: no update reaches any parameter of the model, so that nothing else can be to blame."""
    if goal.kind is not Kind.STALL or not is_idle(evidence):
        return None
    because = (
        "no update reaches any parameter of the model: they are frozen, or kept where the model does not know of them "
        "(a plain list), or the optimizer was given others (those of a copy), or they are cut off from the loss",
    )
    return Hypothesis(code="OPT608", score=0.99, because=because, observed=True, settles=True)


def mistaken(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """OPT608: two optimizers of one kind hold the same, and a net that gets gradients is in none."""
    if goal.kind is not Kind.STALL or not evidence.in_no_optimizer:
        return None
    named = ", ".join(evidence.in_no_optimizer[:3])
    because = (
        f"no optimizer holds any of {named}, which gets gradients, while two of them hold the very same "
        "parameters: one of them may have been given the wrong ones",
    )
    return Hypothesis(code="OPT608", score=0.985, because=because, observed=True, settles=True)


def is_idle(evidence: Evidence) -> bool:
    """Whether nothing of the model is trained, nor anything else that an optimizer holds."""
    return evidence.trains_nothing and not any(evidence.history.grad_norms)
