"""What the detectors of layers share: an illness must last over several samples, and is told once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from nan_callbacks.core.finding import Action, Finding, Severity
from nan_callbacks.core.layer_observation import HealthObservation

SAMPLES = 3
"""Samples in a row that show an illness before it is told: a single batch may be strange."""


class HealthDetector(ABC):
    """Judges samples of the layers. It only observes: nothing is skipped or taken back for what it finds."""

    code: ClassVar[str]
    title: ClassVar[str]
    quantity: ClassVar[str]
    severity: ClassVar[Severity] = Severity.WARNING
    samples: ClassVar[int] = SAMPLES

    def __init__(self) -> None:
        self._ill: dict[str, int] = {}

    @abstractmethod
    def judge(self, seen: HealthObservation) -> dict[str, tuple[float, float, str]]:
        """The ill layers: name, value, limit, one more sentence."""

    def update(self, seen: HealthObservation) -> list[Finding]:
        """Judge one sample; layers that were told of stay silent until they have been well again."""
        judged = self.judge(seen)
        self._ill = {name: self._ill.get(name, 0) + 1 for name in judged}
        told = {name: judged[name] for name, count in self._ill.items() if count == self.samples}
        if not told:
            return []
        name = next(iter(told))
        value, limit, detail = told[name]
        also = f"; as well {', '.join(list(told)[1:4])}" if len(told) > 1 else ""
        return [
            Finding(
                code=self.code,
                title=self.title,
                step=seen.step,
                epoch=seen.epoch,
                batch_index=seen.batch_index,
                severity=self.severity,
                action=Action.OBSERVE,
                where=name,
                quantity=self.quantity,
                value=value,
                limit=limit,
                detail=detail + also,
            )
        ]

    def state_dict(self) -> dict[str, Any]:
        """Plain state."""
        return {"ill": dict(self._ill)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        self._ill = {str(name): int(count) for name, count in state["ill"].items()}
