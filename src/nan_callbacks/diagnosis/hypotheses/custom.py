"""Suspicions against layers and gradients that the user wrote."""

from __future__ import annotations

from nan_callbacks.diagnosis.evidence import Evidence
from nan_callbacks.diagnosis.experiments import without_rows
from nan_callbacks.diagnosis.goal import Goal, Kind
from nan_callbacks.diagnosis.hypotheses.hypothesis import Hypothesis, batch_rows
from nan_callbacks.diagnosis.hypotheses.numerics import code_of_origin, rows_to_blame
from nan_callbacks.diagnosis.origin import OriginKind, Phase


def custom_layer(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """NAN115: a hand-written gradient, or a layer or loss of the user's own in which no known operation is at fault."""
    origin = evidence.replay.origin if evidence.replay else None
    if goal.kind is not Kind.NON_FINITE or origin is None or origin.kind is not OriginKind.OPERATION:
        return None
    unexplained = code_of_origin(origin) is None
    if not origin.custom_gradient and not (origin.module_is_custom and unexplained):
        return None
    what = "a hand-written gradient" if origin.custom_gradient else f"{origin.module_type or 'a layer'} of your own"
    because = (f"{what} made the first non-finite value" + (f" in {origin.module}" if origin.module else ""),)
    # A hand-written derivative that fails is at fault even where its operation is a known one: the operation's own
    # derivative was replaced by it. Samples that the forward pass has digested are not.
    digested = origin.custom_gradient and origin.phase is Phase.BACKWARD
    return Hypothesis(
        code="NAN115",
        score=0.905 if digested else (0.82 if origin.custom_gradient else 0.45),
        because=because,
        experiments=without_rows(goal, rows_to_blame(evidence), batch_rows(evidence)),
        observed=True,
    )
