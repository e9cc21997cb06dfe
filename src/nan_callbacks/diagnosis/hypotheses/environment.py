"""Suspicions against the installed libraries."""

from __future__ import annotations

from nan_callbacks.diagnosis.evidence import Evidence
from nan_callbacks.diagnosis.goal import Goal
from nan_callbacks.diagnosis.hypotheses.hypothesis import Hypothesis


def known_issue(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """ENV701: the installed versions have a known issue that fits.

    No experiment can prove it: the laboratory runs on the installed versions. That the failure began in the component
    of the issue, on its device and in its precision, is as much as can be seen.
    """
    if not evidence.known_issues:
        return None
    return Hypothesis(code="ENV701", score=0.92, because=evidence.known_issues, observed=True, settles=True)
