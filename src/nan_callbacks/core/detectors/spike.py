"""The mechanism that gradient and loss spikes share: a baseline, a limit, and a way out of a new level."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from nan_callbacks.core.baseline import Baseline, BaselineSettings
from nan_callbacks.core.finding import Action, Finding, Severity
from nan_callbacks.core.limits import Limits
from nan_callbacks.core.observation import StepObservation


class SpikeDetector(ABC):
    """Flags a value above the limit of its own history.

    Args:
        settings: How far is too far.
        action: What to propose for a flagged step.
    """

    code: ClassVar[str]
    title: ClassVar[str]
    quantity: ClassVar[str]

    def __init__(self, settings: BaselineSettings, action: Action = Action.SKIP_STEP) -> None:
        self.baseline = Baseline(settings)
        self.action = action
        self._flagged_in_a_row = 0

    @abstractmethod
    def value_of(self, observation: StepObservation) -> float | None:
        """The number this detector judges."""

    def update(self, observation: StepObservation) -> list[Finding]:
        """Judge the step's value, then learn it if it is finite, unflagged and its update reached the weights."""
        value = self.value_of(observation)
        if value is None or math.isnan(value):
            return []
        limit = self.baseline.limit()
        if value <= limit:
            self._flagged_in_a_row = 0
            if observation.applied and math.isfinite(value):
                self.baseline.learn(value)
            return []
        finding = self._finding(observation, value, limit)
        self._flagged_in_a_row += 1
        if self._flagged_in_a_row >= self.baseline.settings.warmup_steps:
            # The updates were applied (observe mode, or a gate with older limits) and the level stayed: it is new.
            self.accept_level()
        return [finding]

    def accept_level(self) -> None:
        """Start a new history."""
        self.baseline.reset()
        self._flagged_in_a_row = 0

    def state_dict(self) -> dict[str, Any]:
        """Plain state."""
        return {"baseline": self.baseline.state_dict(), "flagged_in_a_row": self._flagged_in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        self.baseline.load_state_dict(state["baseline"])
        self._flagged_in_a_row = int(state["flagged_in_a_row"])

    @abstractmethod
    def limits(self) -> Limits:
        """The limit on this detector's quantity; none at all if it only observes."""

    def _finding(self, observation: StepObservation, value: float, limit: float) -> Finding:
        return Finding.of(
            observation,
            code=self.code,
            title=self.title,
            severity=Severity.WARNING,
            action=self.action,
            quantity=self.quantity,
            value=value,
            limit=limit,
            robust_z=self.baseline.z(value),
        )
