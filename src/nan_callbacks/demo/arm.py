"""One arm of the demo: what to train, and what came of it. The contract between the demo and a framework."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from nan_callbacks.demo.digits import Batches, Digits
from nan_callbacks.demo.faults import Fault


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the net is trained; the same in all arms."""

    epochs: int = 12
    """Enough for 99 % of the test digits."""
    batch_size: int = 32
    learning_rate: float = 0.03
    """Of stochastic gradient descent, at the first step; the net learns as well with 0.01 and with 0.05."""
    momentum: float = 0.9
    seed: int = 0
    """Seed of the split, the order of the batches, the initial weights and the corruption."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One training run."""

    recipe: Recipe
    digits: Digits
    fault: Fault | None
    """What goes wrong, None if nothing does."""
    guarded: bool
    events_path: Path | None = None
    """Where the guard writes its events."""

    @property
    def batches(self) -> Batches:
        """What the net is trained on."""
        recipe = self.recipe
        return Batches(self.digits, recipe.batch_size, recipe.epochs, recipe.seed, self.fault)

    def learning_rate_scale(self, step: int) -> float:
        """What the schedule says about a step, as a factor on the learning rate: half a cosine, down to zero.

        Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (ICLR 2017), without restarts.
        Multiplied by the fault's factor where the schedule is the fault.
        """
        total_steps = self.batches.total_steps
        cosine = 0.5 * (1.0 + math.cos(math.pi * min(step, total_steps) / total_steps))
        return cosine if self.fault is None else cosine * self.fault.learning_rate_scale(step, total_steps)


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """What came of an arm."""

    accuracy: float
    """Share of the test digits that the trained net gets right."""
    summary: dict[str, Any] = field(default_factory=dict)
    """``guard.summary``, empty without a guard."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """``guard.events``, empty without a guard."""


class Progress(Protocol):
    """Shows an arm while it trains."""

    def epoch(self, accuracy: float) -> None:
        """An epoch has ended with this test accuracy."""

    def say(self, message: str) -> None:
        """The guard has something to say."""


TrainArm = Callable[[Arm, Progress], ArmResult]
"""What a framework provides: trains the arm and reports every epoch and whatever the guard says."""
