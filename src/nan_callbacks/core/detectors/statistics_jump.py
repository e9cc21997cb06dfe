"""ACT301: the running statistics of a normalisation layer jump."""

from __future__ import annotations

from typing import ClassVar

from nan_callbacks.core.detectors.spike import SpikeDetector
from nan_callbacks.core.finding import Action
from nan_callbacks.core.limits import OPEN, Limits
from nan_callbacks.core.observation import StepObservation


class StatisticsJumpDetector(SpikeDetector):
    """Batch statistics far outside their history: a few wildly scaled samples in a network with batch normalisation.

    The normalisation hides such a batch from loss and gradient, but it enters the running variance, with which the
    model is then evaluated for as long as the exponential average remembers it.
    """

    code: ClassVar[str] = "ACT301"
    title: ClassVar[str] = "batch statistics jump"
    quantity: ClassVar[str] = "statistics_jump"

    def value_of(self, observation: StepObservation) -> float | None:
        """Growth factor of the running variances in this step.

        Inf (they overflowed) is above every limit. NaN (zero over zero: they were and are zero) is no growth.
        """
        return observation.statistics_jump

    def limits(self) -> Limits:
        """A limit on the growth factor."""
        if self.action is Action.OBSERVE:
            return OPEN
        return Limits.of(max_statistics_jump=self.baseline.limit())
