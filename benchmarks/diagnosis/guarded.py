"""What a guarded run leaves behind, in either framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nan_callbacks.diagnosis.diagnosis import Diagnosis
from nan_callbacks.diagnosis.incident import Incident


@dataclass(frozen=True)
class Guarded:
    """A guarded run."""

    incidents: tuple[Incident, ...]
    asked: Sequence[Diagnosis]
    """The diagnosis that was asked for at the end, if it was."""
    step_seconds: float
    """Median of a step."""
    raised: str = ""
