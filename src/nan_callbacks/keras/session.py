"""One fit under guard: turns readings into observations, and decisions into deeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from operator import is_not
from typing import Any

import numpy as np
from keras import ops, tree

from nan_callbacks.core import Action, Decision, Limits, Monitor, StepObservation
from nan_callbacks.core.draws import Streams, is_dropped
from nan_callbacks.core.events import Event, step_events
from nan_callbacks.core.finding import Finding
from nan_callbacks.core.journal import Journal
from nan_callbacks.core.usual_start import least_usual_norm
from nan_callbacks.diagnosis.answers import answered
from nan_callbacks.diagnosis.desk import Desk
from nan_callbacks.diagnosis.history import HistoryRecorder
from nan_callbacks.errors import TrainingStoppedError
from nan_callbacks.keras.backend import Backend
from nan_callbacks.keras.examiner import Examination, about
from nan_callbacks.keras.health import LayerWatch
from nan_callbacks.keras.lab_start import values_in_slot
from nan_callbacks.keras.model_parts import obstacle_of
from nan_callbacks.keras.readings import Reading, pack_limits
from nan_callbacks.keras.recent import RecentBatches, as_fed, own_containers


class GuardSession:
    """Everything the guard holds during one fit.

    Args:
        model: The model.
        backend: The guarded step of the active Keras backend.
        monitor: The core that decides.
        journal: The record.
        desk: Takes incidents in; None: nobody does.
    """

    def __init__(
        self, model: Any, backend: Backend, monitor: Monitor, journal: Journal, desk: Desk | None = None
    ) -> None:
        self.model = model
        self.backend = backend
        self.monitor = monitor
        self.journal = journal
        self.epoch = 0
        self.batch_index = 0
        self.batches: list[Any] = []
        """The newest batch as the step received it, for a look at its values."""
        self.grad_norm: float | None = None
        """Gradient norm of the newest step that has one, for logging."""
        self.restored = False
        """Whether the last judgement put an earlier state back."""
        self.desk = desk
        self.history = HistoryRecorder()
        self.recent = RecentBatches()
        self._found: list[tuple[StepObservation, tuple[Finding, ...], Event]] = []
        self._param_norm: float | None = None
        self._least_norm: float | None = None
        self._scale = monitor.lr_scale
        """What the learning rate of the present step is multiplied by; the monitor may have cut it since."""
        self._last: StepObservation | None = None
        self._streams: Any = None
        """Where the random streams stood before the present step; only if it shall not put them back itself."""
        self._packed = pack_limits([], 1.0)
        self._packed_from: list[float | Limits] = []
        self.layers = LayerWatch(model, lambda: getattr(self.backend, "live", None))

    def epoch_start(self, epoch: int) -> None:
        """An epoch is about to begin."""
        self.epoch = epoch
        self.batch_index = 0

    def before_step(self, batch: Any) -> np.ndarray:
        """Get ready for one batch.

        Returns:
            What the step must stay under, one row per optimizer.
        """
        self.batches = [own_containers(as_fed(batch))]
        self._scale = self.monitor.lr_scale
        if self.monitor.snapshot_is_due():
            self._take_snapshot()
        self._param_norm = None
        if self.monitor.wants_param_norm():
            self._param_norm = math.hypot(*self.backend.parameter_norms().values())
            if self._least_norm is None:
                self._least_norm = least_usual_norm(weight.shape for weight in self.model.trainable_weights)
        self._streams = self.backend.streams() if self.monitor.draws.count_as_used else None
        return self._limits()

    def _limits(self) -> np.ndarray:
        """The very same array as long as nothing changes, so that it is sent to a device only once."""
        limits = [self.monitor.limits(stream) for stream in range(max(len(self.backend.optimizers), 1))]
        used = self.monitor.draws.count_as_used
        parts: list[float | Limits] = [self.monitor.lr_scale, used, *limits]
        if len(parts) != len(self._packed_from) or any(map(is_not, parts, self._packed_from)):
            packed = pack_limits(limits, self.monitor.lr_scale, draws_count_as_used=used)
            self._packed_from, self._packed = parts, packed
        return self._packed

    def after_step(self, readings: list[Reading]) -> None:
        """Judge what one batch attempted, and act.

        Raises:
            TrainingStoppedError: If the guard gave up and was told to raise.
        """
        self.restored = False
        observations = [self._observation(reading, offset) for offset, reading in enumerate(readings)]
        decisions = [self._judge(seen) for seen in observations]
        with self._streams_as_they_were(observations):
            self._report_found()
        self.monitor.draws.note(observations)
        if not any(decision.findings for decision in decisions):
            self.recent.add(self.batches[0])
        self.batch_index += 1
        for decision in decisions:
            self.act(decision)

    def check_parameters(self) -> bool:
        """Look whether an update has left non-finite parameters, and roll back if so.

        Called where they would hurt most: before a snapshot, before validation, before a checkpoint, at the end.

        Returns:
            True if all parameters were finite.
        """
        bad = self._non_finite_parameters()
        if not bad or self.monitor.policy.gave_up:
            return not bad
        last, step = self._last, max(self.monitor.step - 1, 0)
        if last is not None and last.step == step and last.non_finite_parameters:
            return False  # reported already, and left as they are
        seen = StepObservation(
            step=step,
            epoch=last.epoch if last else self.epoch,
            batch_index=last.batch_index if last else 0,
            non_finite_parameters=len(bad),
            non_finite_names=bad[:3],
            applied=False,
            optimizer_name=", ".join(type(optimizer).__name__ for optimizer in self.backend.optimizers),
        )
        decision = self._judge(seen, is_step=False)
        self._report_found()
        self.act(decision)
        return False

    def act(self, decision: Decision) -> None:
        """Do what was decided; the scale of the learning rate is a part of the limits of every step.

        Raises:
            TrainingStoppedError: If the guard gave up and was told to raise.
        """
        if decision.restore_slot is not None:
            self.backend.restore(decision.restore_slot, self.epoch, streams=decision.restore_streams)
            self.restored = True
            if decision.restore_step is not None:
                self.history.rolled_back(decision.restore_step)
        if decision.action is Action.STOP:
            self.model.stop_training = True
            if self.monitor.config.on_give_up == "raise":
                raise TrainingStoppedError(f"NaNGuard stopped the training: {decision.reason}.")

    def _observation(self, reading: Reading, offset: int) -> StepObservation:
        seen = StepObservation(
            step=self.monitor.step + offset,
            epoch=self.epoch,
            batch_index=self.batch_index,
            stream=reading.stream,
            competing=len(self.backend.optimizers) > 1,
            loss=reading.loss,
            grad_norm=reading.grad_norm,
            statistics_jump=reading.statistics_jump,
            non_finite_gradients=len(reading.non_finite_names),
            non_finite_names=reading.non_finite_names[:3],
            param_norm=self._param_norm,
            least_norm=self._least_norm or 0.0,
            optimizer_name=reading.optimizer_name,
            learning_rates=(reading.learning_rate,),
            loss_scale=reading.loss_scale,
            scaler_overflow=reading.loss_scale is not None and bool(reading.non_finite_names),
            applied=reading.admitted,
        )
        return seen if seen.applied or seen.left_to_scaler else self._with_evidence(seen)

    def _with_evidence(self, seen: StepObservation) -> StepObservation:
        """Look closer at a step that was dropped: the batch and the parameters."""
        seen = replace(seen, batch_finite=all(_is_usable(item) for item in tree.flatten(self.batches)))
        if seen.grad_norm_is_finite and seen.loss_is_finite:
            return seen
        bad = self._non_finite_parameters()
        return replace(seen, non_finite_parameters=len(bad), non_finite_names=bad[:3] or seen.non_finite_names)

    def _judge(self, seen: StepObservation, *, is_step: bool = True) -> Decision:
        observed = self.monitor.observe(seen)
        self._last = seen
        decision = answered(self.monitor, self.desk, observed, self._look)
        if seen.grad_norm is not None:
            self.grad_norm = seen.grad_norm
        if is_step and not seen.applied and decision.findings:
            self.journal.count_skipped_step()
        events = step_events(seen, decision)
        self.journal.record(events)
        if decision.findings:
            self._found.append((seen, decision.findings, events[0]))
        if is_step:
            self.history.observe(seen, incident=bool(decision.findings))
        return decision

    # -- incidents -----------------------------------------------------------------------------------------------

    @property
    def last(self) -> StepObservation:
        """The newest judged observation; one without numbers before the first step."""
        return self._last or StepObservation(step=self.monitor.step, epoch=self.epoch, batch_index=self.batch_index)

    def examination(
        self, seen: StepObservation, findings: tuple[Finding, ...] = (), *, with_snapshots: bool = True
    ) -> Examination:
        """One incident, or the last step, ready to be looked into.

        Args:
            seen: The step.
            findings: What was found about it.
            with_snapshots: Whether trials may begin with the last known-good state.
        """
        failed = self.batches[0] if self.batches else None
        backend = self.backend
        return Examination(
            self.model,
            seen,
            findings,
            failed,
            [batch for batch in self.recent.batches if batch is not failed],
            self.history.history(),
            state=lambda: getattr(backend, "live", None),
            trusted=self._trusted if with_snapshots else lambda: None,
            lr_scale=self._scale,
        )

    def last_step(self, *, with_snapshots: bool = True) -> tuple[Event, Examination] | None:
        """The newest batch, ready to be looked into; None before the first one."""
        if not self.batches:
            return None
        return about(self.last), self.examination(self.last, with_snapshots=with_snapshots)

    def _trusted(self) -> Mapping[int, Any] | None:
        good = self.monitor.last_good()
        known = good is not None and good.slot in self.backend.slots
        return values_in_slot(self.model, self.backend, good.slot) if good is not None and known else None

    def _report_found(self) -> None:
        """Take the incidents to the desk: after the batch was taken back, before anything is done about them."""
        found, self._found = self._found, []
        if self.desk is not None:
            for seen, findings, event in found:
                self.desk.take_in(event, self._opener(seen, findings))
            self.desk.notice(self.last, self._look, incident=bool(found))

    @contextmanager
    def _streams_as_they_were(self, observations: list[StepObservation]) -> Iterator[None]:
        """Inside, the random streams stand where a dropped step found them, so that its trials fail as it did."""
        before, self._streams = self._streams, None
        if before is None or not is_dropped(observations):
            yield
            return
        after = self.backend.streams()
        self.backend.set_streams(before)
        try:
            yield
        finally:
            if self.monitor.draws.after(observations) is Streams.AFTER_STEP:
                self.backend.set_streams(after)

    def _opener(self, seen: StepObservation, findings: tuple[Finding, ...]) -> Callable[[], Examination]:
        return lambda: self.examination(seen, findings)

    def _look(self, findings: tuple[Finding, ...]) -> Examination | None:
        return None if obstacle_of(self.model) else self.examination(self.last, findings)

    # -- the rest ------------------------------------------------------------------------------------------------

    def _take_snapshot(self) -> None:
        if self.check_parameters():
            self.backend.capture(self.monitor.snapshot_slot(), self.epoch)
            for slot in self.backend.slots.keys() - self.monitor.ledger.slots():
                del self.backend.slots[slot]

    def _non_finite_parameters(self) -> tuple[str, ...]:
        norms = self.backend.parameter_norms()
        return tuple(name for name, norm in norms.items() if not math.isfinite(norm))


def _is_usable(item: Any) -> bool:
    """Whether a part of a batch holds no NaN and no +Inf. A mask may hold -Inf."""
    parts = getattr(item, "values", None)
    if isinstance(parts, tuple):  # one part per replica
        return all(_is_usable(part) for part in parts)
    try:
        values = ops.convert_to_numpy(item)
    except (TypeError, ValueError):
        return True
    if not np.issubdtype(values.dtype, np.floating):
        return True
    return not bool(np.any(np.isnan(values) | np.isposinf(values)))
