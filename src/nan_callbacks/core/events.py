"""Event records: one JSON object a line, and the sentence that people read, made from the same record."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from nan_callbacks.core.decision import Decision
from nan_callbacks.core.finding import Action, Finding
from nan_callbacks.core.observation import StepObservation

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
    """The records of one decision: one per finding, then one per action that changes more than the step itself.

    Args:
        seen: What was observed.
        decision: What was decided.
        rank: Rank of the process.
    """
    base = {
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
    events = [_incident(base, finding, applied=seen.applied) for finding in decision.findings]
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


def describe(event: Event) -> str:
    """The human sentence of a record.

    Args:
        event: A record made here or read back from a file.
    """
    kind = event.get("event", "?")
    prefix = f"step {event['step']} · " if event.get("step") is not None else ""
    return prefix + _SENTENCES.get(kind, _plain)(event)


def number(value: float | None) -> str:
    """A number as people read it: three significant digits, NaN and Inf by name."""
    if value is None:
        return "unknown"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Inf" if value > 0 else "-Inf")
    return f"{value:.3g}"


def _incident(base: Event, finding: Finding, *, applied: bool) -> Event:
    return {
        **base,
        "event": "incident",
        "code": finding.code,
        "title": finding.title,
        "where": finding.where,
        "quantity": finding.quantity,
        "value": finding.value,
        "limit": finding.limit,
        "robust_z": finding.robust_z,
        "severity": finding.severity.name.lower(),
        "detail": finding.detail,
        "skipped": not applied,
    }


def _incident_sentence(event: Event) -> str:
    parts = [f"{event['code']} {event['title']}"]
    if event.get("where"):
        parts.append(event["where"])
    judged = f"{event['quantity']} {number(event['value'])}"
    if event.get("limit") is not None:
        z = event.get("robust_z")
        sigma = f" ({z:.0f} robust σ)" if z is not None and math.isfinite(z) else ""
        judged += f", limit {number(event['limit'])}{sigma}"
    if event.get("quantity") not in (None, "", "parameters"):
        parts.append(judged)
    if event.get("detail"):
        parts.append(event["detail"])
    outcome = "skipped" if event.get("skipped") else "observed"
    return f"{' · '.join(parts)} → {outcome}, batch {event['batch_index']} of epoch {event['epoch']}"


def _rollback_sentence(event: Event) -> str:
    return f"rolled back to the state before step {event['restored_step']} · {event['reason']}"


def _reduce_lr_sentence(event: Event) -> str:
    return f"learning rate × {number(event['factor'])}, now {number(event['lr_scale'])} of its schedule"


def _level_sentence(event: Event) -> str:
    return (
        f"new level accepted as normal · {event['reason']} · learning rate {number(event['lr_scale'])} of its schedule"
    )


def _stop_sentence(event: Event) -> str:
    restored = event.get("restored_step")
    after = f" · weights restored to the state before step {restored}" if restored is not None else ""
    return f"stopped: {event['reason']}{after}"


def _plain(event: Event) -> str:
    return str(event.get("message") or event.get("event"))


_SENTENCES = {
    "incident": _incident_sentence,
    "rollback": _rollback_sentence,
    "reduce_lr": _reduce_lr_sentence,
    "level_accepted": _level_sentence,
    "lr_recovered": lambda event: "learning rate back on its schedule",
    "stop": _stop_sentence,
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
    if key in ("reason", "message", "title", "detail", "where", "event", "code"):
        return value
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    return [_decode(key, item) for item in value] if isinstance(value, list) else value
