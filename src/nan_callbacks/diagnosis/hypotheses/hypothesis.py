"""A suspect: a cause, how much speaks for it before anything is tried, and what would prove it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nan_callbacks.diagnosis.evidence import BatchPart, Evidence
from nan_callbacks.diagnosis.experiments import Experiment


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """One suspected cause.

    Several treatments may turn one failure off: a lower learning rate, clipping, float64 and the removal of a sample
    can all cure an overflow. The scores therefore fall from the deepest and most specific cause to the shallowest:
    wrong data, a few guilty samples, data on the wrong scale, learning rate, exploding gradients, initialisation,
    precision, the operation itself.
    """

    code: str
    """Of the catalogue."""
    score: float
    """0 to 1; the order in which hypotheses are tried, and ranked where experiments leave them equal."""
    because: tuple[str, ...] = ()
    """Sentences of evidence, without a full stop."""
    experiments: tuple[Experiment, ...] = ()
    """Alternatives: each of them can confirm the hypothesis."""
    observed: bool = False
    """Whether the mechanism itself was seen (a traced operation, counted dead units), not inferred: then it remains
    likely when no experiment can prove it."""
    needs_proof: bool = False
    """Whether it is named only if an experiment confirms it."""
    circumstantial: bool = False
    """Whether experiments can bear it out and not prove it: then it is likely at the most."""
    settles: bool = False
    """Whether nothing shallower is worth trying once it was seen: what then turns the failure off treats a symptom."""


HALF = {"float16": "65504", "bfloat16": "3.39e38"}
"""Half-precision formats and their largest number."""

EARLY = 20
"""Accepted steps up to which a run counts as just begun: the guard's own ``warmup_steps``."""


def is_early(evidence: Evidence) -> bool:
    """Whether the weights are those of the first steps: the run had hardly begun, or has gone back to there."""
    return max(len(evidence.history.losses), len(evidence.history.grad_norms)) < EARLY


def reached(evidence: Evidence) -> int:
    """Accepted steps that the run has had from its first weights, at most 256: what a rollback undid had gone well."""
    return max(evidence.history.reached, len(evidence.history.losses), len(evidence.history.grad_norms))


def how_early(evidence: Evidence) -> str:
    """In words, for weights of the first steps."""
    made = len(evidence.history.losses)
    steps = f"{made} step{'' if made == 1 else 's'}"
    if reached(evidence) > made and evidence.history.rollbacks:
        return f"it failed {steps} after the start to which it had gone back, and had passed {reached(evidence)} before"
    return f"the run failed after {steps}" if made else "the first step failed"


def batch_rows(evidence: Evidence) -> int:
    """Rows of the failed batch, as far as its parts tell; 0 if unknown."""
    if evidence.rows is not None:
        return evidence.rows
    shapes = [part.failed.shape for part in evidence.batch if part.failed.shape]
    return shapes[0][0] if shapes else 0


def are_samples(parts: Sequence[BatchPart], evidence: Evidence) -> bool:
    """Whether the rows of some parts of the failed batch are samples, which can be left out of it."""
    return all(part.failed.shape[:1] == (batch_rows(evidence),) for part in parts)
