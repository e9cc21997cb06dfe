"""Event records: one JSON object a line, and the sentence that people read, made from the same record."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nan_callbacks.core.decision import Decision
from nan_callbacks.core.finding import Action, Finding
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.core.sentences import describe as describe

SCHEMA = 1
"""Version of the record layout; raised when a key changes its meaning."""

Event = dict[str, Any]

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_json_line(event: Event) -> str:
    """One line of strict JSON; NaN and the infinities as the strings ``NaN``, ``Infinity`` and ``-Infinity``."""
    return json.dumps(_encode(event), allow_nan=False, ensure_ascii=False)


def from_json_line(line: str) -> Event:
    """The event of one line, non-finite numbers restored.

    Raises:
        ValueError: If the line is not a JSON object.
    """
    event = json.loads(line)
    if not isinstance(event, dict):
        raise ValueError(f"expected a JSON object, received {type(event).__name__}.")
    return {key: _decode(key, value) for key, value in event.items()}


def read_events(path: str | Path) -> list[Event]:
    """All events of a file. A torn last line, as a killed run leaves it, is passed over.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line other than the last one cannot be read; the message names it.
    """
    lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            events.append(from_json_line(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise ValueError(f"line {number} of {path} is not an event: {error}") from error
    return events


def end_last_line(path: Path) -> None:
    """Make a file ready to be appended to: half a line, as a killed run leaves it, is cut off.

    Otherwise the next event would be glued to it, and a broken line in the middle is one that no reader passes over.
    """
    content = path.read_bytes() if path.exists() else b""
    start = content.rfind(b"\n") + 1
    last = content[start:]
    if not last:
        return
    try:
        from_json_line(last.decode("utf-8", errors="replace"))
        torn = False
    except ValueError:
        torn = last.startswith(b"{")  # anything else was not written by us and is not ours to cut
    with path.open("r+b") as file:
        if torn:
            file.truncate(start)
        else:
            file.seek(0, 2)
            file.write(b"\n")


def step_events(seen: StepObservation, decision: Decision, *, rank: int = 0) -> list[Event]:
    """The records of one decision: the incident, if there is one, then each action that changes more than the step.

    Args:
        seen: What was observed.
        decision: What was decided.
        rank: Rank of the process.
    """
    base = _base(seen, rank)
    events = [_incident(base, decision, applied=seen.applied)] if decision.findings else []
    if decision.level_accepted:
        events.append({**base, "event": "level_accepted", "reason": decision.reason, "lr_scale": decision.lr_scale})
    if decision.action is Action.ROLLBACK:
        events.append({**base, "event": "rollback", "reason": decision.reason, "restored_step": decision.restore_step})
    if decision.lr_cut is not None:
        events.append(
            {
                **base,
                "event": "reduce_lr",
                "factor": decision.lr_cut,
                "tried": decision.lr_cut_tried,
                "lr_scale": decision.lr_scale,
                "learning_rates": list(seen.learning_rates),
            }
        )
    if decision.lr_recovered:
        events.append({**base, "event": "lr_recovered", "lr_scale": decision.lr_scale})
    if decision.action is Action.STOP:
        events.append({**base, "event": "stop", "reason": decision.reason, "restored_step": decision.restore_step})
    for event in events:
        event["message"] = describe(event)
    return events


def health_events(found: Sequence[Finding], *, rank: int = 0) -> list[Event]:
    """The records of what a sample of the layers has shown.

    Args:
        found: The findings.
        rank: Rank of the process.
    """
    events: list[Event] = []
    for finding in found:
        event: Event = {
            "event": "health",
            "schema": SCHEMA,
            "time": time.time(),
            "rank": rank,
            "step": finding.step,
            "epoch": finding.epoch,
            "batch_index": finding.batch_index,
            "code": finding.code,
            "title": finding.title,
            "where": finding.where,
            "quantity": finding.quantity,
            "value": finding.value,
            "limit": finding.limit,
            "severity": finding.severity.name.lower(),
            "detail": finding.detail,
        }
        event["message"] = describe(event)
        events.append(event)
    return events


def exception_event(seen: StepObservation, error: BaseException) -> Event:
    """The record of a training step that raised an error.

    Args:
        seen: The step, as far as it went.
        error: What it raised.
    """
    first_line = str(error).partition("\n")[0]
    event: Event = {
        **_base(seen, 0),
        "event": "incident",
        "code": "ENV703",
        "title": "exception in the training step",
        "also": [],
        "where": "",
        "quantity": "",
        "value": None,
        "limit": None,
        "robust_z": None,
        "severity": "error",
        "detail": f"{type(error).__name__}: {first_line}",
        "skipped": False,
        "action": Action.STOP.word,
    }
    event["message"] = describe(event)
    return event


def _base(seen: StepObservation, rank: int) -> Event:
    return {
        "schema": SCHEMA,
        "time": time.time(),
        "rank": rank,
        "step": seen.step,
        "epoch": seen.epoch,
        "batch_index": seen.batch_index,
        "optimizer": seen.stream,
        "loss": seen.loss,
        "grad_norm": seen.grad_norm,
    }


def _incident(base: Event, decision: Decision, *, applied: bool) -> Event:
    """One record per incident: the gravest finding, and the codes of what was found besides."""
    finding, *others = decision.findings
    stronger = decision.action in (Action.ROLLBACK, Action.STOP)
    outcome = decision.action if stronger else (Action.OBSERVE if applied else Action.SKIP_STEP)
    return {
        **base,
        "event": "incident",
        "code": finding.code,
        "title": finding.title,
        "also": [other.code for other in others],
        "where": finding.where,
        "quantity": finding.quantity,
        "value": finding.value,
        "limit": finding.limit,
        "robust_z": finding.robust_z,
        "severity": finding.severity.name.lower(),
        "detail": finding.detail,
        "skipped": not applied,
        "action": outcome.word,
    }


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    return value


def _decode(key: str, value: Any) -> Any:
    # Only keys that hold numbers: a reason that happens to read "NaN" stays text.
    if key in ("reason", "message", "title", "detail", "where", "event", "code", "also", "action", "paragraph"):
        return value
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    return [_decode(key, item) for item in value] if isinstance(value, list) else value
