"""What the checkup has to say: one notice per kind of trouble and place."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from nan_callbacks.core.finding import Severity
from nan_callbacks.diagnosis.catalogue import entry
from nan_callbacks.diagnosis.origin import SourceLine


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One thing that will go wrong, or may."""

    code: str
    """Of the catalogue, such as ``DATA502``."""
    kind: str
    """What exactly within the code, in snake_case, such as ``image_range`` or ``feature_scales``; stable."""
    severity: Severity
    """``ERROR``: training will fail or learn nonsense. ``WARNING``: it probably will, or be much worse.
    ``INFO``: one unlucky batch away."""
    where: str = ""
    """Input, output, layer or operation that it is about."""
    evidence: tuple[str, ...] = ()
    """Sentences with the numbers that were seen."""
    remedy: str = ""
    """What to do, in the words of the user's own framework."""
    source: SourceLine | None = None

    @property
    def title(self) -> str:
        """Of the code, in the field's words."""
        return entry(self.code).title

    def describe(self) -> str:
        """A short paragraph for people."""
        place = self.where + (f" ({self.source.describe()})" if self.source is not None else "")
        head = " · ".join(part for part in (f"{self.code} {self.title}", place) if part)
        lines = [head, *(f"  {sentence}" for sentence in self.evidence)]
        return "\n".join([*lines, f"  → {self.remedy}"] if self.remedy else lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for the stream of events."""
        told = asdict(self)
        return {**told, "severity": self.severity.name.lower(), "title": self.title}


@dataclass(frozen=True)
class CheckupReport:
    """All notices, the gravest first."""

    notices: tuple[Notice, ...] = ()
    notes: tuple[str, ...] = ()
    """What could not be looked at, and why."""
    seconds: float = 0.0

    def __iter__(self) -> Iterator[Notice]:
        return iter(self.notices)

    def __len__(self) -> int:
        return len(self.notices)

    def without(self, codes: Collection[str]) -> CheckupReport:
        """Without the notices that have one of these codes."""
        silenced = {code.upper() for code in codes}
        return CheckupReport(
            tuple(notice for notice in self.notices if notice.code not in silenced), self.notes, self.seconds
        )

    def describe(self) -> str:
        """For the terminal: one paragraph per notice, or one line if there is nothing to say."""
        if not self.notices:
            return "checkup · nothing found"
        return "\n".join(notice.describe() for notice in self.notices)
