"""The settings of the guard, the same words in every framework, checked when they are given."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, fields
from typing import Any, Literal

from nan_callbacks.errors import ConfigurationError

StepReaction = Literal["observe", "skip_step", "stop"]
DivergenceReaction = Literal["observe", "rollback", "stop"]
GiveUp = Literal["stop", "raise"]
SnapshotMemory = Literal["auto", "device", "host"]


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """Keyword arguments of ``NaNGuard`` in every framework.

    Raises:
        ConfigurationError: If a value is outside its range; the message says what was expected, what was received
            and what to do.
    """

    on_non_finite: StepReaction = "skip_step"
    """Reaction to a non-finite loss or gradient."""
    on_spike: StepReaction = "skip_step"
    """Reaction to a finite loss or gradient norm far outside its own history."""
    on_divergence: DivergenceReaction = "rollback"
    """Reaction to a loss that has risen for good while the weights were being thrown about."""
    window_size: int = 128
    """Accepted steps that make up the history of a quantity. 128 as in OLMo-core's SkipStepOptimizer."""
    warmup_steps: int = 20
    """Accepted steps before the robust limits apply; chosen on benchmarks/false_alarms.py."""
    z_threshold: float = 8.0
    """Robust standard deviations (log space for positive series) above the median; benchmarks/false_alarms.py."""
    min_ratio: float = 10.0
    """Multiples of the median that a spike has at least; benchmarks/false_alarms.py."""
    max_consecutive_skips: int = 3
    """Dropped steps in a row after which the state itself is suspected: rollback."""
    max_skip_fraction: float = 0.75
    """Share of the last 100 steps that may be dropped before the guard gives up."""
    max_rollbacks: int = 4
    """Rollbacks without progress in between before the guard gives up."""
    lr_factor: float = 0.5
    """Factor on the learning rate at a rollback; its powers 2, 4, 4 … at further ones without progress, so that
    four rollbacks span a factor of 2048."""
    lr_recovery_steps: int | None = None
    """Clean steps over which a reduced learning rate returns to its schedule. None: it stays reduced."""
    snapshot_every_n_steps: int = 50
    """Steps between snapshots; 50 keeps their cost near 0.1 % of a step (benchmarks/overhead)."""
    probation_steps: int = 50
    """Clean steps that a snapshot must survive to count as known good."""
    snapshot_memory: SnapshotMemory = "auto"
    """Where snapshots are kept: ``device`` beside the weights, ``host`` in the host's memory, ``auto`` on the device as
    long as they take little of its memory."""
    on_give_up: GiveUp = "stop"
    """``stop``: end the training in an orderly way. ``raise``: raise ``TrainingStoppedError``."""

    def __post_init__(self) -> None:
        _choice(self, "on_non_finite", ("observe", "skip_step", "stop"))
        _choice(self, "on_spike", ("observe", "skip_step", "stop"))
        _choice(self, "on_divergence", ("observe", "rollback", "stop"))
        _choice(self, "snapshot_memory", ("auto", "device", "host"))
        _choice(self, "on_give_up", ("stop", "raise"))
        _whole(self, "window_size", 16, "A median needs a sample: 64 to 256 is usual.")
        _whole(self, "warmup_steps", 2, "10 to 100 is usual; longer means fewer false alarms early on.")
        _whole(self, "max_consecutive_skips", 1, "3 is usual; a large value means: never roll back.")
        _whole(self, "max_rollbacks", 0, "4 is usual; 0 means: give up instead of the first rollback.")
        _whole(self, "snapshot_every_n_steps", 1, "50 is usual; every step costs a copy of the state per step.")
        _whole(self, "probation_steps", 1, "As many steps as a bad update needs to show: 50 is usual.")
        _real(self, "z_threshold", 0.0, math.inf, "8 is usual; larger is more tolerant.")
        _real(self, "min_ratio", 1.0, math.inf, "10 is usual; larger is more tolerant.")
        _real(
            self, "max_skip_fraction", 0.0, 1.0, "0.75 is usual; 1 never gives up for dropped steps.", closed_above=True
        )
        _real(self, "lr_factor", 0.0, 1.0, "0.5 halves the learning rate.")
        if self.lr_recovery_steps is not None:
            _whole(self, "lr_recovery_steps", 1, "None keeps the learning rate reduced.")
        if self.warmup_steps > self.window_size:
            raise ConfigurationError.of(
                "warmup_steps",
                f"<= window_size ({self.window_size})",
                self.warmup_steps,
                "Enlarge `window_size` or shorten `warmup_steps`.",
            )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of all settings, in order."""
        return tuple(field.name for field in fields(cls))


def _choice(config: Any, name: str, allowed: tuple[str, ...]) -> None:
    value = getattr(config, name)
    if not isinstance(value, str) or value not in allowed:
        words = ", ".join(repr(word) for word in allowed)
        raise ConfigurationError.of(name, f"one of {words}", value, "Choose one of these words.")


def _whole(config: Any, name: str, smallest: int, remedy: str) -> None:
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise ConfigurationError.of(name, f"a whole number >= {smallest}", value, remedy)


def _real(config: Any, name: str, low: float, high: float, remedy: str, *, closed_above: bool = False) -> None:
    value = getattr(config, name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # A comparison, not math.isfinite(), which raises for integers beyond the range of floats.
    number = is_number and abs(value) <= sys.float_info.max
    if not number or value <= low or value > high or (value == high and not closed_above):
        above = "" if high == math.inf else (f" and <= {high:g}" if closed_above else f" and < {high:g}")
        raise ConfigurationError.of(name, f"a number > {low:g}{above}", value, remedy)
