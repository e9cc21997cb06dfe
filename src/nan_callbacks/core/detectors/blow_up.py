"""LOSS402 at the start: the first updates have thrown the weights, and the loss has exploded with them."""

from __future__ import annotations

import math
from typing import Any

from nan_callbacks.core.finding import Action, Finding, Severity
from nan_callbacks.core.limits import OPEN, Limits
from nan_callbacks.core.observation import StepObservation

FIRST_STEPS = 8
"""Steps in which a start is judged: a learning rate 1000 times too high shows within 2 of them."""

GROWTH = 2.0
"""Growth of the parameter norm since the first step. In benchmarks/healthy it is at most 1.7 within 8 steps if the loss
has risen at all; at rates 1000 times too high it is 2 to 10^5 after 2 steps."""

RISE = 10.0
"""Multiples of the loss on weights that had not grown. Healthy runs on single samples reach 5 * 10^4 of their first,
with weights that have not moved."""


class BlowUpDetector:
    """Divergence within the first steps, before there is a level to compare with.

    Data may make the first losses what they will, and a healthy start may inflate the weights; both at once, within a
    few steps, are a learning rate that is far too high, or data whose scale makes it so. What follows is often finite
    and calm: dead units, and a loss at chance level.

    Args:
        action: What to propose.
    """

    def __init__(self, action: Action = Action.ROLLBACK) -> None:
        self.action = action
        self._seen = 0
        self._usual_loss: float | None = None
        """The largest on weights that had not grown yet."""
        self._first_norm: float | None = None

    def update(self, observation: StepObservation) -> list[Finding]:
        """Compare an accepted step with the first ones."""
        if self._seen > FIRST_STEPS or observation.competing:
            return []
        loss, norm = observation.loss, observation.grown_norm
        self._seen += 1
        if loss is None or norm is None or not (math.isfinite(loss) and math.isfinite(norm) and observation.applied):
            return []
        if self._usual_loss is None or self._first_norm is None:
            self._usual_loss, self._first_norm = loss, norm
            return []
        if norm < GROWTH * self._first_norm:
            self._usual_loss = max(self._usual_loss, loss)
            return []
        if self._usual_loss <= 0 or self._first_norm <= 0 or loss < RISE * self._usual_loss:
            return []  # from nothing, any growth is infinite
        return [self._finding(observation, loss, norm / self._first_norm)]

    def limits(self) -> Limits:
        """No say about single steps."""
        return OPEN

    def accept_level(self) -> None:
        """The start is over."""
        self._seen = FIRST_STEPS + 1

    def state_dict(self) -> dict[str, Any]:
        """Plain state."""
        return {"seen": self._seen, "usual_loss": self._usual_loss, "first_norm": self._first_norm}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        self._seen = int(state["seen"])
        self._usual_loss, self._first_norm = state["usual_loss"], state["first_norm"]

    def _finding(self, seen: StepObservation, loss: float, growth: float) -> Finding:
        assert self._usual_loss is not None
        return Finding.of(
            seen,
            code="LOSS402",
            title="divergence",
            severity=Severity.ERROR,
            action=self.action,
            quantity="loss",
            value=loss,
            limit=RISE * self._usual_loss,
            detail=f"it was {self._usual_loss:.3g} at most, the weights have grown {growth:.3g}-fold since",
        )
