"""Notices a run that has learnt nothing since its first step: a loss that stands where it began, or next to it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import fmean, variance

from nan_callbacks.core.finding import Action, Finding, Severity
from nan_callbacks.core.observation import StepObservation

WINDOW = 64
"""Losses at either end that are compared: their mean differs from batch to batch by an eighth of what a loss does."""

AFTER = 200
"""Steps after which a run is looked at, once. Of the healthy runs in ``benchmarks/healthy``, which are short and made
to look risky, most have lowered their loss by a tenth within 50."""

FIRST = 8
"""Steps of which the first batch that is seen may be the last: steps by hand are several to a batch."""

PATIENCE = 1000
"""Steps up to which a learning rate that is still rising is waited for."""

RISING = 1.02
"""Growth of the rate over a window that counts as rising: a warm-up of some thousand steps."""

NO_PROGRESS = 0.95
"""Last losses over first ones from which nothing has been learnt."""

COME_DOWN = 0.8
"""Last losses over first ones from which nothing has been learnt if the loss has not moved for long: fresh weights, or
the first steps of a rate that is too high, may cost more than a guess does."""

RISEN = 1.03
"""Last losses over first ones from which the loss has not stood still but become another one, as by a term whose weight
rises, or a queue of negatives that fills; what blows up is found by the detectors."""

CLEAR_FALL = 4.0
"""Standard errors between the two means from which there is a fall, however small."""


LARGEST_ROOT = 1.8e19
"""Numbers whose squares are the largest of float32."""

BEYOND = 16
"""Steps in a row with gradients above it from which optimizers that divide by the root of squares stand still: the
squares are Inf, and no later gradient brings their average back."""


class StallWatch:
    """Watches the losses of a run with one optimizer, from its first step to its only look."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._last: deque[float] = deque(maxlen=2 * WINDOW)
        self._rates: deque[float] = deque(maxlen=WINDOW)
        self._counted = 0
        self._beyond = 0
        self._began = False
        self._done = False

    def observe(self, seen: StepObservation, *, incident: bool = False) -> Finding | None:
        """Take in one judged step.

        Args:
            seen: The step.
            incident: Whether a detector found something about it: then it is none of the ordinary ones.

        Returns:
            A finding the first time that the loss is known to stand still; whether it is worth telling depends on
            whether a cause is found.
        """
        if self._done:
            return None
        began, self._began = self._began, True
        if seen.competing or (not began and seen.step >= FIRST):  # several losses, or a run that began elsewhere
            self._done = True
            return None
        if incident or not seen.applied or seen.loss is None or not math.isfinite(seen.loss):
            return None
        self._counted += 1
        self._beyond = self._beyond + 1 if LARGEST_ROOT < (seen.grad_norm or 0.0) < math.inf else 0
        if self._beyond >= BEYOND:
            self._done = True
            detail = f"for {BEYOND} steps its gradients have been too large to be squared in float32"
            return self._finding(seen, seen.loss, detail)
        if len(self._first) < WINDOW:
            self._first.append(seen.loss)
        self._last.append(seen.loss)
        self._rates.append(max(seen.learning_rates, default=0.0))
        if seen.step + 1 < AFTER or (is_rising(self._rates) and seen.step < PATIENCE):
            return None
        self._done = True
        if not self._stands_still():
            return None
        level = f"over the first {WINDOW} steps it was {fmean(self._first):.4g} on average"
        return self._finding(seen, fmean(list(self._last)[WINDOW:]), level)

    def finish(self) -> None:
        """There is nothing to look into any more."""
        self._done = True

    def _stands_still(self) -> bool:
        if self._counted < 2 * WINDOW:
            return False
        before, now = list(self._last)[:WINDOW], list(self._last)[WINDOW:]
        at_once = _is_level(self._first, now, NO_PROGRESS)
        return at_once or (_is_level(before, now, NO_PROGRESS) and fmean(now) > COME_DOWN * fmean(self._first) > 0.0)

    def _finding(self, seen: StepObservation, value: float, detail: str) -> Finding:
        return Finding.of(
            seen,
            code="LOSS406",
            title="no progress",
            severity=Severity.WARNING,
            action=Action.OBSERVE,
            quantity="loss",
            value=value,
            detail=detail,
        )


def is_rising(rates: Sequence[float]) -> bool:
    """Whether learning rates rise, as in a warm-up.

    Args:
        rates: Those of a window, oldest first.
    """
    return rates[-1] > RISING * rates[0]


def _is_level(first: Sequence[float], last: Sequence[float], least: float) -> bool:
    """Whether losses have neither fallen, by more than chance and at least by a share, nor risen."""
    began, ends = fmean(first), fmean(last)
    error = math.sqrt((variance(first) + variance(last)) / WINDOW)
    return least * began < ends < RISEN * began and began - ends <= CLEAR_FALL * error
