"""What came of a diagnosis: ranked verdicts, what was tried, and the paragraph that people read."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from nan_callbacks.diagnosis.origin import Origin, OriginKind, Phase
from nan_callbacks.diagnosis.records import origin_from_dict, plain

MOST_ROWS_NAMED = 5
"""Guilty samples named in a sentence; the record holds all of them."""


class Confidence(enum.StrEnum):
    """How sure a verdict is, best first."""

    CONFIRMED = "confirmed"
    """An experiment turned the failure off, and its control did not."""
    LIKELY = "likely"
    """The evidence speaks for it, or nothing else that was tried explains the failure; no experiment proved it."""
    POSSIBLE = "possible"
    """It fits, and so do other causes."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One experiment of the laboratory, in words."""

    what: str
    """What was done differently, such as ``without sample 37``."""
    outcome: str
    """What came of it, such as ``still non-finite``."""
    failed: bool | None = None
    """Whether the failure was there again; None if the trial could not be run or could not be judged."""
    control: bool = False
    """Whether the failure was expected to stay: a control, not a treatment."""

    def describe(self) -> str:
        """Such as ``without sample 37: still non-finite``."""
        return f"{self.what}: {self.outcome}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One cause, how sure it is, and why."""

    code: str
    """Of the catalogue, such as ``OPT601``."""
    title: str
    """Such as ``learning rate too high``."""
    confidence: Confidence
    because: tuple[str, ...] = ()
    """Sentences of evidence."""
    trials: tuple[Tried, ...] = ()
    """The experiments that decided about this cause."""
    remedies: tuple[str, ...] = ()
    """What to do, in the words of the user's framework, the best first."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What an incident was caused by, as far as it could be found out."""

    verdicts: tuple[Verdict, ...] = ()
    """The best first; empty if nothing fits."""
    origin: Origin | None = None
    """Where the failure began, if a replay could tell."""
    guilty_rows: tuple[int, ...] = ()
    """Rows of the batch without which the step succeeds."""
    trials: tuple[Tried, ...] = ()
    """All experiments, in the order in which they were made."""
    seconds: float = 0.0
    """Time of the whole diagnosis."""
    replay_seconds: float = 0.0
    """Of these, time of the traced replay that found the origin."""
    steps_spent: int = 0
    """Steps spent in the laboratory."""
    note: str = ""
    """What kept the diagnosis from being better: no laboratory, budget spent, failure not reproduced."""

    @property
    def cause(self) -> Verdict | None:
        """The best verdict; None if nothing fits."""
        return self.verdicts[0] if self.verdicts else None

    def describe(self) -> str:
        """A paragraph for people: where it failed, why, what was tried, what to do."""
        parts = (self._where(), self._why(), self._tried(), self._what_to_do(), self.note)
        return "\n".join(part for part in parts if part)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, strings and finite numbers, for the stream of events."""
        told: dict[str, Any] = plain(self)
        return told

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Diagnosis:
        """The diagnosis that :meth:`to_dict` told.

        Raises:
            KeyError, TypeError, ValueError: If it is not what :meth:`to_dict` made.
        """
        fields = dict(told)
        fields["verdicts"] = tuple(_verdict_from_dict(verdict) for verdict in told["verdicts"])
        fields["origin"] = None if told["origin"] is None else origin_from_dict(told["origin"])
        fields["guilty_rows"] = tuple(told["guilty_rows"])
        fields["trials"] = tuple(Tried(**trial) for trial in told["trials"])
        return cls(**fields)

    def _where(self) -> str:
        return "" if self.origin is None else f"Where: {describe_origin(self.origin)}."

    def _why(self) -> str:
        if self.cause is None:
            return "Why: no cause of the catalogue fits the evidence."
        cause = self.cause
        because = "; ".join(cause.because)
        others = [f"{verdict.title} ({verdict.confidence.value})" for verdict in self.verdicts[1:3]]
        return (
            f"Why: {cause.title} ({cause.code}, {cause.confidence.value})"
            + (f": {because}" if because else "")
            + "."
            + (f" Also considered: {', '.join(others)}." if others else "")
        )

    def _tried(self) -> str:
        return f"Tried: {'; '.join(trial.describe() for trial in self.trials)}." if self.trials else ""

    def _what_to_do(self) -> str:
        if self.cause is None or not self.cause.remedies:
            return ""
        return "What to do: " + " ".join(
            remedy if remedy.endswith(".") else f"{remedy}." for remedy in self.cause.remedies
        )


def describe_origin(origin: Origin) -> str:
    """One sentence, without a full stop: what failed, on what operands, in which module, on which line."""
    parts = [_failure(origin)]
    if origin.operands:
        operands = "; ".join(f"{operand.name or 'operand'} {operand.describe()}" for operand in origin.operands)
        parts.append(f"on {operands}")
    if origin.module:
        kind = f" ({origin.module_type})" if origin.module_type else ""
        parts.append(f"in {origin.module}{kind}")
    if origin.time_step is not None:
        parts.append(f"at time step {origin.time_step}")
    if origin.source is not None:
        parts.append(f"at {origin.source.describe()}")
    if origin.detail:
        parts.append(origin.detail.rstrip("."))
    return ", ".join(parts)


def describe_rows(rows: tuple[int, ...]) -> str:
    """Such as ``samples 3, 17 and 2 more``."""
    named = ", ".join(map(str, rows[:MOST_ROWS_NAMED]))
    more = f" and {len(rows) - MOST_ROWS_NAMED} more" if len(rows) > MOST_ROWS_NAMED else ""
    return f"sample{'s' if len(rows) > 1 else ''} {named}{more}"


def _failure(origin: Origin) -> str:
    if origin.kind is OriginKind.BATCH:
        return f"the batch itself is non-finite: {origin.operation or 'a part of it'}"
    if origin.kind is OriginKind.PARAMETERS:
        return f"{origin.operation or 'a parameter'} was non-finite before the step"
    if origin.kind is OriginKind.EXCEPTION:
        return f"the step raised {origin.operation or 'an error'}"
    phases = {
        Phase.FORWARD: f"{origin.operation} made the first non-finite value",
        Phase.BACKWARD: f"the derivative of {origin.operation} made the first non-finite value",
        Phase.OPTIMIZER: f"{origin.operation or 'the update'} of the optimizer made the first non-finite value",
    }
    return phases[origin.phase]


def _verdict_from_dict(told: dict[str, Any]) -> Verdict:
    fields = dict(told)
    fields["confidence"] = Confidence(told["confidence"])
    fields["because"] = tuple(told["because"])
    fields["trials"] = tuple(Tried(**trial) for trial in told["trials"])
    fields["remedies"] = tuple(told["remedies"])
    return Verdict(**fields)
