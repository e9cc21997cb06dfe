"""An incident as users meet it in their own callback: what happened, what was done, and why it happened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nan_callbacks.core.events import Event, describe
from nan_callbacks.diagnosis.diagnosis import Diagnosis


@dataclass(frozen=True, kw_only=True)
class Incident:
    """One incident of a run."""

    step: int
    """Attempted optimizer steps of this fit before it."""
    epoch: int
    batch_index: int
    code: str
    """Of the symptom, such as ``NAN101``."""
    title: str
    """Such as ``non-finite gradients``."""
    action: str
    """What the guard did: ``observe``, ``skip_step``, ``reduce_lr``, ``rollback`` or ``stop``."""
    message: str
    """The sentence that the terminal shows."""
    event: dict[str, Any] = field(default_factory=dict)
    """The record of the stream of events."""
    diagnosis: Diagnosis | None = None
    """None if no diagnosis was made: switched off, left to another rank, or out of budget for this run."""

    @classmethod
    def from_event(cls, event: Event, diagnosis: Diagnosis | None = None) -> Incident:
        """The incident that a record of the stream tells of.

        Args:
            event: A record of kind ``incident``.
            diagnosis: What the laboratory found out about it.

        Raises:
            KeyError: If the record lacks a key that every incident has.
        """
        return cls(
            step=event["step"],
            epoch=event["epoch"],
            batch_index=event["batch_index"],
            code=event["code"],
            title=event["title"],
            action=event["action"],
            message=event.get("message") or describe(event),
            event=dict(event),
            diagnosis=diagnosis,
        )

    def describe(self) -> str:
        """The message, then the diagnosis if there is one."""
        return self.message if self.diagnosis is None else f"{self.message}\n{self.diagnosis.describe()}"
