"""The checkup within a fit: visible while it lasts, written into the run's record, never in the way."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nan_callbacks.checkup.notice import CheckupReport, Notice
from nan_callbacks.core.events import SCHEMA, Event
from nan_callbacks.core.finding import Severity
from nan_callbacks.core.journal import Journal
from nan_callbacks.core.sentences import shortened

PATIENCE = 2.0
"""Seconds after which people are told what takes so long."""


def look_over(look: Callable[[], CheckupReport], journal: Journal, *, strict: bool) -> CheckupReport:
    """Run a checkup and put it on record.

    Args:
        look: The adapter's checkup.
        journal: The run's record.
        strict: Whether an error of the checkup is raised rather than told.

    Returns:
        The report; of a checkup that failed an empty one with a note.
    """
    try:
        with _told_if_slow(journal.say):
            report = look()
    except Exception as error:
        if strict:
            raise
        report = CheckupReport(notes=(f"the checkup itself failed: {shortened(f'{type(error).__name__}: {error}')}",))
        if journal.say is not None:
            journal.say(f"{report.notes[0]}; training goes on under guard without it (checkup=False turns it off)")
    journal.record([*map(_event, report), *_remarks(report)])
    return report


@contextmanager
def _told_if_slow(say: Callable[[str], None] | None) -> Iterator[None]:
    if say is None:
        yield
        return
    timer = threading.Timer(
        PATIENCE, say, ["looking data, model and learning rate over before the first step (checkup=False: do not)"]
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _event(notice: Notice) -> Event:
    return {
        "event": "checkup",
        "schema": SCHEMA,
        "time": time.time(),
        "rank": 0,
        "step": 0,
        "epoch": 0,
        **notice.to_dict(),
        "message": f"before the first step · {notice.describe()}",
    }


def _remarks(report: CheckupReport) -> list[Event]:
    """One line for all that is merely information."""
    counts = Counter(notice.code for notice in report if notice.severity is Severity.INFO)
    if not counts:
        return []
    listed = ", ".join(f"{code} × {count}" if count > 1 else code for code, count in counts.items())
    return [
        {
            "event": "checkup_remarks",
            "schema": SCHEMA,
            "time": time.time(),
            "rank": 0,
            "step": 0,
            "epoch": 0,
            "codes": list(counts),
            "message": f"before the first step · weak points ({listed}): print(guard.checkup_report.describe())",
        }
    ]
