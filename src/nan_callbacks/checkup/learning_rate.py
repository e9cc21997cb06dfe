"""Whether the learning rate moves the loss, and in the right direction: a few virtual steps on copies of the state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from nan_callbacks.checkup.advice import WARNING, notice
from nan_callbacks.checkup.facts import RateFacts
from nan_callbacks.checkup.notice import Notice

STEPS = 4
"""Virtual steps of a trial, all of them on the first batch: with a rate that works its loss falls."""

RISEN = 2.0
"""Factor on the first loss that a working rate does not reach. Momentum and dropout make it rise by less."""

PEAK = 10.0
"""Factor on the first loss from which it was thrown, even if it touches its first value on the way back and forth."""

STILL = 1e-5
"""Relative change over the trial below which a rate moves nothing: a hundred times the rounding of float32."""

LOWER = (0.1, 0.01, 1e-3, 1e-5, 1e-7)
HIGHER = (1e3, 1e5, 1e7, 1e8)
"""Factors that are tried on a rate that fails, in order, until one works."""

LEARNT = 1e-3
"""Relative fall that tells that a rate works: a hundred times what :data:`STILL` allows."""

CLEARLY = 0.05
"""Relative fall within the trial that no rate makes which is orders of magnitude too low for its targets."""

Losses = tuple[float, ...]


def probe_rate(
    run: Callable[[float], Losses | None], learning_rate: float, *, optimizer: str = "", is_scheduled: bool = False
) -> RateFacts | None:
    """Try the rate, and if it fails others.

    Args:
        run: Losses of the first batch over :data:`STEPS` steps with a factor on the rate; None: it cannot be tried.
        learning_rate: The rate that the run begins with.
        optimizer: Its name.
        is_scheduled: Whether a schedule will change it: a warm-up begins with next to nothing.

    Returns:
        What was seen; None if nothing could be tried.
    """
    factors, losses = [1.0], [run(1.0)]
    if losses[0] is None or not losses[0]:
        return None
    others: tuple[float, ...] = ()
    if _explodes(losses[0]):
        others = LOWER
    elif _stands_still(losses[0]) and not is_scheduled:
        others = HIGHER
    for factor in others:
        tried = run(factor)
        if not tried:
            break
        factors.append(factor)
        losses.append(tried)
        if _works(tried, losses[0]):
            break
    known = tuple(each for each in losses if each is not None)
    return RateFacts(learning_rate=learning_rate, factors=tuple(factors), losses=known, optimizer=optimizer)


def examine_rate(facts: RateFacts | None) -> Iterator[Notice]:
    """A notice if the rate is too high or too low, with one that works."""
    if facts is None or not facts.losses or not math.isfinite(facts.losses[0][0]):
        return
    first = facts.losses[0]
    good = [factor for factor, losses in zip(facts.factors, facts.losses, strict=True) if _works(losses, first)]
    if not good or facts.factors[0] in good:
        return
    rate, factor = facts.learning_rate, good[-1]
    worked = facts.losses[facts.factors.index(factor)]
    told = f"With {rate:g} the loss of one batch goes from {first[0]:.4g} to {first[-1]:.4g} within {len(first) - 1} "
    told += f"steps; with {rate * factor:.3g} from {worked[0]:.4g} to {worked[-1]:.4g}."
    name = facts.optimizer or "learning rate"
    if _explodes(first):
        yield notice(
            "OPT601", "at_start", WARNING, name, told,
            remedy=f"Begin with a learning rate of about {rate * factor:.1g}, or warm up to the present one.",
        )  # fmt: skip
    elif _stands_still(first):
        yield notice(
            "OPT602", "at_start", WARNING, name, told,
            remedy=f"Raise the learning rate: {rate * factor:.1g} works on the first batch.",
        )  # fmt: skip


def gets_on(facts: RateFacts) -> bool:
    """Whether the loss of the first batch falls clearly with the rate as it is."""
    losses = facts.losses[0]
    return all(map(math.isfinite, losses)) and losses[-1] < losses[0] - CLEARLY * abs(losses[0])


def _explodes(losses: Losses) -> bool:
    if not all(map(math.isfinite, losses)):
        return math.isfinite(losses[0])
    first, last = losses[0], losses[-1]
    thrown = max(losses) >= first + (PEAK - 1) * abs(first)
    return last > first + max((RISEN - 1) * abs(first), 1e-6) and (thrown or min(losses[1:]) >= first)


def _stands_still(losses: Losses) -> bool:
    return all(map(math.isfinite, losses)) and max(losses) - min(losses) <= STILL * abs(losses[0])


def _works(tried: Losses, own: Losses) -> bool:
    """Whether a rate brings the loss down, and below where the run's own rate began.

    A step by hand may update before its last loss: with a rate that is too high its first loss is blown up already.
    """
    return _falls(tried) and not tried[-1] >= own[0]


def _falls(losses: Losses) -> bool:
    finite = all(map(math.isfinite, losses))
    return finite and len(losses) > 1 and losses[-1] < losses[0] - LEARNT * abs(losses[0])
