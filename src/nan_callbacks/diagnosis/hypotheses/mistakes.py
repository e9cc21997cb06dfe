"""Mistakes that were seen in the step itself: they need no experiment to be there, only to be to blame."""

from __future__ import annotations

from nan_callbacks.diagnosis.evidence import Concern, Evidence
from nan_callbacks.diagnosis.experiments import another_batch, instead, without_rows
from nan_callbacks.diagnosis.goal import Goal, Kind
from nan_callbacks.diagnosis.hypotheses.hypothesis import Hypothesis, batch_rows

FINITE = frozenset({Kind.SPIKE, Kind.DIVERGENCE, Kind.STALL})
ALL = frozenset(Kind)

EXPLAINS: dict[str, tuple[float, frozenset[Kind]]] = {
    "DATA511": (0.98, ALL),
    "DATA507": (0.975, ALL),
    "DATA508": (0.96, FINITE),
    "LOSS404": (0.955, ALL),
    "DATA505": (0.95, ALL),
    "DATA506": (0.94, frozenset({Kind.STALL})),
    "LOSS403": (0.935, frozenset({Kind.STALL})),
    "DATA510": (0.93, frozenset({Kind.STALL, Kind.SPIKE})),
}
"""Code, how deep it lies, and which failures it makes. The causes that the evidence is searched for lie below."""


SUSPECTED: dict[str, frozenset[Kind]] = {"filled": frozenset({Kind.STALL, Kind.SPIKE})}
"""Kinds of concerns that are a suspicion rather than a mistake: the failures that bear it out."""


def mistakes(evidence: Evidence, goal: Goal) -> list[Hypothesis]:
    """A hypothesis for each mistake that can make this failure."""
    found = []
    for concern in evidence.concerns:
        score, kinds = EXPLAINS.get(concern.code, (0.0, frozenset()))
        kinds = SUSPECTED.get(concern.kind, kinds)
        if goal.kind in kinds and (concern.code != "DATA506" or concern.kind == "all_constant"):
            found.append(_hypothesis(concern, score, evidence, goal))
    return found


def _hypothesis(concern: Concern, score: float, evidence: Evidence, goal: Goal) -> Hypothesis:
    # What is left of a batch without some of its rows is of one class as before: that proves nothing.
    rows = () if concern.code == "DATA510" else evidence.guilty_rows
    experiments = without_rows(goal, rows, batch_rows(evidence))
    if concern.code in ("DATA511", "DATA505") and not experiments and goal.kind is Kind.NON_FINITE:
        experiments = (another_batch(goal),)
    if concern.kind == "wrapped":
        experiments = (*experiments, instead(goal, clip_targets=True))
    return Hypothesis(
        code=concern.code,
        score=score,
        because=concern.because,
        experiments=experiments,
        observed=True,
        settles=concern.certain or concern.code in ("LOSS403", "DATA510"),
    )
