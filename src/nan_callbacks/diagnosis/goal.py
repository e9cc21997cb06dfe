"""What counts as the failure of an incident, so that a trial can be judged: was it there again?"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

from nan_callbacks.core.sentences import number, shortened
from nan_callbacks.core.statistics import median
from nan_callbacks.diagnosis.evidence import Evidence
from nan_callbacks.diagnosis.lab import Start, Trial, Variation
from nan_callbacks.diagnosis.origin import OriginKind, Phase

SHORT_RUN = 12
"""Steps of a trial that trains. Within 12 steps a learning rate ten times too high has shown itself in the recorded
runs of ``benchmarks/faults``, and five such trials fit into the default budget of 60."""

RISE = 1.25
"""Growth above which a loss rises: on one batch, other batches' updates move a healthy loss by a tenth or two."""

STALL = 0.95
"""Share of its beginning above which a loss does not fall."""

MOVED = 0.99
"""Share of its beginning below which a loss has moved: on one and the same batch before and after a short run, there is
no noise of other batches to be told from, and a net at a usable rate comes this far within 12 steps."""

SPIKE_RATIO = 10.0
"""Limit of a spike without a limit of its own, over the median of the history: ``min_ratio`` of the guard."""

NEARLY = 0.3
"""Share of a spike's limit from which another batch, which had passed at its usual level, is spiking as well: the
limit is ten times the usual level at least, so that this is three times."""

LONGEST_MESSAGE = 100
"""Characters of an error's message in the record of a trial: it has been quoted in full already."""

BLOW_UP = 10.0
"""Growth of the loss within a short training run that counts as failing: ``min_ratio`` of the guard."""


class Kind(enum.StrEnum):
    """Which failure is being looked into."""

    NON_FINITE = "non_finite"
    SPIKE = "spike"
    DIVERGENCE = "divergence"
    STALL = "stall"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A trial, beside what its last batch had cost before the trial trained on anything."""

    trial: Trial
    before: float | None = None
    """Loss of the same batch, in the same treatment, from the same start, without any update; None if not measured."""

    @property
    def change(self) -> float | None:
        """Loss at the end over the loss at the beginning; None of too short a trial.

        On one and the same batch if that was measured: losses of different batches differ by more than a few steps of
        training change them. Otherwise the last third over the first third.
        """
        losses = self.trial.losses
        if len(losses) < 3 or not is_finite(self.trial):
            return None
        return end_over_start(losses) if self.before is None else ratio(losses[-1], self.before)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The failure that a treatment must turn off."""

    kind: Kind
    base: Variation
    """The trial in which the failure shows; treatments are changes of it."""
    quantity: str = ""
    """Of a spike: ``loss``, ``grad_norm`` or ``statistics_jump``."""
    limit: float | None = None
    """Of a spike."""

    def failed(self, measured: Measured) -> bool | None:
        """Whether the failure was there again; None if the trial cannot tell."""
        trial = measured.trial
        if not trial.supported:
            return None
        if not is_finite(trial):
            return True
        if self.kind is Kind.NON_FINITE:
            # A short run that blows up is on its way to the same end, even though the last step of it is still finite.
            return measured.change is not None and measured.change > BLOW_UP
        if self.kind is Kind.SPIKE:
            value = self._spiking(trial)
            return None if value is None or self.limit is None else value > self.limit
        change = measured.change
        if self.kind is Kind.DIVERGENCE and peaks(measured):
            return True
        return None if change is None else change > (RISE if self.kind is Kind.DIVERGENCE else STALL)

    def is_up(self, measured: Measured) -> bool | None:
        """Whether another batch fails, or is so far above the usual level that the failed one is not the cause."""
        value = self._spiking(measured.trial) if self.kind is Kind.SPIKE and is_finite(measured.trial) else None
        if value is None or self.limit is None:
            return self.failed(measured)
        return value > NEARLY * self.limit

    def outcome(self, measured: Measured) -> str:
        """What came of a trial, in words."""
        trial = measured.trial
        if not trial.supported:
            return f"not possible here{f' ({shortened(trial.note, LONGEST_MESSAGE)})' if trial.note else ''}"
        if trial.raised:
            return f"raised {shortened(trial.raised, LONGEST_MESSAGE)}"
        if not is_finite(trial):
            return "non-finite" + _when(trial)
        value = self._spiking(trial)
        if self.kind is Kind.SPIKE and value is not None and self.limit is not None:
            side = "above" if value > self.limit else ("little below" if value > NEARLY * self.limit else "below")
            return f"{self.quantity} {number(value)}, {side} the limit {number(self.limit)}"
        if self.kind is Kind.DIVERGENCE and peaks(measured):
            losses = trial.losses
            return f"finite, loss blown up on the way ({' → '.join(map(number, (losses[0], max(losses), losses[-1])))})"
        return "finite" + _trend(measured)

    def _spiking(self, trial: Trial) -> float | None:
        if self.quantity == "statistics_jump":
            return trial.statistics_jump
        series = trial.losses if self.quantity == "loss" else trial.grad_norms
        return series[-1] if series else None


