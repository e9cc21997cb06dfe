"""Which samples of a failed batch are to blame: those without which the step succeeds. The same for every framework."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from nan_callbacks.core.finding import Finding
from nan_callbacks.diagnosis.bisection import guilty_rows
from nan_callbacks.diagnosis.evidence import BatchPart
from nan_callbacks.diagnosis.lab import Lab, Trial, Variation
from nan_callbacks.diagnosis.origin import ReplayResult

MOST_BISECTIONS = 48
"""Runs of the step that the search for guilty rows may cost; one bad row of 256 takes about 20."""

BISECTION_SHARE = 0.4
"""Of the time that a diagnosis has; the rest is for experiments."""

FEW = 0.25
"""Share of the rows that the batch's own statistics may accuse before there are too many suspects to begin with."""


def guilty_samples(
    lab: Lab, findings: Sequence[Finding], replay: ReplayResult, parts: Sequence[BatchPart], seconds: float
) -> tuple[int, ...]:
    """Rows without which the step succeeds, in ascending order; empty if no few rows are to blame.

    Args:
        lab: Where the step is run without some of them.
        findings: What was found about the step.
        replay: The traced replay.
        parts: The batch beside recent ones.
        seconds: Time that the whole diagnosis has.
    """
    rows = lab.rows
    base = lab.run(Variation())
    if rows < 2 or not base.supported or succeeds(base, findings, replay) is not False:
        return ()
    until = time.perf_counter() + seconds * BISECTION_SHARE

    def is_good(kept: Sequence[int]) -> bool | None:
        if time.perf_counter() > until:
            return None
        return succeeds(lab.run(Variation(only_rows=tuple(kept))), findings, replay)

    origin_rows = () if replay.origin is None or replay.origin.rows is None else replay.origin.rows
    data_rows = [row for part in parts for row in (*part.non_finite_rows, *part.outlier_rows)]
    few = [row for row in dict.fromkeys([*origin_rows, *data_rows]) if 0 <= row < rows]
    suspects = few if len(few) <= max(1, int(FEW * rows)) else ()
    return guilty_rows(is_good, rows, suspects=suspects, max_trials=MOST_BISECTIONS).rows


def succeeds(trial: Trial, findings: Sequence[Finding], replay: ReplayResult) -> bool | None:
    """Whether a trial of the failed batch does without the failure; None if it cannot tell."""
    if not trial.supported:
        return None
    if trial.raised:
        # The same class of error is the failure; another one only says that the step cannot run like this.
        same = replay.error is not None and trial.raised.startswith(replay.error.operation)
        return False if same else None
    if not all(map(math.isfinite, (*trial.losses, *trial.grad_norms))):
        return False
    for finding in findings:
        value = _judged(trial, finding.quantity)
        if finding.limit is not None and value is not None:
            return value <= finding.limit
    return True


def _judged(trial: Trial, quantity: str) -> float | None:
    if quantity == "statistics_jump":
        return trial.statistics_jump
    series = {"loss": trial.losses, "grad_norm": trial.grad_norms}.get(quantity, ())
    return series[-1] if series else None
