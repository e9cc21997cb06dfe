"""Health: samples of the layers, judged by detectors of their own. Reported, never acted on."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from nan_callbacks.core.detectors.dead_units import DeadUnitsDetector
from nan_callbacks.core.detectors.headroom import HeadroomDetector
from nan_callbacks.core.detectors.health import HealthDetector
from nan_callbacks.core.detectors.layer_gradients import ExplodingByDepthDetector, VanishingByDepthDetector
from nan_callbacks.core.detectors.saturation import SaturationDetector
from nan_callbacks.core.detectors.second_moment import SecondMomentDetector
from nan_callbacks.core.detectors.update_ratio import UpdateRatioDetector
from nan_callbacks.core.finding import Finding
from nan_callbacks.core.layer_observation import HealthObservation

SHARE_OF_TIME = 1e-3
"""Of the time of the run that samples may take together."""

ALLOWANCE = 2.0
"""Seconds that they may take besides: a short run, too, gets its first looks."""


class HealthMonitor:
    """Says when to sample, and what a sample shows.

    Args:
        every_n_steps: Steps between samples; None: none are taken.
        ignore: Codes that are not to be told.
    """

    def __init__(self, every_n_steps: int | None, ignore: Collection[str] = ()) -> None:
        self.every_n_steps = every_n_steps
        self._ignored = {code.upper() for code in ignore}
        self._began = time.perf_counter()
        self._spent = 0.0
        self.detectors: tuple[HealthDetector, ...] = (
            SaturationDetector(),
            DeadUnitsDetector(),
            VanishingByDepthDetector(),
            ExplodingByDepthDetector(),
            UpdateRatioDetector(),
            HeadroomDetector(),
            SecondMomentDetector(),
        )

    def is_due(self, step: int) -> bool:
        """Whether to sample a step: the second one, then at the cadence, while samples cost next to nothing."""
        every = self.every_n_steps
        if every is None or (step % every and step != 1) or step == 0:
            return False
        return self._spent <= ALLOWANCE + SHARE_OF_TIME * (time.perf_counter() - self._began)

    def has_cost(self, seconds: float) -> None:
        """Note what a sample took."""
        self._spent += seconds

    def observe(self, seen: HealthObservation) -> list[Finding]:
        """Judge one sample."""
        found = [finding for detector in self.detectors for finding in detector.update(seen)]
        return [finding for finding in found if finding.code not in self._ignored]

    def state_dict(self) -> dict[str, Any]:
        """Plain state."""
        return {type(detector).__name__: detector.state_dict() for detector in self.detectors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        for detector in self.detectors:
            known = state.get(type(detector).__name__)
            if known is not None:
                detector.load_state_dict(known)
