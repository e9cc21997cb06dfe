"""The table at the end: accuracies, incidents, actions and what they cost. Plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from nan_callbacks.demo.arm import ArmResult
from nan_callbacks.demo.faults import Fault

HEADINGS = (
    "fault", "unguarded", "guarded", "undisturbed", "incidents", "skips", "rollbacks", "lr cuts", "steps lost",
)  # fmt: skip
INDENT = "  "
"""In front of a fault that stands under the name of its framework."""


@dataclass(frozen=True)
class Outcome:
    """The three arms of one fault in one framework."""

    framework: str
    """The framework's name for people."""
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


def by_framework(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """The outcomes of each framework, in their order."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.framework, []).append(outcome)
    return groups


def render(outcomes: Sequence[Outcome]) -> str:
    """The table as text: one row per fault, under the name of the framework if there are several."""
    groups = by_framework(outcomes)
    indent = INDENT if len(groups) > 1 else ""
    rows = {name: [_row(outcome, indent) for outcome in group] for name, group in groups.items()}
    all_rows = [HEADINGS, *chain.from_iterable(rows.values())]
    widths = [max(len(row[column]) for row in all_rows) for column in range(len(HEADINGS))]
    heading = _line(HEADINGS, widths)
    lines = [heading, "-" * len(heading)]
    for name, group in rows.items():
        lines += [name] if len(groups) > 1 else []
        lines += [_line(row, widths) for row in group]
    return "\n".join(lines)


def _row(outcome: Outcome, indent: str) -> tuple[str, ...]:
    summary = outcome.guarded.summary
    arms = (outcome.unguarded, outcome.guarded, outcome.undisturbed)
    counts = (summary[name] for name in ("incidents", "skipped_steps", "rollbacks", "lr_cuts"))
    lost = lost_steps(outcome.guarded.events)
    return (indent + outcome.fault.title, *(percent(arm.accuracy) for arm in arms), *map(str, counts), str(lost))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    fault, *numbers = row
    right = (number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True))
    return "  ".join((fault.ljust(widths[0]), *right))
