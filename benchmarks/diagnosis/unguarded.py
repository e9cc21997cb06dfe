"""Training a program without a guard: does the fault happen, and as the truth says?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.diagnosis.program import Happens, Program

SPIKE = 10.0
"""Multiples of the median of the steps before it that make a spike: ``min_ratio`` of the guard."""
STALLED = 0.9
"""A loss that ends above this share of its beginning has stalled."""


@dataclass(frozen=True)
class Seen:
    """What an unguarded run showed."""

    losses: tuple[float, ...]
    grad_norms: tuple[float, ...]
    weights_finite: bool
    raised: str = ""

    def first_bad_step(self) -> int | None:
        values = self.grad_norms or self.losses
        pairs = zip(self.losses, values, strict=False)
        return next((step for step, pair in enumerate(pairs) if not all(map(math.isfinite, pair))), None)

    def first_spike(self) -> int | None:
        """The first step whose loss or gradient norm towers over its past."""
        found = [step for values in (self.losses, self.grad_norms) if (step := _tower(values)) is not None]
        return min(found, default=None)


def disagreement(seen: Seen, happens: Happens) -> str:
    """Why the run is not what the truth says; empty if it is."""
    if happens is Happens.EXCEPTION:
        return "" if seen.raised and len(seen.losses) > 0 else f"nothing raised in {len(seen.losses)} steps"
    if seen.raised and seen.first_bad_step() is None:
        return f"raised {seen.raised}"
    checks = {
        Happens.NON_FINITE: _non_finite,
        Happens.SPIKE: _spike,
        Happens.DIVERGENCE: _divergence,
        Happens.STALL: _stall,
        Happens.NOTHING: _nothing,
    }
    return checks[happens](seen)


def _non_finite(seen: Seen) -> str:
    step = seen.first_bad_step()
    if step is None and seen.weights_finite:
        return f"all finite, losses {_ends(seen)}"
    return "at the very first step" if step == 0 else ""


def _spike(seen: Seen) -> str:
    step, bad = seen.first_spike(), seen.first_bad_step()
    if step is None or (bad is not None and bad <= step):
        return f"spike {step}, non-finite {bad}"
    return f"already at step {step}" if step < 20 else ""


def _divergence(seen: Seen) -> str:
    grown = not math.isfinite(seen.losses[-1]) or max(seen.losses) > SPIKE * seen.losses[0]
    return "" if grown or not seen.weights_finite else f"losses {_ends(seen)}"


def _stall(seen: Seen) -> str:
    if seen.first_bad_step() is not None:
        return "non-finite"
    few = max(1, min(20, len(seen.losses) // 4))
    first, last = _median(seen.losses[:few]), _median(seen.losses[-few:])
    return "" if last > STALLED * first else f"the loss fell from {first:.3g} to {last:.3g}"


def _nothing(seen: Seen) -> str:
    if seen.first_bad_step() is not None or not seen.weights_finite:
        return "non-finite"
    few = max(1, len(seen.losses) // 5)
    return "" if _median(seen.losses[-few:]) <= _median(seen.losses[:few]) else f"losses {_ends(seen)}"


def _tower(values: Sequence[float]) -> int | None:
    """A loss that falls far below 0 (labels of 255 in a binary cross entropy) towers as well."""
    sizes = [abs(value) for value in values]
    found = (step for step in range(5, len(sizes)) if sizes[step] > SPIKE * _median(sizes[:step]))
    return next(found, None)


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _ends(seen: Seen) -> str:
    return f"{seen.losses[0]:.3g} … {seen.losses[-1]:.3g} (most {max(seen.losses):.3g})"


def train_unguarded(program: Program) -> Seen:
    """Build and train a program on this process's framework and backend."""
    if program.framework == "lightning":
        from benchmarks.diagnosis.in_lightning import train_and_record
    else:
        from benchmarks.diagnosis.in_keras import train_and_record
    recorded: Any = train_and_record(program)
    return Seen(*recorded)
