"""One arm of the demo: what to train, and what came of it. The contract between the demo and a framework."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from nan_callbacks.demo.digits import Batches, Digits
from nan_callbacks.demo.faults import Fault


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the net is trained; the same in all arms.

    The net is a residual convolutional one with BatchNorm in its branches. With BatchNorm on the main path, a
    sample that is 10 000 times too bright is divided by the batch's own spread: it hardly shows in the loss
    and does its harm in the running statistics alone.
    """

    epochs: int = 12
    """Enough for 99 % of the test digits."""
    batch_size: int = 32
    learning_rate: float = 0.03
    """Of stochastic gradient descent with momentum 0.9; 0.01 to 0.05 train this net equally well."""
    momentum: float = 0.9
    channels: int = 8
    """Channels of every convolution."""
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
        """What the schedule, right or wrong, says about a step: a factor on the learning rate."""
        return 1.0 if self.fault is None else self.fault.learning_rate_scale(step, self.batches.total_steps)


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
