"""All detectors of one optimizer."""

from __future__ import annotations

from dataclasses import replace
from operator import is_not
from typing import Any

from nan_callbacks.core.baseline import BaselineSettings
from nan_callbacks.core.config import GuardConfig
from nan_callbacks.core.detectors.base import Detector
from nan_callbacks.core.detectors.blow_up import BlowUpDetector
from nan_callbacks.core.detectors.divergence import DivergenceDetector
from nan_callbacks.core.detectors.gradient_spike import GradientSpikeDetector
from nan_callbacks.core.detectors.loss_scale import LossScaleDetector
from nan_callbacks.core.detectors.loss_spike import LossSpikeDetector
from nan_callbacks.core.detectors.non_finite import NonFiniteDetector
from nan_callbacks.core.detectors.statistics_jump import StatisticsJumpDetector
from nan_callbacks.core.finding import Action, Finding
from nan_callbacks.core.limits import Limits
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.core.relapse import RelapseWatch

PEAK_RATIO = 5.0
"""Multiples of the largest accepted value of the window; benchmarks/false_alarms.py."""
WARMUP_LOSS_RATIO = 30.0
"""Multiples of the largest loss so far during warm-up; benchmarks/false_alarms.py."""
WARMUP_GRAD_RATIO = 100.0
"""Multiples of the largest gradient norm so far during warm-up; benchmarks/false_alarms.py."""
MEMORY_RATIO = 2.0
"""Multiples of the largest value that the run has survived lately; benchmarks/false_alarms.py."""


def build_detectors(config: GuardConfig) -> dict[str, Detector]:
    """The detectors of one optimizer, by name."""
    spike = Action[config.on_spike.upper()]

    def settings(warmup_ratio: float) -> BaselineSettings:
        return BaselineSettings(
            window_size=config.window_size,
            warmup_steps=config.warmup_steps,
            z_threshold=config.z_threshold,
            min_ratio=config.min_ratio,
            peak_ratio=PEAK_RATIO,
            warmup_ratio=warmup_ratio,
            memory_ratio=MEMORY_RATIO,
        )

    return {
        "non_finite": NonFiniteDetector(Action[config.on_non_finite.upper()]),
        "gradient_spike": GradientSpikeDetector(settings(WARMUP_GRAD_RATIO), spike),
        "loss_spike": LossSpikeDetector(settings(WARMUP_LOSS_RATIO), spike),
        "statistics_jump": StatisticsJumpDetector(settings(WARMUP_GRAD_RATIO), spike),
        "blow_up": BlowUpDetector(Action[config.on_divergence.upper()]),
        "divergence": DivergenceDetector(Action[config.on_divergence.upper()]),
        "loss_scale": LossScaleDetector(),
    }


class Stream:
    """Feeds the observations of one optimizer to its detectors and combines their limits."""

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self.detectors = build_detectors(config)
        self.relapse = RelapseWatch(Action[config.on_divergence.upper()])
        self._limits: Limits | None = None
        """Those of the coming step, once they were asked for."""
        self._parts: list[Limits] = []
        """What they were combined from when that was last done."""
        self._combined: Limits | None = None

    @property
    def suspicious(self) -> bool:
        """Whether a detector suspects the present state."""
        suspected = any(getattr(detector, "suspicious", False) for detector in self.detectors.values())
        return suspected or self.relapse.suspicious

    def limits(self) -> Limits:
        """The strictest of all limits; the same object as long as nothing changes."""
        if self._limits is None:
            parts = [detector.limits() for detector in self.detectors.values()]
            if self._combined is None or any(map(is_not, parts, self._parts)):
                self._parts, self._combined = parts, Limits.combined(parts)
            self._limits = self._combined
        return self._limits

    def update(self, observation: StepObservation, *, on_cadence: bool = True) -> list[Finding]:
        """All findings of one observation, the gravest first.

        Args:
            observation: What was measured.
            on_cadence: Whether its parameter norm, if it has one, is one of the regular ones that growth is read from.
        """
        regular = observation if on_cadence else replace(observation, param_norm=None)
        findings = []
        for name, detector in self.detectors.items():
            findings += detector.update(observation if name == "blow_up" else regular)
        self._limits = None
        return sorted(findings, key=lambda finding: -finding.action) if len(findings) > 1 else findings

    def loss_level(self) -> float | None:
        """Median of the last losses; None before the first one."""
        divergence = self.detectors["divergence"]
        assert isinstance(divergence, DivergenceDetector)
        return divergence.level()

    def accept_level(self) -> None:
        """The present level is the new normal."""
        self._limits = None
        self.relapse.accept()
        for detector in self.detectors.values():
            detector.accept_level()

    def rewind(self, state: dict[str, Any] | None) -> None:
        """Go back to the history as it was when a snapshot was taken.

        The record of non-finite losses stays: whether skipping helps is learned across rollbacks.

        Args:
            state: State at the snapshot, None if this optimizer had not been seen by then.
        """
        self._limits = None
        fresh = build_detectors(self.config)
        self.relapse.accept()
        if state is not None and "relapse" in state:
            self.relapse.load_state_dict(state["relapse"])
        for name in self.detectors:
            if name != "non_finite":
                if state is not None and name in state:
                    fresh[name].load_state_dict(state[name])
                self.detectors[name] = fresh[name]
        divergence = self.detectors["divergence"]
        if isinstance(divergence, DivergenceDetector):
            divergence.begin_parole()

    def state_dict(self) -> dict[str, Any]:
        """Plain state."""
        states = {name: detector.state_dict() for name, detector in self.detectors.items()}
        return states | {"relapse": self.relapse.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        self._limits = None
        if "relapse" in state:
            self.relapse.load_state_dict(state["relapse"])
        for name, detector in self.detectors.items():
            if name in state:  # absent from states of earlier versions
                detector.load_state_dict(state[name])
            else:
                detector.accept_level()
