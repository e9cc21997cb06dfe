"""What happened, in words. Every sentence about a step is the guard's own."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from nan_callbacks.core.events import Event
from nan_callbacks.demo.table import Outcome, by_framework, percent

ACTIONS = ("rollback", "reduce_lr", "level_accepted", "lr_recovered", "stop")
"""Events that tell of an action; a skipped step is told by its incident."""

QUOTED_ACTIONS = 4
"""Actions quoted per fault; the events file has all of them."""


def tell(outcomes: Sequence[Outcome], width: int) -> str:
    """One paragraph per fault: how the runs ended, what the guard first noticed, and what it did.

    Several frameworks are told one after the other, under their names.

    Args:
        outcomes: What came of the faults.
        width: Columns to stay within.
    """
    groups = by_framework(outcomes)
    parts = []
    for name, group in groups.items():
        parts += [f"{name}:"] if len(groups) > 1 else []
        parts += [_paragraph(outcome, width) for outcome in group]
    return "\n\n".join(parts)


def _paragraph(outcome: Outcome, width: int) -> str:
    events = outcome.guarded.events
    incidents = [event for event in events if event["event"] == "incident"]
    actions = [event for event in events if event["event"] in ACTIONS]
    lines = [_ending(outcome)]
    if incidents:
        lines.append(f"  first noticed: {incidents[0]['message']}")
    lines += [f"  found out: {why}" for why in dict.fromkeys(map(_why, events)) if why]
    lines += [f"  then: {event['message']}" for event in actions[:QUOTED_ACTIONS]]
    if len(actions) > QUOTED_ACTIONS:
        lines.append(f"  and so on: {len(actions)} actions in all")
    return "\n".join(textwrap.fill(line, width, subsequent_indent="    ", break_on_hyphens=False) for line in lines)


def _why(event: Event) -> str:
    """The sentence of a diagnosis that names the cause; empty of other events."""
    lines = str(event.get("paragraph", "")).splitlines() if event["event"] == "diagnosis" and event["code"] else []
    return next((line.removeprefix("Why: ") for line in lines if line.startswith("Why: ")), "")


def _ending(outcome: Outcome) -> str:
    title = outcome.fault.title[0].upper() + outcome.fault.title[1:]
    guarded = outcome.guarded
    if guarded.summary["stopped"]:
        return f"{title}: the guard gave up: {guarded.summary['stop_reason']}."
    if not guarded.summary["incidents"]:
        return f"{title}: the guard noticed nothing; its run ended at {percent(guarded.accuracy)}."
    difference = 100 * (guarded.accuracy - outcome.undisturbed.accuracy)
    return (
        f"{title}: {percent(outcome.unguarded.accuracy)} without the guard, "
        f"{percent(guarded.accuracy)} with it, {difference:+.1f} points from the undisturbed run."
    )
