"""The table at the end: accuracies, incidents, actions and what they cost. Plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nan_callbacks.demo.arm import ArmResult
from nan_callbacks.demo.faults import Fault

HEADINGS = ("fault", "unguarded", "guarded", "undisturbed", "incidents", "what the guard did", "steps lost")
LEFT_ALIGNED = {"fault", "what the guard did"}


@dataclass(frozen=True)
class Outcome:
    """The three arms of one fault."""

    fault: Fault
    unguarded: ArmResult
    guarded: ArmResult
    undisturbed: ArmResult
    total_steps: int


def percent(share: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def lost_steps(events: Sequence[dict[str, Any]]) -> int:
    """Steps of which nothing is left in the final weights: those skipped and those undone by a rollback."""
    lost: set[int] = set()
    for event in events:
        if event["event"] == "incident" and event.get("skipped"):
            lost.add(event["step"])
        if event.get("restored_step") is not None:
            lost.update(range(event["restored_step"], event["step"] + 1))
    return len(lost)


def actions(summary: dict[str, Any]) -> str:
    """What the guard did, counted."""
    counts = [
        count(summary["skipped_steps"], "skip"),
        count(summary["rollbacks"], "rollback"),
        count(summary["lr_cuts"], "lr cut"),
        "stopped" if summary["stopped"] else "",
    ]
    return ", ".join(part for part in counts if part) or "nothing"


def count(number: int, noun: str) -> str:
    """A number with its noun, empty for none."""
    return f"{number} {noun}{'' if number == 1 else 's'}" if number else ""


def render(outcomes: Sequence[Outcome]) -> str:
    """The table as text."""
    rows = [HEADINGS, *(_row(outcome) for outcome in outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(line.rstrip() for line in lines)


def _row(outcome: Outcome) -> tuple[str, ...]:
    guarded = outcome.guarded
    return (
        outcome.fault.title, percent(outcome.unguarded.accuracy), percent(guarded.accuracy),
        percent(outcome.undisturbed.accuracy), str(guarded.summary["incidents"]), actions(guarded.summary),
        f"{lost_steps(guarded.events)} of {outcome.total_steps}",
    )  # fmt: skip


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = zip(HEADINGS, row, widths, strict=True)
    return "  ".join(
        cell.ljust(width) if heading in LEFT_ALIGNED else cell.rjust(width) for heading, cell, width in cells
    )
