"""LOSS402 at the start: the first updates have thrown the weights, and the loss has exploded with them."""

from __future__ import annotations

import math
from typing import Any

from nan_callbacks.core.finding import Action, Finding, Severity
from nan_callbacks.core.limits import Limits
from nan_callbacks.core.observation import StepObservation

FIRST_STEPS = 8
"""Accepted steps in which a start is judged: a learning rate 1000 times too high shows within 2 of them."""

GROWTH = 2.0
"""Growth of the parameter norm since the first step. In benchmarks/healthy it is at most 1.7 within 8 steps if the loss
has risen at all; at rates 1000 times too high it is 2 to 10^5 after 2 steps."""

RISE = 10.0
"""Multiples of the first loss. Healthy runs on single samples reach 5 * 10^4, with weights that have not moved."""


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
        self._first_loss: float | None = None
        self._first_norm: float | None = None

    def update(self, observation: StepObservation) -> list[Finding]:
        """Compare an accepted step with the first one."""
        loss, norm = observation.loss, observation.param_norm
        if self._seen > FIRST_STEPS or observation.competing or not observation.applied:
            return []
        if loss is None or norm is None or not math.isfinite(loss) or not math.isfinite(norm):
            return []
        self._seen += 1
        if self._first_loss is None or self._first_norm is None:
            self._first_loss, self._first_norm = loss, norm
            return []
        if self._first_loss <= 0 or norm < GROWTH * self._first_norm or loss < RISE * self._first_loss:
            return []
        return [self._finding(observation, loss, norm / max(self._first_norm, 1e-30))]

    def limits(self) -> Limits:
        """No say about single steps."""
        return Limits()

    def accept_level(self) -> None:
        """The start is over."""
        self._seen = FIRST_STEPS + 1

    def state_dict(self) -> dict[str, Any]:
        """Plain state."""
        return {"seen": self._seen, "first_loss": self._first_loss, "first_norm": self._first_norm}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        self._seen = int(state["seen"])
        self._first_loss, self._first_norm = state["first_loss"], state["first_norm"]

    def _finding(self, seen: StepObservation, loss: float, growth: float) -> Finding:
        assert self._first_loss is not None
        return Finding.of(
            seen,
            code="LOSS402",
            title="divergence",
            severity=Severity.ERROR,
            action=self.action,
            quantity="loss",
            value=loss,
            limit=RISE * self._first_loss,
            detail=f"the first loss was {self._first_loss:.3g}, the weights have grown {growth:.3g}-fold since",
        )
