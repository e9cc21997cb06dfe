"""Suspects that a run was ruined in its first steps: its loss is little below where it began, or above."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any

from nan_callbacks.core.finding import Action, Finding, Severity
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.core.stall import AFTER, FIRST, is_rising

WINDOW = 32
"""Accepted steps whose mean loss is a level."""

PATIENCE = 400
"""Steps up to which a learning rate that is still rising is waited for, and the first weights are kept."""

LEARNT = 0.4
"""Level over the first loss below which a run has learnt something. Dead units leave some nets half of what they could
do: at a hundredfold rate a small net came from 2.3 to 1.1 within 200 steps, and to 0.9 within 600."""

GETS_ON = 0.7
"""Level over that of 96 steps before from which a run gets on well enough, if it is below the first loss."""

KEPT = 0.9
"""Level over the one that was left for the first weights below which it was right to do so."""

QUESTIONS = 2
"""Asked of a run: the second about how it got on from the first weights."""


@dataclass(frozen=True, kw_only=True)
class BetterStart:
    """What trials say for beginning again; losses of batches that were not trained on."""

    cut: float
    """Factor on the largest learning rate so far."""
    steps: int
    """Of a trial."""
    reached: float
    """Loss after these steps from the first weights, at the cut rate."""
    at_this_rate: float
    """The same at the present rate; infinite if it overflows."""
    present: float
    """Loss with the present weights."""

    def describe(self) -> str:
        """In words."""
        failed = "overflows" if math.isinf(self.at_this_rate) else f"ends at {self.at_this_rate:.3g}"
        return (
            f"{self.steps} steps from the first weights at {self.cut:.3g} of the learning rate bring it to "
            f"{self.reached:.3g} on batches that were not trained on, where it is {self.present:.3g} now; "
            f"at the full rate the same {failed}"
        )


class StartWatch:
    """Follows the losses of a run with one optimizer from its first step on.

    A plateau that a run will leave, noise that cannot be learnt, a net that was trained before: they look the same in
    the losses. So this is no finding but a question: do a few steps from the first weights, at a lower rate, do clearly
    better than all that the run has done since? Until it is answered the first snapshot is kept.

    Args:
        action: What a finding proposes, once it is proved.
        is_open: Whether there is anybody who can answer.
    """

    def __init__(self, action: Action = Action.ROLLBACK, *, is_open: bool = True) -> None:
        self.action = action
        self.is_open = is_open
        """Whether there may be a question."""
        self._first: float | None = None
        self._losses: deque[float] = deque(maxlen=4 * WINDOW)
        self._rates: deque[float] = deque(maxlen=2 * WINDOW)
        self._since = 0
        """First step of the present attempt."""
        self._asked = 0
        self._left: float | None = None
        """The level that was left for the first weights."""

    def observe(self, seen: StepObservation, *, incident: bool = False) -> Finding | None:
        """Take in one judged step.

        Args:
            seen: The step.
            incident: Whether a detector found something about it.

        Returns:
            What will have been found, if trials prove it.
        """
        if not self.is_open:
            return None
        if seen.competing or (self._first is None and seen.step >= FIRST):  # several losses, or it began elsewhere
            self.close()
            return None
        if incident or not seen.applied or seen.loss is None or not math.isfinite(seen.loss):
            return None
        self._first = seen.loss if self._first is None else self._first
        self._losses.append(seen.loss)
        self._rates.append(max(seen.learning_rates, default=0.0))
        if self._first <= 0.0 or self._has_learnt():
            self.close()
            return None
        steps = seen.step + 1 - self._since
        if steps < AFTER or len(self._losses) < 4 * WINDOW or (is_rising(self._rates) and steps < PATIENCE):
            return None
        return self._look(seen)

    def close(self) -> None:
        """There is nothing to ask any more."""
        self.is_open = False
        self._losses.clear()
        self._rates.clear()

    def rolled_back(self, step: int) -> None:
        """The run goes on from an earlier state.

        Args:
            step: Of the run's clock, which goes on.
        """
        if not self.is_open:
            return
        self._since = step
        self._losses.clear()
        self._rates.clear()

    def restarted(self, level: float | None) -> None:
        """The run has gone back to its first weights for this question.

        Args:
            level: The one that was left.
        """
        self._left = level
        self.is_open = self._asked < QUESTIONS

    @property
    def broke_its_promise(self) -> bool:
        """Whether the run, sent back to its first weights, has done no better than before."""
        return self._left is not None and bool(self._losses) and self._level() >= KEPT * self._left

    def state_dict(self) -> dict[str, Any]:
        """Plain state."""
        return {
            "is_open": self.is_open,
            "first": self._first,
            "losses": list(self._losses),
            "rates": list(self._rates),
            "since": self._since,
            "asked": self._asked,
            "left": self._left,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        self.is_open = self.is_open and bool(state["is_open"])
        self._first, self._left = state["first"], state["left"]
        self._losses, self._rates = deque(state["losses"], maxlen=4 * WINDOW), deque(state["rates"], maxlen=2 * WINDOW)
        self._since, self._asked = int(state["since"]), int(state["asked"])

    def _look(self, seen: StepObservation) -> Finding | None:
        self.is_open = False
        self._asked += 1
        before, level = fmean(list(self._losses)[:WINDOW]), self._level()
        gets_on = level <= GETS_ON * before and level < (self._first or 0.0)
        if gets_on or min(self._losses) <= 0.0:
            return None
        return Finding.of(
            seen,
            code="LOSS408",
            title="ruined start",
            severity=Severity.ERROR,
            action=self.action,
            quantity="loss",
            value=level,
        )

    def _has_learnt(self) -> bool:
        return len(self._losses) >= WINDOW and self._level() < LEARNT * (self._first or 0.0)

    def _level(self) -> float:
        return fmean(islice(reversed(self._losses), WINDOW))
