"""The rules of the checkup applied to an incident's batch: mistakes that the diagnosis must know of."""

from __future__ import annotations

from nan_callbacks.checkup.facts import Hazard, InputFacts, LossFacts
from nan_callbacks.checkup.hazards import examine_hazards
from nan_callbacks.checkup.inputs import examine_inputs
from nan_callbacks.checkup.labels import examine_labels
from nan_callbacks.checkup.losses import examine_losses
from nan_callbacks.checkup.notice import Notice
from nan_callbacks.checkup.wrapped import fills_its_type
from nan_callbacks.core.finding import Severity
from nan_callbacks.diagnosis.evidence import Concern

LEFT_TO_EVIDENCE = frozenset({"DATA501", "DATA502", "DATA503", "DATA504", "DATA509"})
"""What the diagnosis judges by itself, beside the run's own history, and tries out."""


def concerns_of(
    inputs: tuple[InputFacts, ...],
    losses: tuple[LossFacts, ...],
    rows_read: int,
    hazards: tuple[Hazard, ...] = (),
) -> tuple[Concern, ...]:
    """Mistakes that can be seen in the step itself.

    Args:
        inputs: Inputs of the failed batch and of recent ones.
        losses: What its loss was computed from.
        rows_read: Rows of all these batches.
        hazards: Operations of its step, of which those count that have failed already.
    """
    found = [*examine_inputs(inputs, rows_read), *examine_labels(losses), *examine_losses(losses)]
    found += [notice for facts in inputs for notice in fills_its_type(facts)]
    found += [notice for notice in examine_hazards(hazards) if notice.severity is Severity.ERROR]
    return tuple(
        Concern(
            code=notice.code,
            kind=notice.kind,
            because=tuple(f"{_place(notice)}: {each.rstrip('.')}" for each in notice.evidence[:1]),
            certain=notice.severity is Severity.ERROR,
        )
        for notice in found
        if notice.severity > Severity.INFO and notice.code not in LEFT_TO_EVIDENCE
    )


def _place(notice: Notice) -> str:
    return notice.where if notice.source is None else notice.source.describe()
