"""The table at the end: accuracies, incidents, actions and what they cost. Plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nan_callbacks.demo.arm import ArmResult
from nan_callbacks.demo.faults import Fault

HEADINGS = (
    "fault", "unguarded", "guarded", "undisturbed", "incidents", "skips", "rollbacks", "lr cuts", "steps lost",
)  # fmt: skip


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


def render(outcomes: Sequence[Outcome]) -> str:
    """The table as text."""
    rows = [HEADINGS, *(_row(outcome) for outcome in outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def _row(outcome: Outcome) -> tuple[str, ...]:
    summary = outcome.guarded.summary
    arms = (outcome.unguarded, outcome.guarded, outcome.undisturbed)
    counts = (summary[name] for name in ("incidents", "skipped_steps", "rollbacks", "lr_cuts"))
    lost = lost_steps(outcome.guarded.events)
    return (outcome.fault.title, *(percent(arm.accuracy) for arm in arms), *map(str, counts), str(lost))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    fault, *numbers = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
    return "  ".join((fault.strip().ljust(widths[0]), *numbers))
