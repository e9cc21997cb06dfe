"""The sentence that people read for an event record."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

MOST_SIGMAS = 100.0
"""Robust standard deviations beyond which the exact number says no more."""

LONGEST_MESSAGE = 200
"""Characters of an error's message: two lines of a terminal."""

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
"""Codes with which terminals colour text."""

_QUANTITIES = {"statistics_jump": "growth of a running variance in one step"}
"""Quantities whose names need words."""

FALLING = "loss level"
"""The quantity that growing weights must bring down: its limit may lie below where it was."""

_OUTCOMES = {"observe": "observed", "skip_step": "skipped", "rollback": "rolling back", "stop": "stopping"}


def describe(event: dict[str, Any]) -> str:
    """The human sentence of a record.

    Args:
        event: A record made by ``step_events`` or read back from a file.
    """
    kind = event.get("event", "?")
    prefix = f"step {event['step']} · " if event.get("step") is not None else ""
    return prefix + _SENTENCES.get(kind, _plain)(event)


def shortened(message: str, longest: int = LONGEST_MESSAGE) -> str:
    """The beginning of somebody else's message, in one line and without colours.

    Args:
        message: Such as the text of an error.
        longest: Characters that are kept.
    """
    line = " ".join(_ESCAPE.sub("", message).split())
    return line if len(line) <= longest else line[: longest - 2].rstrip() + " …"


def number(value: float | None) -> str:
    """A number as people read it: three significant digits, NaN and Inf by name."""
    if value is None:
        return "unknown"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Inf" if value > 0 else "-Inf")
    return f"{value:.3g}"


def _incident(event: dict[str, Any]) -> str:
    also = ", ".join(event.get("also") or [])
    parts = [f"{event['code']} {event['title']}" + (f" (also {also})" if also else "")]
    if event.get("where"):
        parts.append(event["where"])
    if event.get("quantity") not in (None, "", "parameters"):
        parts.append(_judged(event))
    if event.get("detail"):
        parts.append(event["detail"])
    outcome = _OUTCOMES.get(event.get("action", ""), "skipped" if event.get("skipped") else "observed")
    return f"{' · '.join(parts)} → {outcome}, batch {event['batch_index']} of epoch {event['epoch']}"


def _judged(event: dict[str, Any]) -> str:
    quantity = _QUANTITIES.get(event["quantity"], event["quantity"])
    judged = f"{quantity} {number(event['value'])}"
    if event.get("limit") is None:
        return judged
    if event["quantity"] == FALLING:
        return f"{judged}, should be below {number(event['limit'])} by now"
    z = event.get("robust_z")
    if z is None or not math.isfinite(z):
        return f"{judged}, limit {number(event['limit'])}"
    sigmas = f"{z:.0f}" if abs(z) <= MOST_SIGMAS else f"over {MOST_SIGMAS:.0f}"
    return f"{judged}, limit {number(event['limit'])} ({sigmas} robust σ)"


def _health(event: dict[str, Any]) -> str:
    judged = f"{event['quantity']} {number(event['value'])}, limit {number(event['limit'])}"
    return " · ".join(
        filter(None, (f"{event['code']} {event['title']}", event["where"], judged, event["detail"], "observed"))
    )


def _rollback(event: dict[str, Any]) -> str:
    return f"rolled back to the state before step {event['restored_step']} · {event['reason']}"


def _reduce_lr(event: dict[str, Any]) -> str:
    why = " · trains best from there, in trials" if event.get("tried") else ""
    return f"learning rate × {number(event['factor'])}, now {number(event['lr_scale'])} of its schedule{why}"


def _level_accepted(event: dict[str, Any]) -> str:
    rate = f"learning rate {number(event['lr_scale'])} of its schedule"
    return f"new level accepted as normal · {event['reason']} · {rate}"


def _stop(event: dict[str, Any]) -> str:
    restored = event.get("restored_step")
    after = f" · weights restored to the state before step {restored}" if restored is not None else ""
    return f"stopped: {event['reason']}{after}"


def _diagnosis(event: dict[str, Any]) -> str:
    return f"diagnosis of {event.get('about') or 'the step'}\n{event.get('paragraph', '')}"


def _plain(event: dict[str, Any]) -> str:
    return str(event.get("message") or event.get("event"))


_SENTENCES: dict[str, Callable[[dict[str, Any]], str]] = {
    "incident": _incident,
    "health": _health,
    "rollback": _rollback,
    "reduce_lr": _reduce_lr,
    "level_accepted": _level_accepted,
    "lr_recovered": lambda event: "learning rate back on its schedule",
    "stop": _stop,
    "diagnosis": _diagnosis,
}
