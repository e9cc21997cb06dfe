"""Suspects that a run has lost what it had learnt: its loss is back where it began, its weights move as usual."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from nan_callbacks.core.finding import Action, Finding, Severity
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.core.statistics import median

WINDOW = 32
"""Accepted steps whose median loss is the present level."""

EVERY = 16
"""Accepted steps between two looks at it."""

LEARNT = 0.5
"""Best level over the first one below which something had been learnt."""

BACK = 0.5
"""Level over the first one above which most of it is lost, or is not asked for any more."""

FAR_UP = 3.0
"""Level over the best one from which it has risen by more than a lull."""

SUSPICIOUS = 0.5
"""Shares of :data:`BACK` and :data:`FAR_UP` from which no snapshot is taken or trusted: it must be from before."""

LOOKS = 3
"""Looks in a row, 48 steps, for which the loss must be back."""

LOOKS_AT_A_HIGHER_RATE = 12
"""The same, 192 steps, while the learning rate is above what it was at the best level: a warm restart throws a net out
of what it had found, and it finds its way back."""

HIGHER = 2.0
"""Factor from which a rate is another one."""

PATIENCE = 16
"""Looks, 256 steps, after which a level that is neither good nor lost is the new normal."""


class RelapseWatch:
    """Follows the level of one optimizer's losses.

    Harder data, another task, a term that is annealed or an adversary raise a loss as well, and for good. So this is no
    finding but a question: does the present batch cost as much with the last good weights? Only if it does not have the
    weights lost what they knew.

    Args:
        action: What a finding proposes, once it is proved.
    """

    def __init__(self, action: Action = Action.ROLLBACK) -> None:
        self.action = action
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._rates: deque[float] = deque(maxlen=WINDOW)
        self._counted = 0
        self._began: float | None = None
        self._best = math.inf
        self._best_rate = 0.0
        self._back = 0
        self._unsure = 0
        self._asked = False

    @property
    def suspicious(self) -> bool:
        """Whether the loss is on its way back; no snapshot is taken or trusted meanwhile."""
        return self._unsure > 0

    def observe(self, seen: StepObservation, *, incident: bool = False) -> Finding | None:
        """Take in one judged step.

        Args:
            seen: The step.
            incident: Whether a detector found something about it.

        Returns:
            What will have been found, if the weights prove to be at fault.
        """
        if incident or seen.competing or not seen.applied or seen.loss is None or not math.isfinite(seen.loss):
            return None
        self._losses.append(seen.loss)
        self._rates.append(max(seen.learning_rates, default=0.0))
        self._counted += 1
        if len(self._losses) < WINDOW or self._counted % EVERY:
            return None
        level = median(list(self._losses))
        if min(self._losses) <= 0.0:  # a ratio means nothing
            self.accept()
            return None
        return self._look(seen, level)

    def accept(self) -> None:
        """The present level is the new normal."""
        self._losses.clear()
        self._rates.clear()
        self._counted, self._began, self._best = 0, None, math.inf
        self._back = self._unsure = 0
        self._asked = False

    def state_dict(self) -> dict[str, Any]:
        """Plain state."""
        return {
            "losses": list(self._losses),
            "rates": list(self._rates),
            "counted": self._counted,
            "began": self._began,
            "best": None if math.isinf(self._best) else self._best,
            "best_rate": self._best_rate,
            "back": self._back,
            "unsure": self._unsure,
            "asked": self._asked,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        self._losses, self._rates = deque(state["losses"], maxlen=WINDOW), deque(state["rates"], maxlen=WINDOW)
        self._counted, self._began = int(state["counted"]), state["began"]
        self._best = math.inf if state["best"] is None else float(state["best"])
        self._best_rate, self._asked = float(state["best_rate"]), bool(state["asked"])
        self._back, self._unsure = int(state["back"]), int(state["unsure"])

    def _look(self, seen: StepObservation, level: float) -> Finding | None:
        if self._began is None:
            self._began = level
        rate = self._rates[-1]
        if level <= self._best:
            self._best, self._best_rate = level, min(self._rates)
        risen, back = level / self._best, level / self._began
        learnt = self._best < LEARNT * self._began
        self._back = self._back + 1 if learnt and risen > FAR_UP and back > BACK else 0
        on_its_way = learnt and risen > SUSPICIOUS * FAR_UP and back > SUSPICIOUS * BACK
        self._unsure = self._unsure + 1 if on_its_way else 0
        if self._unsure > PATIENCE:
            self.accept()
        wanted = LOOKS_AT_A_HIGHER_RATE if rate > HIGHER * self._best_rate > 0.0 else LOOKS
        if self._back < wanted or self._asked:
            return None
        self._asked = True
        return self._finding(seen, level)

    def _finding(self, seen: StepObservation, level: float) -> Finding:
        return Finding.of(
            seen,
            code="LOSS407",
            title="relapse",
            severity=Severity.ERROR,
            action=self.action,
            quantity="loss level",
            value=level,
            detail=f"it had been {self._best:.3g}, and with the last good weights the same batches cost far less",
        )
