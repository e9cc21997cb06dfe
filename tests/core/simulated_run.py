"""A training run without a framework: drives a Monitor as an adapter does."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from nan_callbacks.core import Action, Decision, GuardConfig, Limits, Monitor, StepObservation
from nan_callbacks.core.events import Event, step_events

USUAL_LOSS = 1.0
USUAL_GRAD_NORM = 2.0

LADDER = {
    "max_consecutive_skips": 3,
    "max_skip_fraction": 0.5,
    "max_rollbacks": 3,
    "lr_factor": 0.5,
    "snapshot_every_n_steps": 50,
    "probation_steps": 50,
}
"""Written down, so that the step at which something happens does not move with a default."""


class SimulatedRun:
    """The trained "weights" are one number: every update that the gate admits adds to it, a rollback takes it back.

    Args:
        trials: Whether somebody can say whether the first weights do better.
        **settings: Settings of the guard, on top of ``LADDER``.
    """

    def __init__(self, *, trials: bool = False, **settings: Any) -> None:
        self.monitor = Monitor(GuardConfig(**{**LADDER, **settings}), trials=trials)
        self.trials = trials
        self.weights = 0.0
        self.weights_at_fault: bool | None = None
        """What trials say about spikes in a row and about divergence; nothing without a laboratory."""
        self.decisions: list[Decision] = []
        self.events: list[Event] = []
        self.limits: list[Limits] = []
        self.snapshot_steps: list[int] = []
        self._snapshots: dict[int, float] = {}

    def attempt(self, *, update: float = 1.0, **measured: Any) -> Decision:
        """One attempted optimizer step, through snapshot, gate, observation and action.

        Args:
            update: What the step adds to the weights if it is applied.
            **measured: Fields of the observation; loss and gradient norm are the usual ones unless given.
        """
        if self.monitor.snapshot_is_due():
            self.snapshot_steps.append(self.monitor.step)
            self._snapshots[self.monitor.snapshot_slot()] = self.weights
        numbers = {"loss": USUAL_LOSS, "grad_norm": USUAL_GRAD_NORM, **measured}
        seen = StepObservation(step=self.monitor.step, **numbers)
        self.limits.append(self.monitor.limits(seen.stream))
        admitted = self.limits[-1].admits(seen.loss, seen.grad_norm, seen.statistics_jump)
        seen = replace(seen, applied=admitted)
        decision = self.monitor.observe(seen)
        if self.monitor.policy.suspected:
            decision = self.monitor.settle(self.monitor.question, lambda: self.weights_at_fault) or decision
        if admitted:
            self.weights += update
        if decision.restore_slot is not None:
            self.weights = self._snapshots[decision.restore_slot]
        self.decisions.append(decision)
        self.events += step_events(seen, decision)
        return decision

    def healthy(self, steps: int, **measured: Any) -> None:
        """Some steps that must pass without a remark."""
        for _ in range(steps):
            decision = self.attempt(**measured)
            assert decision.action is Action.OBSERVE
            assert decision.findings == ()

    def actions(self, steps: int, **measured: Any) -> list[Action]:
        """The reactions to some equal steps."""
        return [self.attempt(**measured).action for _ in range(steps)]

    def follow(self, losses: Iterable[float], grad_norms: Iterable[float] | None = None) -> None:
        """Go through series of losses and gradient norms, with weights that grow slowly."""
        losses = list(losses)
        for loss, grad_norm in zip(losses, grad_norms or [USUAL_GRAD_NORM] * len(losses), strict=True):
            due = self.monitor.wants_param_norm()
            self.attempt(loss=loss, grad_norm=grad_norm, param_norm=10.0 + 0.001 * self.monitor.step if due else None)

    def save_and_resume(self) -> None:
        """Replace the monitor by a fresh one that has only read the old one's state, as JSON text."""
        text = json.dumps(self.monitor.state_dict(), allow_nan=False)
        self.monitor = Monitor(self.monitor.config, trials=self.trials)
        self.monitor.load_state_dict(json.loads(text))

    @property
    def codes(self) -> list[str]:
        """Code of every finding so far."""
        return [finding.code for decision in self.decisions for finding in decision.findings]

    @property
    def timeless_events(self) -> list[Event]:
        """The events without the time of day."""
        return [{key: value for key, value in event.items() if key != "time"} for event in self.events]
