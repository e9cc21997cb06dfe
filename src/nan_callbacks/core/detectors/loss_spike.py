"""LOSS401: a loss far above its own history."""

from __future__ import annotations

from typing import ClassVar

from nan_callbacks.core.detectors.spike import SpikeDetector
from nan_callbacks.core.finding import Action
from nan_callbacks.core.limits import OPEN, Limits
from nan_callbacks.core.observation import StepObservation


class LossSpikeDetector(SpikeDetector):
    """Loss spike: one step whose loss is worse than anything the run has shown lately, the untrained model included."""

    code: ClassVar[str] = "LOSS401"
    title: ClassVar[str] = "loss spike"
    quantity: ClassVar[str] = "loss"

    def value_of(self, observation: StepObservation) -> float | None:
        """The raw loss; a non-finite one is the business of another detector."""
        return observation.loss if observation.loss_is_finite else None

    def limits(self) -> Limits:
        """A limit on the loss."""
        if self.action is Action.OBSERVE:
            return OPEN
        return Limits.of(max_loss=self.baseline.limit())