def goal_of(evidence: Evidence) -> Goal:
    """The failure that the evidence tells of."""
    if _is_non_finite(evidence):
        return Goal(kind=Kind.NON_FINITE, base=_where_it_shows(evidence))
    codes = [finding.code for finding in evidence.findings]
    if "LOSS402" in codes or "LOSS407" in codes:
        return Goal(kind=Kind.DIVERGENCE, base=Variation(start=Start.SNAPSHOT, steps=SHORT_RUN))
    for finding in evidence.findings:
        if finding.code in ("GRAD201", "LOSS401", "ACT301"):
            limit = finding.limit if finding.limit is not None else _own_limit(evidence, finding.quantity)
            return Goal(kind=Kind.SPIKE, base=Variation(), quantity=finding.quantity, limit=limit)
    return Goal(kind=Kind.STALL, base=Variation(steps=SHORT_RUN))


def is_finite(trial: Trial) -> bool:
    """Whether the trial went through with finite losses, gradients and parameters."""
    numbers = (*trial.losses, *trial.grad_norms)
    return not trial.raised and trial.parameters_finite and all(math.isfinite(value) for value in numbers)


def end_over_start(losses: Sequence[float]) -> float:
    """Mean of the last third over the mean of the first third; of losses around or below zero, 1 plus the change.

    Args:
        losses: Finite, at least one.
    """
    return ratio(tail(losses), head(losses))


def ratio(end: float, start: float) -> float:
    """One loss over another; of losses around or below zero, 1 plus the relative change."""
    if start > 0 and end > 0:
        return end / start
    return 1.0 + (end - start) / max(abs(start), abs(end), 1e-12)


def head(losses: Sequence[float]) -> float:
    """Mean of the first third."""
    third = max(1, len(losses) // 3)
    return sum(losses[:third]) / third


def tail(losses: Sequence[float]) -> float:
    """Mean of the last third."""
    third = max(1, len(losses) // 3)
    return sum(losses[-third:]) / third


def peaks(measured: Measured) -> bool:
    """Whether the loss of a training run was blown up for a while: dead units may bring it down again."""
    losses = measured.trial.losses
    return len(losses) > 2 and losses[0] > 0 and max(losses) > BLOW_UP * losses[0]


def is_calm(measured: Measured) -> bool:
    """Whether the trial is finite and its loss did not rise."""
    return is_finite(measured.trial) and (measured.change is None or measured.change <= RISE)


def stands_still(measured: Measured) -> bool | None:
    """Whether a training run moved its loss by less than a hundredth; None if the trial cannot tell."""
    change = measured.change
    return None if not measured.trial.supported or change is None else change > MOVED


def blows_up(measured: Measured) -> bool | None:
    """Whether a training run ended non-finite or with a risen loss; None if the trial cannot tell."""
    if not measured.trial.supported:
        return None
    return not is_finite(measured.trial) or (measured.change is not None and measured.change > RISE)


def _is_non_finite(evidence: Evidence) -> bool:
    seen, replay = evidence.seen, evidence.replay
    by_code = any(finding.code.startswith("NAN") or finding.code == "OPT603" for finding in evidence.findings)
    by_number = any(value is not None and not math.isfinite(value) for value in (seen.loss, seen.grad_norm))
    return by_code or by_number or bool(seen.non_finite_parameters) or bool(replay and replay.reproduced)


def _where_it_shows(evidence: Evidence) -> Variation:
    origin = evidence.replay.origin if evidence.replay else None
    broken_before = bool(evidence.seen.non_finite_parameters)
    if broken_before or (origin is not None and origin.kind is OriginKind.PARAMETERS):
        return Variation(start=Start.SNAPSHOT, steps=SHORT_RUN)
    if origin is not None and origin.phase is Phase.OPTIMIZER:
        return Variation(steps=1)
    return Variation()


def _own_limit(evidence: Evidence, quantity: str) -> float | None:
    history = evidence.history
    values = {"loss": history.losses, "grad_norm": history.grad_norms}.get(quantity, ())
    return SPIKE_RATIO * median(values) if values else None


def _when(trial: Trial) -> str:
    steps = max(len(trial.losses), len(trial.grad_norms))
    if steps < 2:
        return ""
    for index in range(steps):
        values = [series[index] for series in (trial.losses, trial.grad_norms) if index < len(series)]
        if not all(math.isfinite(value) for value in values):
            return f" at step {index + 1}"
    return " in the end"


def _trend(measured: Measured) -> str:
    change, losses = measured.change, measured.trial.losses
    if change is None:
        return ""
    word = "rising" if change > RISE else ("falling" if change <= STALL else "standing still")
    start, end = (head(losses), tail(losses)) if measured.before is None else (measured.before, losses[-1])
    return f", loss {word} ({number(start)} → {number(end)})"
