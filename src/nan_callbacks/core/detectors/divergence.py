"""LOSS402: the weights were thrown about and the loss has nothing to show for it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from nan_callbacks.core.finding import Action, Finding, Severity
from nan_callbacks.core.limits import OPEN, Limits
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.core.statistics import median, robust_sigma_of_sorted

MARK_STEPS = 16
"""Accepted steps whose median loss is the level at a mark; also the cadence of the parameter norm."""
NOW_STEPS = 32
"""Accepted steps whose median loss is the present level."""
MARKS = 7
"""Marks kept, one every 16 steps."""
MOST_MARKS = 4 * MARKS
"""Marks kept while a verdict waits for a loss that is nearly as good as asked."""
GROWTH_MARKS = 2
"""Marks, 32 steps, within which the weights must have grown."""
RESPONSE_MARKS = 3
"""Marks, 48 steps, after which the loss must have responded to the growth."""
PLATEAU = 0.03
"""Relative difference up to which two marks in a row are a plateau."""
BROKEN_THROUGH = 0.95
"""Loss level over that of a plateau, before the growth, below which the growth has led out of it. Parity of 12 and 16
bits by an LSTM: at 0.88 when the middle rule would judge, at 0.001 in the end. A learning rate that is too high leads
down from a first loss far above chance level, which is no plateau, or up from one."""
TORN = 4.0
"""Growth of the weights that nothing excuses: a rate ten times too high took a small net from 2.28 to 1.96 as well."""
NEXT_TO = 0.9
"""Loss level over that of a plateau from which the weights began to grow on it or next to it."""
COMPETING_RATIO = 30.0
"""Multiples of the level for runs with several optimizers: adversaries raise each other's loss by design."""
TRAVELLING = 0.65
"""Growth of the weights over the last 16 steps, in shares of the mean of the two times 16 steps before, from which they
are still on their way. Towards large targets weights travel at an even pace, and the loss may take hundreds of steps to
show it; a learning rate that is too high throws them, and in benchmarks/faults the throw is over after 48 to 64."""
RISEN = 1.2
"""Loss level over that of the beginning of the growth from which there is nothing to wait for, if it is not noise."""
HARDER = 2.0
"""Loss level over that before the growth from which harder data may be the cause: weights that only failed to improve
it are at fault whatever the data."""
LEVEL_ERROR = 1.25 * math.sqrt(1 / MARK_STEPS + 1 / NOW_STEPS)
"""Standard error of the difference between the log levels at a mark and now, for single losses that vary by 1."""
FEWEST_PER_QUARTER = 6
HALF_WAY = 0.5
"""Share of what is missing that must have been made up for within the present steps."""
CERTAIN = 3.0
"""Standard errors between the first and the last quarter of the present losses."""
SIGNED_NOISE = 2.0
"""Robust standard deviations by which a loss around or below zero must have risen: five times what the medians of 16
and 32 values differ by chance."""


@dataclass(frozen=True)
class Mark:
    """What the run looked like at one moment."""

    norm: float
    level: float
    losses: int = MARK_STEPS
    """Losses that the level was read from: the very first mark has one, which of a single sample may be anything."""

    def doubt(self, spread: float) -> float:
        """Factor by which its level may be too low because fewer losses than usual make it.

        Args:
            spread: Of single losses, robust standard deviation of their logarithm.
        """
        return math.exp(CERTAIN * 1.25 * spread * (1 / math.sqrt(self.losses) - 1 / math.sqrt(MARK_STEPS)))


@dataclass(frozen=True)
class Now:
    """The present loss."""

    level: float
    """Median."""
    signed: bool
    """Whether some of the losses are zero or below."""
    spread: float
    """Robust standard deviation of the log loss; 0 if the loss is signed."""
    noise: float
    """Robust standard deviation of the loss."""
    fall: float = 0.0
    """By how much the loss falls within these steps; 0 unless it does so for certain: from quarter to quarter, and by
    more than noise makes of quarters."""

    @classmethod
    def of(cls, losses: Sequence[float]) -> Now:
        """Summarise some losses."""
        ordered = sorted(losses)
        signed = ordered[0] <= 0
        return cls(
            level=median(ordered),
            signed=signed,
            spread=0.0 if signed else robust_sigma_of_sorted([math.log(loss) for loss in ordered]),
            noise=robust_sigma_of_sorted(ordered),
            fall=_certain_fall(losses),
        )


def _certain_fall(losses: Sequence[float]) -> float:
    size = len(losses) // 4
    if size < FEWEST_PER_QUARTER:
        return 0.0
    quarters = [list(losses)[start * size : (start + 1) * size] for start in range(4)]
    levels = [median(quarter) for quarter in quarters]
    rest = sorted(loss - level for quarter, level in zip(quarters, levels, strict=True) for loss in quarter)
    # The median of n values varies by 1.25 sigma / sqrt(n), the difference of two by sqrt(2) times that.
    certain = CERTAIN * 1.25 * math.sqrt(2.0 / size) * robust_sigma_of_sorted(rest)
    falls = levels[0] > levels[1] > levels[2] > levels[3] and levels[0] - levels[3] > certain
    return levels[0] - levels[3] if falls else 0.0


