"""Journal: keeps the events of a run, appends them to a file, says them once, counts them."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nan_callbacks.core.events import SCHEMA, Event, end_last_line, to_json_line

LOGGER = logging.getLogger("nan_callbacks")

SPOKEN_PER_CODE = 5
"""Incidents of one code that are printed one by one; after that every tenth. All of them are in the events."""

MAX_EVENTS_KEPT = 10_000
"""Events kept in memory; the file keeps all of them."""


class Journal:
    """The written and the spoken record of one run.

    Args:
        path: File to append to, None for no file. Its folder is created.
        say: Prints one message for people; None for silence.
    """

    def __init__(self, path: str | os.PathLike[str] | None, say: Callable[[str], None] | None) -> None:
        self.path = None if path is None else Path(path)
        self.say = say
        self.events: list[Event] = []
        self._counts: Counter[str] = Counter()
        self._codes: Counter[str] = Counter()
        self._stop_reason: str | None = None
        self._appended = False

    def __getstate__(self) -> dict[str, Any]:
        """A copy has no voice: it speaks for nobody's run."""
        return {**vars(self), "say": None}

    def record(self, events: list[Event]) -> None:
        """Keep, write and say some events.

        A file that cannot be written is given up with one warning: the guard matters more than its record.
        """
        for event in events:
            self._count(event)
            if len(self.events) < MAX_EVENTS_KEPT:
                self.events.append(event)
            if self.say is not None and self._worth_saying(event):
                self.say(str(event["message"]))
        if self.path is not None and events:
            try:
                self._append(self.path, events)
            except OSError as error:
                LOGGER.warning("NaNGuard: no more events are written to %s: %s", self.path, error)
                self.path = None

    def close(self, *, steps: int, lr_scale: float) -> None:
        """Record the totals, and say them if there was anything to say.

        Args:
            steps: Attempted steps.
            lr_scale: Final scale of the learning rate.
        """
        totals = self.summary(steps=steps, lr_scale=lr_scale)
        message = _summary_sentence(totals)
        event = {"event": "summary", "schema": SCHEMA, "time": time.time(), **totals, "message": message}
        say, self.say = self.say, self.say if totals["incidents"] else None
        self.record([event])
        self.say = say

    def summary(self, *, steps: int, lr_scale: float) -> dict[str, Any]:
        """Totals of the run so far.

        Args:
            steps: Attempted steps.
            lr_scale: Present scale of the learning rate.
        """
        return {
            "steps": steps,
            "incidents": self._counts["incident"],
            "skipped_steps": self._counts["skipped"],
            "rollbacks": self._counts["rollback"],
            "lr_cuts": self._counts["reduce_lr"],
            "levels_accepted": self._counts["level_accepted"],
            "codes": dict(self._codes),
            "lr_scale": lr_scale,
            "stopped": self._stop_reason is not None,
            "stop_reason": self._stop_reason,
        }

    def state_dict(self) -> dict[str, Any]:
        """Plain state: the counts, not the events."""
        return {"counts": dict(self._counts), "codes": dict(self._codes), "stop_reason": self._stop_reason}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        self._counts = Counter(state["counts"])
        self._codes = Counter(state["codes"])
        self._stop_reason = state["stop_reason"]

    def _append(self, path: Path, events: list[Event]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self._appended:
            end_last_line(path)
            self._appended = True
        with path.open("a", encoding="utf-8") as file:
            file.writelines(to_json_line(event) + "\n" for event in events)

    def _count(self, event: Event) -> None:
        kind = event["event"]
        self._counts[kind] += 1
        if kind == "incident":
            self._codes.update([event["code"], *event.get("also", [])])
        if kind == "stop":
            self._stop_reason = event["reason"]

    def count_skipped_step(self) -> None:
        """Count one dropped step (which may have had several findings)."""
        self._counts["skipped"] += 1

    def _worth_saying(self, event: Event) -> bool:
        if event["event"] in ("checkup", "health"):
            return bool(event["severity"] != "info")
        if event["event"] != "incident":
            return True
        count = self._codes[event["code"]]
        return count <= SPOKEN_PER_CODE or count % 10 == 0


def _summary_sentence(totals: dict[str, Any]) -> str:
    codes = ", ".join(f"{code} ×{count}" for code, count in sorted(totals["codes"].items()))
    parts = [
        f"{totals['steps']} steps",
        f"{totals['incidents']} incidents" + (f" ({codes})" if codes else ""),
    ]
    if totals["skipped_steps"]:
        parts.append(f"{totals['skipped_steps']} steps skipped")
    if totals["rollbacks"]:
        parts.append(f"{totals['rollbacks']} rollbacks")
    if totals["lr_scale"] != 1.0:
        parts.append(f"learning rate at {totals['lr_scale']:.3g} of its schedule")
    if totals["stopped"]:
        parts.append(f"stopped: {totals['stop_reason']}")
    return "summary · " + " · ".join(parts)
