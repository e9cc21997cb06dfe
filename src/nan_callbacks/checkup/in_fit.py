"""The checkup as a callback makes it: once, before the first step, told through the run's own record."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from nan_callbacks.checkup.facts import CheckupFacts
from nan_callbacks.checkup.notice import CheckupReport, Notice
from nan_callbacks.checkup.rules import judge
from nan_callbacks.core.events import SCHEMA, Event
from nan_callbacks.core.journal import Journal

LOGGER = logging.getLogger("nan_callbacks")

PATIENCE_SECONDS = 2.0
"""Silence after which people wonder whether a program hangs."""

UNDER_WAY = "checkup of data, model and learning rate before the first step …"


def check_up(
    gather: Callable[[], CheckupFacts], *, ignore: Sequence[str], journal: Journal, strict: bool
) -> CheckupReport | None:
    """Look a run over before its first step, and write down what was found.

    Args:
        gather: Finds the facts out without leaving a trace.
        ignore: Codes that are not reported.
        journal: Where notices are written and said.
        strict: Whether an error of the checkup is raised; otherwise it is reported once, and the training begins.

    Returns:
        The report; None if the checkup failed.
    """
    began = time.perf_counter()
    try:
        with said_if_slow(journal.say):
            report = judge(gather(), ignore)
    except Exception as error:
        if strict:
            raise
        LOGGER.warning(
            "NaNGuard: the checkup failed; the training begins without it, under guard. Please report this. (%s: %s)",
            type(error).__name__,
            error,
            exc_info=True,
        )
        return None
    report = replace(report, seconds=time.perf_counter() - began)
    journal.record([_event(notice) for notice in report])
    return report


@contextmanager
def said_if_slow(say: Callable[[str], None] | None, message: str = UNDER_WAY) -> Iterator[None]:
    """Say that something is under way, if it takes so long that people wonder.

    Args:
        say: Prints a message; None: nobody is told.
        message: What is under way.
    """
    timer = threading.Timer(PATIENCE_SECONDS, say, (message,)) if say is not None else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


def _event(notice: Notice) -> Event:
    return {
        "event": "checkup",
        "schema": SCHEMA,
        "time": time.time(),
        **notice.to_dict(),
        "message": f"checkup · {notice.describe()}",
    }
