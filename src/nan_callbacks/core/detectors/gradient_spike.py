"""GRAD201: a gradient norm far above its own history."""

from __future__ import annotations

from typing import ClassVar

from nan_callbacks.core.detectors.spike import SpikeDetector
from nan_callbacks.core.finding import Action
from nan_callbacks.core.limits import OPEN, Limits
from nan_callbacks.core.observation import StepObservation


class GradientSpikeDetector(SpikeDetector):
    """Exploding gradient: one step whose global gradient norm would throw the weights out of their basin.

    Steps with an exactly zero gradient (a loss that is satisfied, an empty mask) say nothing about the usual size of
    a gradient and are not learned.
    """

    code: ClassVar[str] = "GRAD201"
    title: ClassVar[str] = "exploding gradient"
    quantity: ClassVar[str] = "grad_norm"

    def value_of(self, observation: StepObservation) -> float | None:
        """The global gradient norm, if it is not zero; a non-finite one is the business of another detector."""
        return observation.grad_norm or None if observation.grad_norm_is_finite else None

    def limits(self) -> Limits:
        """A limit on the gradient norm."""
        if self.action is Action.OBSERVE:
            return OPEN
        return Limits.of(max_grad_norm=self.baseline.limit())