@dataclass(frozen=True)
class Rule:
    """How much growth of the weights calls for how much progress of the loss."""

    growth: float
    """Smallest growth of the parameter norm within 32 steps."""
    ratio: float
    """Loss level, in multiples of the level before the growth, from which the growth was no progress."""
    max_spread: float = math.inf
    """Largest robust standard deviation of the log loss at which a lack of progress could be told from noise: the
    medians of 16 and 32 values differ by 1.25 * spread * sqrt(1/16 + 1/32) by chance alone."""

    def threshold(self, before: Mark, now: Now, *, competing: bool) -> float:
        """Loss level from which the growth was no progress, given what was before it."""
        ratio = max(self.ratio, COMPETING_RATIO) if competing else self.ratio
        if before.level > 0 and not now.signed:
            # A loss that has risen must have risen by more than chance makes of a single one.
            return ratio * before.level * (before.doubt(now.spread) if ratio > 1.0 else 1.0)
        # Around and below zero a ratio means nothing: worse by its noise, and by the same share of the magnitude.
        return before.level + SIGNED_NOISE * now.noise + max(ratio - 1.0, 0.0) * abs(before.level)

    def calls_for_more(self, before: Mark, now: Now, *, competing: bool) -> bool:
        """Whether the present loss level is too little progress, given what was before the growth."""
        above = now.level >= self.threshold(before, now, competing=competing)
        return above and now.spread <= self.max_spread and (before.level > 0 or now.level > before.level)

    def is_nearly_met(self, before: Mark, now: Now, *, competing: bool) -> bool:
        """Whether the loss is better than before the growth and will soon be as good as asked.

        Large targets need large weights: their loss falls a little at every step, and for certain.
        """
        missing = now.level - self.threshold(before, now, competing=competing)
        return now.level < before.level and now.fall > HALF_WAY * missing


RULES = (
    Rule(growth=TORN, ratio=0.75),
    Rule(growth=1.8, ratio=0.85, max_spread=0.5),
    Rule(growth=1.4, ratio=5.0),
)
"""In benchmarks/healthy, weights that grow by 1.8 within 32 steps bring the loss to 0.65 of its level or less within
another 32, unless it is too noisy to tell. In benchmarks/faults, a learning rate 10 to 1000 times too high makes them
grow by 2 to 10^9 and leaves the loss at 0.81 of its level or more."""

PAROLE_RULES = (Rule(growth=1.8, ratio=0.65), Rule(growth=1.25, ratio=0.85, max_spread=0.5))
"""Added after a rollback: a learning rate that is still too high by a smaller factor moves the weights less and lets
the loss fall somewhat. Healthy runs are never judged by these."""
PAROLE_MARKS = 2 * MARKS
"""Marks after a rollback during which the added rules hold, none of them is forgotten, and nothing inflated is trusted:
the first loss of an untrained net is often far above chance, so that falling to chance level looks like progress
for a while, and what is seen only later must still be told from the state that was restored."""
PAROLE_GROWTH = 1.8
"""Growth of the parameter norm since the rollback from which a state is not trusted: that of the middle rule."""


def _level_of(losses: Iterable[float]) -> float:
    """Level at a mark; of one loss at least."""
    return median(list(losses)[-MARK_STEPS:])


def _plateau_of(first: float, second: float) -> float:
    """Level of the plateau that two marks in a row are on; 0 if they are on none."""
    lower = min(first, second)
    return lower if lower > 0 and abs(first - second) <= PLATEAU * lower else 0.0


