"""The run's recent past, kept while it trains: a few hundred numbers that a diagnosis can look back on."""

from __future__ import annotations

from collections import deque
from typing import Any

from nan_callbacks.core.observation import StepObservation
from nan_callbacks.diagnosis.evidence import History

LENGTH = 256
"""Accepted steps remembered; what :class:`.History` promises."""

_Row = tuple[int, float | None, float | None, float | None, float | None]


class HistoryRecorder:
    """Remembers the last accepted steps.

    Args:
        length: Steps remembered.
    """

    def __init__(self, length: int = LENGTH) -> None:
        self._rows: deque[_Row] = deque(maxlen=length)
        self._incidents = 0
        self._skipped = 0
        self._rollbacks = 0
        self._reached = 0

    def observe(self, seen: StepObservation, *, incident: bool = False) -> None:
        """Take in one step, before or after its incident was diagnosed.

        A step whose update was dropped is counted, not remembered: its numbers are no part of the run's past.

        Args:
            seen: The step.
            incident: Whether a detector found something about it. Such a step is not remembered either.
        """
        self._incidents += incident
        self._skipped += not seen.applied
        if incident or not seen.applied:
            return
        loss = seen.loss if seen.loss_is_finite else None
        norm = seen.grad_norm if seen.grad_norm_is_finite else None
        rate = max(seen.learning_rates, default=None)
        self._rows.append((seen.step, loss, norm, seen.param_norm, rate))
        self._reached = max(self._reached, len(self._rows))

    def rolled_back(self, restored_step: int) -> None:
        """Forget the steps that a rollback undid.

        Args:
            restored_step: The state before this step is in force again.
        """
        self._rollbacks += 1
        while self._rows and self._rows[-1][0] >= restored_step:
            self._rows.pop()

    def history(self) -> History:
        """What is remembered, oldest first."""
        columns = list(zip(*self._rows, strict=True)) or [()] * 5
        losses, norms, weights, rates = (
            tuple(value for value in column if value is not None) for column in columns[1:]
        )
        return History(
            losses=losses,
            grad_norms=norms,
            param_norms=weights,
            learning_rates=rates,
            from_start=bool(self._rows) and self._rows[0][0] == 0,
            reached=self._reached,
            is_complete=True,
            incidents=self._incidents,
            skipped=self._skipped,
            rollbacks=self._rollbacks,
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain state."""
        return {
            "rows": [list(row) for row in self._rows],
            "incidents": self._incidents,
            "skipped": self._skipped,
            "rollbacks": self._rollbacks,
            "reached": self._reached,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        self._rows = deque((_row(values) for values in state["rows"]), maxlen=self._rows.maxlen)
        self._incidents = int(state["incidents"])
        self._skipped = int(state["skipped"])
        self._rollbacks = int(state["rollbacks"])
        self._reached = int(state.get("reached", len(self._rows)))


def _row(values: list[Any]) -> _Row:
    step, loss, norm, weights, rate = values
    return int(step), loss, norm, weights, rate
