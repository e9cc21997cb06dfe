"""The bare core, fed with number streams as its documentation asks adapters to do it: the reference for both."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

from nan_callbacks.core import Decision, GuardConfig, Limits, Monitor, StepObservation
from nan_callbacks.core.events import step_events, to_json_line
from tests.conformance.streams import RATE, Step, Stream, name, single


@dataclass
class Played:
    """What came out of a stream."""

    events: list[dict[str, Any]] = field(default_factory=list)
    limits: list[Limits] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    snapshots: list[tuple[str, int, int]] = field(default_factory=list)
    """``("taken" or "restored", number of the batch, slot)``."""

    def lines(self) -> list[str]:
        """The events without their times. Keras holds learning rates in float32."""
        lines = []
        for event in self.events:
            event = {key: value for key, value in event.items() if key != "time"}
            if "learning_rates" in event:
                event["learning_rates"] = [single(rate) for rate in event["learning_rates"]]
            lines.append(to_json_line(event))
        return lines


class BareCore:
    """Feeds the core as its documentation asks adapters to: the reference for both of them."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.monitor = Monitor(GuardConfig(**stream.settings))
        self.played = Played()

    def play(self) -> Played:
        for index, step in enumerate(self.stream.steps):
            self._take_snapshot_if_due(index, step)
            size = math.hypot(*[step.size] * len(step.updates)) if self.monitor.wants_param_norm() else None
            limits = [self.monitor.limits(stream) for stream in range(len(step.updates))]
            seen = [self._observation(index, step, each, limits[each], size) for each in range(len(step.updates))]
            self.played.limits += limits
            decisions = [self._judge(each) for each in seen]
            self.monitor.draws.note(seen)
            for decision in decisions:
                self._act(index, decision)
        return self.played

    def _observation(self, index: int, step: Step, stream: int, limits: Limits, size: float | None) -> StepObservation:
        update, (epoch, batch) = step.updates[stream], self.stream.place(index)
        broken = update.grad_norm is not None and not math.isfinite(update.grad_norm)
        seen = StepObservation(
            step=self.monitor.step + stream,
            epoch=epoch,
            batch_index=batch,
            stream=stream,
            competing=len(step.updates) > 1,
            loss=update.loss,
            grad_norm=update.grad_norm,
            statistics_jump=step.jump,
            non_finite_gradients=int(broken),
            non_finite_names=(name(stream),) if broken else (),
            param_norm=size,
            optimizer_name="SGD",
            learning_rates=(RATE * self.monitor.lr_scale,),
            loss_scale=step.loss_scale,
            scaler_overflow=step.loss_scale is not None and broken,
            applied=limits.admits(update.loss, update.grad_norm, step.jump),
        )
        if seen.applied or seen.left_to_scaler:
            return seen
        seen = replace(seen, batch_finite=step.batch_finite)
        if seen.grad_norm_is_finite and seen.loss_is_finite:
            return seen
        bad = self._broken(step)
        return replace(seen, non_finite_parameters=len(bad), non_finite_names=bad or seen.non_finite_names)

    def _broken(self, step: Step) -> tuple[str, ...]:
        return () if math.isfinite(step.size) else tuple(name(each) for each in range(len(step.updates)))

    def _judge(self, seen: StepObservation) -> Decision:
        decision = self.monitor.observe(seen)
        if self.monitor.question is not None:  # there is no laboratory
            decision = self.monitor.settle(self.monitor.question, lambda: None) or decision
        self.played.decisions.append(decision)
        self.played.events += step_events(seen, decision)
        return decision

    def _act(self, index: int, decision: Decision) -> None:
        if decision.restore_slot is not None:
            self.played.snapshots.append(("restored", index, decision.restore_slot))

    def _take_snapshot_if_due(self, index: int, step: Step) -> None:
        if not self.monitor.snapshot_is_due():
            return
        bad = self._broken(step)
        if not bad:
            self.played.snapshots.append(("taken", index, self.monitor.snapshot_slot()))
            return
        epoch, batch = self.stream.place(max(index - 1, 0))
        seen = StepObservation(
            step=max(self.monitor.step - 1, 0),
            epoch=epoch,
            batch_index=batch,
            non_finite_parameters=len(bad),
            non_finite_names=bad,
            applied=False,
            optimizer_name=", ".join(["SGD"] * len(step.updates)),
        )
        self._act(index, self._judge(seen))
