"""Limits: what the next step must stay under for its update to reach the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Limits:
    """Published by the core before a step, compared by the adapter's gate inside the step."""

    max_loss: float = math.inf
    max_grad_norm: float = math.inf
    max_statistics_jump: float = math.inf
    admit_non_finite_loss: bool = False
    """Whether a non-finite loss alone, with finite gradients inside the limits, lets the update through."""
    admit_non_finite_gradients: bool = False
    """Whether non-finite gradients pass. Only when the user asked to observe and nothing more."""
    closed: bool = False
    """Nothing passes any more: the guard has given up and the trainer has not stopped yet."""

    def admits(self, loss: float | None, grad_norm: float | None, statistics_jump: float | None = None) -> bool:
        """Decide whether an update with these numbers may reach the weights.

        This is the reference for every gate: a gate inside a compiled step must select exactly what this selects.

        Args:
            loss: Raw loss of the step, None if unknown.
            grad_norm: Global L2 gradient norm, None if there are no gradients.
            statistics_jump: Growth factor of the running variances in this step, None if there are none.

        Returns:
            True if the update may be applied.
        """
        if self.closed:
            return False
        if grad_norm is not None:
            if not math.isfinite(grad_norm):
                return self.admit_non_finite_gradients
            if grad_norm > self.max_grad_norm:
                return False
        if statistics_jump is not None and statistics_jump > self.max_statistics_jump:
            return False
        if loss is None:
            return True
        if not math.isfinite(loss):
            return self.admit_non_finite_loss
        return loss <= self.max_loss

    @staticmethod
    @lru_cache(maxsize=64)
    def of(
        *, max_loss: float = math.inf, max_grad_norm: float = math.inf, max_statistics_jump: float = math.inf
    ) -> Limits:
        """Limits on some quantities; the same object for the same numbers, so that a change is told by identity."""
        return Limits(max_loss, max_grad_norm, max_statistics_jump)

    @classmethod
    def combined(cls, limits: Sequence[Limits]) -> Limits:
        """Combine the limits of several detectors: the strictest number wins, a permission needs only one voice.

        Args:
            limits: At least one.
        """
        return cls(
            max_loss=min([each.max_loss for each in limits]),
            max_grad_norm=min([each.max_grad_norm for each in limits]),
            max_statistics_jump=min([each.max_statistics_jump for each in limits]),
            admit_non_finite_loss=True in [each.admit_non_finite_loss for each in limits],
            admit_non_finite_gradients=True in [each.admit_non_finite_gradients for each in limits],
            closed=True in [each.closed for each in limits],
        )


OPEN = Limits()
"""Everything finite passes."""
