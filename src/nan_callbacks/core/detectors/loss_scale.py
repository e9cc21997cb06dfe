"""OPT603: a dynamic loss scale that decays towards zero."""

from __future__ import annotations

from typing import Any

from nan_callbacks.core.finding import Action, Finding, Severity
from nan_callbacks.core.limits import OPEN, Limits
from nan_callbacks.core.observation import StepObservation

SMALLEST_USEFUL_SCALE = 1.0
"""Below one the scaler shrinks gradients instead of lifting them out of the underflow range, and what overflows at a
scale of one overflows without any scaling: the gradients themselves are at fault (pytorch/pytorch#99640)."""


class LossScaleDetector:
    """Reports, once per episode, that the loss scale has fallen below one. Single overflows are no finding."""

    def __init__(self) -> None:
        self._reported = False

    def update(self, observation: StepObservation) -> list[Finding]:
        """Judge the scale that this step used."""
        scale = observation.loss_scale
        if scale is None or scale >= SMALLEST_USEFUL_SCALE:
            self._reported = False
            return []
        if self._reported:
            return []
        self._reported = True
        return [
            Finding.of(
                observation,
                code="OPT603",
                title="loss scale collapse",
                severity=Severity.ERROR,
                action=Action.OBSERVE,
                quantity="loss_scale",
                value=scale,
                limit=SMALLEST_USEFUL_SCALE,
                detail="gradients overflow without any scaling; the scaler skips steps for a reason it cannot cure",
            )
        ]

    def limits(self) -> Limits:
        """No say in what passes: overflowing steps never pass anyway."""
        return OPEN

    def accept_level(self) -> None:
        """Nothing to forget."""

    def state_dict(self) -> dict[str, Any]:
        """Plain state."""
        return {"reported": self._reported}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        self._reported = bool(state["reported"])