class DivergenceDetector:
    """Divergence: the parameter norm jumped and, some 50 steps later, the loss is no better or worse than before.

    A loss that rises is no divergence by itself: harder data, an annealed term or an adversary raise it while the
    weights move at their usual pace. A learning rate that is too high inflates the weights within a few steps, be the
    loss exploding, stuck at chance level or oscillating; a healthy start inflates them as well, but the loss falls.
    """

    def __init__(self, action: Action = Action.ROLLBACK) -> None:
        self.action = action
        self._losses: deque[float] = deque(maxlen=NOW_STEPS)
        self._marks: deque[Mark] = deque()
        self._suspicious = False
        self._waiting = False
        self._parole = 0
        self._restored_norm: float | None = None
        self._plateau = 0.0
        """Level of the last plateau before the marks that are kept; 0 if there was none."""

    @property
    def suspicious(self) -> bool:
        """Whether the weights have just grown without progress so far; no snapshot is taken or trusted meanwhile."""
        return self._suspicious

    def update(self, observation: StepObservation) -> list[Finding]:
        """Follow the level of the accepted losses; judge whenever the parameter norm was measured."""
        if observation.applied and observation.loss is not None and math.isfinite(observation.loss):
            self._losses.append(observation.loss)
        norm = observation.grown_norm
        if norm is None or not math.isfinite(norm) or not self._losses:
            return []
        self._parole = max(self._parole - 1, 0)
        self._add_mark(norm)
        now, competing = Now.of(self._losses), observation.competing
        verdicts = [self._stagnant(index, now, competing=competing) for index in range(len(self._marks) - 1)]
        self._suspicious = any(rule is not None for rule in verdicts) or self._inflated(norm)
        self._waiting = False
        for index, rule in enumerate(verdicts[: len(self._marks) - RESPONSE_MARKS]):
            if rule is None:
                continue
            before = self._marks[index]
            if not rule.is_nearly_met(before, now, competing=competing) and not self._is_on_its_way(index, now):
                return [self._finding(observation, before, now, rule)]
            self._waiting = True
        return []

    def limits(self) -> Limits:
        """No say about single steps."""
        return OPEN

    def accept_level(self) -> None:
        """Start over from the present level."""
        self._losses.clear()
        self._marks.clear()
        self._plateau = 0.0
        self._suspicious = False

    def begin_parole(self) -> None:
        """The run has been rolled back: judge its restart more strictly for a while."""
        self._parole = PAROLE_MARKS
        self._restored_norm = None
        self._marks.clear()  # what had grown before is a part of the state that was restored

    def state_dict(self) -> dict[str, Any]:
        """Plain state."""
        return {
            "losses": list(self._losses),
            "marks": [[mark.norm, mark.level, mark.losses] for mark in self._marks],
            "suspicious": self._suspicious,
            "waiting": self._waiting,
            "parole": self._parole,
            "restored_norm": self._restored_norm,
            "plateau": self._plateau,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        self._losses = deque((float(loss) for loss in state["losses"]), maxlen=NOW_STEPS)
        self._marks = deque(Mark(float(norm), float(level), *map(int, rest)) for norm, level, *rest in state["marks"])
        self._suspicious = bool(state["suspicious"])
        self._waiting = bool(state.get("waiting", False))
        self._parole = int(state["parole"])
        self._plateau = float(state.get("plateau", 0.0))
        restored_norm = state.get("restored_norm")
        self._restored_norm = None if restored_norm is None else float(restored_norm)

    def level(self) -> float | None:
        """Of the last losses; None before the first one."""
        return _level_of(self._losses) if self._losses else None

    def _add_mark(self, norm: float) -> None:
        self._marks.append(Mark(norm, _level_of(self._losses), min(len(self._losses), MARK_STEPS)))
        while not self._parole and len(self._marks) > (MOST_MARKS if self._waiting else MARKS):
            forgotten = self._marks.popleft()
            self._plateau = _plateau_of(forgotten.level, self._marks[0].level) or self._plateau
        if self._parole and self._restored_norm is None:
            self._restored_norm = norm

    def _inflated(self, norm: float) -> bool:
        """Whether the weights have grown much since the rollback, if there was one lately."""
        return bool(self._parole and self._restored_norm and norm > PAROLE_GROWTH * self._restored_norm)

    def _stagnant(self, index: int, now: Now, *, competing: bool) -> Rule | None:
        before = self._marks[index]
        grown = self._marks[min(index + GROWTH_MARKS, len(self._marks) - 1)]
        if before.norm <= 0:
            return None
        excused = self._has_broken_through(index, now)
        for rule in (*RULES, *PAROLE_RULES) if self._parole else RULES:
            applies = grown.norm / before.norm >= rule.growth and not (excused and rule.growth < TORN)
            if applies and rule.calls_for_more(before, now, competing=competing):
                return rule
        return None

    def _is_on_its_way(self, index: int, now: Now) -> bool:
        """Whether the weights travel at an even pace, and the loss is not worse than when they set out."""
        risen = max(RISEN, math.exp(CERTAIN * LEVEL_ERROR * now.spread))
        if now.signed or now.level > risen * max(mark.level for mark in list(self._marks)[index : index + 2]):
            return False
        norms = [mark.norm for mark in list(self._marks)[-4:]]
        paces = [after - before for before, after in pairwise(norms)]
        return len(paces) == 3 and paces[-1] > TRAVELLING * max((paces[0] + paces[1]) / 2, 0.0) > 0.0

    def _has_broken_through(self, index: int, now: Now) -> bool:
        """Whether the weights began to grow on a plateau of the loss, or next to it, and it has left it downwards."""
        levels = [mark.level for mark in list(self._marks)[: index + 2]]
        found = [_plateau_of(first, second) for first, second in pairwise(levels)]
        near = [each for each in (self._plateau, *found) if each and levels[index] >= NEXT_TO * each]
        return bool(near) and not now.signed and now.level < BROKEN_THROUGH * min(near)

    def _finding(self, seen: StepObservation, before: Mark, now: Now, rule: Rule) -> Finding:
        growth = max(mark.norm for mark in self._marks) / before.norm
        self.accept_level()
        return Finding.of(
            seen,
            code="LOSS402",
            title="divergence",
            severity=Severity.ERROR,
            action=self.action,
            quantity="loss level",
            value=now.level,
            limit=rule.threshold(before, now, competing=seen.competing),
            detail=f"it was {before.level:.3g} before the weights grew {growth:.3g}-fold",
            level_before=before.level if not now.signed and now.level > HARDER * before.level > 0.0 else None,
        )
