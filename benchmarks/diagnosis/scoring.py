"""Compares a diagnosis with the truth of its program."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.diagnosis.program import Program, Truth
from nan_callbacks.diagnosis.diagnosis import Confidence, Diagnosis

ASPECTS = ("operation", "module", "line", "cause")


@dataclass
class Score:
    """One program under guard. An aspect is None where the truth says nothing about it."""

    program: str
    framework: str
    backend: str
    part: str
    healthy: bool
    incidents: int = 0
    codes: list[str] = field(default_factory=list)
    """Symptoms of all incidents, in order."""
    operation: bool | None = None
    """Kind, phase and operation of the origin."""
    module: bool | None = None
    line: bool | None = None
    cause: bool | None = None
    confirmed: bool | None = None
    """Whether the right cause was confirmed."""
    false_confirmed: bool = False
    precision: float | None = None
    recall: float | None = None
    seconds: float = 0.0
    replay_seconds: float = 0.0
    steps_spent: int = 0
    step_seconds: float = 0.0
    found: str = ""
    expected: str = ""
    error: str = ""
    tool: dict[str, Any] = field(default_factory=dict)
    """What the framework's own tool said of the same program."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def score(program: Program, backend: str, diagnoses: Sequence[Diagnosis | None], codes: Iterable[str]) -> Score:
    """Score one guarded run.

    Args:
        program: What was run.
        backend: Of Keras, or the empty string.
        diagnoses: Of all incidents, oldest first, then the one that was asked for at the end, if any.
        codes: Symptoms of the incidents.
    """
    truth = program.truth_on(backend)
    told = Score(program.name, program.framework, backend, program.part.value, program.is_healthy)
    told.codes = list(codes)
    told.incidents = len(told.codes)
    made = [diagnosis for diagnosis in diagnoses if diagnosis is not None]
    told.expected = _expected(program, truth)
    told.found = _found(made[0]) if made else "no diagnosis"
    told.seconds = max((diagnosis.seconds for diagnosis in made), default=0.0)
    told.replay_seconds = max((diagnosis.replay_seconds for diagnosis in made), default=0.0)
    told.steps_spent = max((diagnosis.steps_spent for diagnosis in made), default=0)
    if program.is_healthy:
        confirmed = [d for d in made if d.cause is not None and d.cause.confidence is Confidence.CONFIRMED]
        told.false_confirmed = bool(confirmed)
        told.found = _found(confirmed[0]) if confirmed else told.found
        return told
    _score_faulty(told, truth, program, made[0] if made else Diagnosis())
    return told


def _score_faulty(told: Score, truth: Truth, program: Program, diagnosis: Diagnosis) -> None:
    cause = diagnosis.cause
    told.cause = cause is not None and cause.code in truth.causes
    is_confirmed = cause is not None and cause.confidence is Confidence.CONFIRMED
    told.confirmed = told.cause and is_confirmed
    told.false_confirmed = is_confirmed and not told.cause
    told.operation = _operation(truth, diagnosis)
    told.module = _module(truth, diagnosis)
    told.line = _line(truth, program, diagnosis)
    if truth.rows is not None:
        accused, guilty = set(diagnosis.guilty_rows), set(truth.rows)
        told.precision = len(accused & guilty) / len(accused) if accused else None
        told.recall = len(accused & guilty) / len(guilty) if guilty else None


def _operation(truth: Truth, diagnosis: Diagnosis) -> bool | None:
    origin = diagnosis.origin
    if truth.kind is None and truth.operations is None:
        return None
    if truth.kind == "":
        return origin is None
    if origin is None or (truth.kind is not None and origin.kind.value != truth.kind):
        return False
    phase_fits = truth.phase in (None, origin.phase.value)
    return phase_fits and (truth.operations is None or origin.operation in truth.operations)


def _module(truth: Truth, diagnosis: Diagnosis) -> bool | None:
    if truth.modules is None:
        return None
    if diagnosis.origin is None:
        return False
    path = diagnosis.origin.module.replace("/", ".")
    return any(path == end or (end != "" and path.endswith(f".{end}")) for end in truth.modules)


def _line(truth: Truth, program: Program, diagnosis: Diagnosis) -> bool | None:
    if truth.line is None:
        return None
    source = diagnosis.origin.source if diagnosis.origin is not None else None
    if source is None:
        return False
    same_file = os.path.basename(source.file) == program.file.name
    return same_file and source.line in program.guilty_lines(truth)


def _expected(program: Program, truth: Truth) -> str:
    if program.is_healthy:
        return "no confirmed cause"
    parts = ["/".join(truth.causes)]
    if truth.kind is not None or truth.operations is not None:
        parts.append(f"{truth.phase or ''} {truth.kind or 'no origin'} {'/'.join(truth.operations or ())}".strip())
    if truth.modules is not None:
        parts.append(f"in {'/'.join(name or 'no layer' for name in truth.modules)}")
    if truth.line is not None:
        parts.append(f"line {'/'.join(map(str, program.guilty_lines(truth)))}")
    if truth.rows is not None:
        parts.append(f"rows {list(truth.rows)}")
    return ", ".join(parts)


def _found(diagnosis: Diagnosis) -> str:
    verdicts = "; ".join(f"{verdict.code} {verdict.confidence.value}" for verdict in diagnosis.verdicts[:3])
    parts = [verdicts or "no cause"]
    if (origin := diagnosis.origin) is None:
        parts.append("no origin")
    else:
        parts.append(f"{origin.phase.value} {origin.kind.value} {origin.operation} in {origin.module or 'no layer'}")
        parts.append(f"line {origin.source.line}" if origin.source else "no line")
    parts.append(f"rows {list(diagnosis.guilty_rows[:8])}")
    if diagnosis.note:
        parts.append(diagnosis.note)
    return ", ".join(parts)
