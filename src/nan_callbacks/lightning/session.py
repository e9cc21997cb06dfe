"""One fit under guard: turns hooks into observations, and decisions into deeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from nan_callbacks.core import Action, Decision, Monitor, StepObservation
from nan_callbacks.core.events import Event, step_events
from nan_callbacks.core.finding import Finding
from nan_callbacks.core.journal import Journal
from nan_callbacks.diagnosis.answers import answered
from nan_callbacks.diagnosis.desk import Desk
from nan_callbacks.diagnosis.history import HistoryRecorder
from nan_callbacks.errors import TrainingStoppedError
from nan_callbacks.lightning.averaging import withhold_update
from nan_callbacks.lightning.examiner import Examination, about
from nan_callbacks.lightning.learning_rate import LearningRateControl
from nan_callbacks.lightning.named_gradients import NamedGradients
from nan_callbacks.lightning.recent import MOST_BATCHES, RecentBatches, as_received
from nan_callbacks.lightning.snapshots import Snapshots
from nan_callbacks.lightning.window import Window
from nan_callbacks.torch.gate import drop_gradients, drop_gradients_inside_step, is_of_torch, learning_rates
from nan_callbacks.torch.lab_bench import Fed
from nan_callbacks.torch.lab_bench import Window as Batches
from nan_callbacks.torch.layer_watch import LayerWatch
from nan_callbacks.torch.measure import Measurement, measure, non_finite_tensors, total_norm


@dataclass
class Attempt:
    """One optimizer step that was measured in the present batch and is not yet judged."""

    seen: StepObservation
    optimizer: Optimizer


class GuardSession:
    """Everything the guard holds during one fit.

    Args:
        trainer: The trainer.
        module: Its module.
        monitor: The core that decides.
        journal: The record.
        desk: Takes incidents in; None: nobody does.
    """

    def __init__(self, trainer: Any, module: Any, monitor: Monitor, journal: Journal, desk: Desk | None = None) -> None:
        self.trainer = trainer
        self.module = module
        self.monitor = monitor
        self.journal = journal
        self.last: StepObservation | None = None
        """The newest judged observation, for logging."""
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        self.learning_rate = LearningRateControl(list(trainer.optimizers), schedulers)
        self.window = Window(trainer, module)
        memory = monitor.config.snapshot_memory
        self.snapshots = Snapshots(trainer, module, self.learning_rate, self.window.metrics, memory)
        self.desk = desk
        self.history = HistoryRecorder()
        most = MOST_BATCHES if desk is not None and desk.settings.diagnose != "never" else 1
        self.recent = RecentBatches(on_device=module.device.type != "cpu", most=most)
        self._found: list[tuple[StepObservation, tuple[Finding, ...], Event]] = []
        self._global_step: int | None = None
        self._gradients = NamedGradients(module)
        self._attempts: list[Attempt] = []
        self._optimizers: list[Optimizer] = list(trainer.optimizers)
        self.layers = LayerWatch(module, self._optimizers)
        self._step_wise, self._single = any(isinstance(o, LBFGS) for o in self._optimizers), trainer.world_size == 1

    @property
    def scaler(self) -> Any:
        """The gradient scaler of float16 mixed precision, None without one."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return scaler if scaler is not None and scaler.is_enabled() else None

    # -- hooks ---------------------------------------------------------------------------------------------------

    def epoch_start(self) -> None:
        """An epoch is about to begin."""
        self.learning_rate.resume()
        if not self.window.is_open:
            self.window.refresh()
            self.window.forget_rng()

    def batch_start(self, batch: Any) -> None:
        """A batch is about to be trained on."""
        self.learning_rate.resume()
        if not self.window.is_open:
            self.window.open()
            self._global_step = getattr(self.trainer, "global_step", None)
            self._take_snapshot_if_due()
        fed = Fed(as_received(batch), self.trainer.fit_loop.epoch_loop.batch_idx)
        self.window.take(fed, alone=self.module.device.type != "cpu", with_streams=self.monitor.draws.count_as_used)

    def before_backward(self, loss: Tensor) -> None:
        """A loss is about to be differentiated."""
        self.window.losses.append(loss.detach())

    def gate(self, optimizer: Optimizer) -> bool:
        """Measure the step that an optimizer is about to take and decide whether it may reach the weights.

        Returns:
            False if the update was dropped; clipping and the like must not run then.
        """
        self.learning_rate.enforce()
        repeated = self._step_wise and any(attempt.optimizer is optimizer for attempt in self._attempts)
        seen = self._observe(optimizer)
        limits = self.monitor.limits(seen.stream)
        if repeated:  # a line search evaluates at trial points, whose losses say nothing about the run
            limits = replace(limits, max_loss=float("inf"), max_grad_norm=float("inf"))
        admitted = limits.admits(seen.loss, seen.grad_norm, seen.statistics_jump)
        if not admitted and not seen.left_to_scaler:
            seen = self._with_evidence(seen)
            self._drop(optimizer)
        elif self.learning_rate.is_suspending:  # an earlier step within this batch was dropped, this one is not
            self.learning_rate.resume(self._schedulers_of(optimizer))
        self._note(seen if admitted else replace(seen, applied=False), optimizer, repeated=repeated)
        return admitted or seen.left_to_scaler

    def batch_end(self) -> None:
        """A batch has been trained on: judge the steps it attempted and act."""
        if not self._attempts:
            return
        attempts, self._attempts = self._attempts, []
        self._clean_up(attempts)
        self.monitor.draws.note([attempt.seen for attempt in attempts])
        # The clock runs over all optimizers, in the order of their steps.
        decisions = [self._judge(attempt.seen) for attempt in attempts]
        self._report_found()
        if not any(decision.findings for decision in decisions):
            self.recent.add(self.window.batches)
        self.window.close()
        for decision in decisions:
            self.act(decision)

    def check_parameters(self) -> bool:
        """Look whether an update has left non-finite parameters, and roll back if so.

        Called where they would hurt most: before a snapshot, before validation, before a checkpoint, at the end.

        Returns:
            True if all parameters were finite.
        """
        names, parameters = self._parameters()
        bad = non_finite_tensors(names, parameters)
        if not bad or self.monitor.policy.gave_up:
            return not bad
        last, step = self.last, max(self.monitor.step - 1, 0)
        if last is not None and last.step == step and last.non_finite_parameters:
            return False  # reported already, and left as they are
        seen = StepObservation(
            step=step,
            epoch=last.epoch if last else self.trainer.current_epoch,
            batch_index=last.batch_index if last else 0,
            non_finite_parameters=len(bad),
            non_finite_frozen=self._frozen(bad),
            non_finite_names=bad[:3],
            applied=False,
            optimizer_name=", ".join(type(optimizer).__name__ for optimizer in self.trainer.optimizers),
        )
        decision = self._judge(seen, is_step=False)
        self._report_found()
        self.act(decision)
        return False

    def act(self, decision: Decision) -> None:
        """Do what was decided.

        Raises:
            TrainingStoppedError: If the guard gave up and was told to raise.
        """
        if decision.restore_slot is not None:
            self.snapshots.restore(decision.restore_slot, streams=decision.restore_streams)
            self.window.refresh()
            self.window.remember_rng()
            if decision.restore_step is not None:
                self.history.rolled_back(decision.restore_step)
        if decision.lr_scale != self.learning_rate.scale:
            self.learning_rate.set_scale(decision.lr_scale)
        if decision.action is Action.STOP:
            self.trainer.should_stop = True
            if self.monitor.config.on_give_up == "raise":
                raise TrainingStoppedError(f"NaNGuard stopped the training: {decision.reason}.")

    # -- measuring -----------------------------------------------------------------------------------------------

    def _observe(self, optimizer: Optimizer) -> StepObservation:
        names, gradients = self._gradients.of(optimizer)
        scaler = self.scaler
        scale = scaler.get_scale() if scaler is not None else None
        fused = scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False)
        self.layers.before_update(optimizer)
        measured = measure(
            gradients,
            loss=self.window.take_loss(scale),
            statistics_jump=self.window.variances.jump(),
            inverse_scale=1.0 / scale if fused and scale else 1.0,
        )
        measured = self._agree(measured)
        return StepObservation(
            step=self.monitor.step + len(self._attempts),
            epoch=self.trainer.current_epoch,
            batch_index=self.trainer.fit_loop.epoch_loop.batch_idx,
            stream=next((i for i, each in enumerate(self._optimizers) if each is optimizer), 0),
            competing=len(self._optimizers) > 1,
            loss=measured.loss,
            grad_norm=measured.grad_norm,
            statistics_jump=measured.statistics_jump,
            non_finite_gradients=len(measured.non_finite),
            non_finite_names=tuple(names[place] for place in measured.non_finite[:3]),
            param_norm=total_norm(self._parameters()[1]) if self.monitor.wants_param_norm() else None,
            optimizer_name=type(optimizer).__name__,
            learning_rates=learning_rates(optimizer),
            loss_scale=scale,
            scaler_overflow=scaler is not None and bool(measured.non_finite),
        )

    def _agree(self, measured: Measurement) -> Measurement:
        """Give every rank the same numbers, so that every rank decides the same."""
        if self._single:
            return measured
        numbers = [measured.loss, measured.grad_norm, measured.statistics_jump]
        packed = torch.tensor([0.0 if n is None else n for n in numbers], device=self.trainer.strategy.root_device)
        packed = self.trainer.strategy.reduce(packed, reduce_op="mean")
        means = [None if n is None else mean for n, mean in zip(numbers, packed.tolist(), strict=True)]
        return replace(measured, loss=means[0], grad_norm=means[1], statistics_jump=means[2])

    def _with_evidence(self, seen: StepObservation) -> StepObservation:
        """Look closer at a step that is being dropped: the batch and the parameters."""
        batch_finite = self.window.batch_is_finite()
        if not self._single:
            batch_finite = self.trainer.strategy.reduce_boolean_decision(batch_finite, all=True)
        if seen.grad_norm_is_finite and seen.loss_is_finite:
            return replace(seen, batch_finite=batch_finite)
        names, parameters = self._parameters()
        by_name = dict(zip(names, parameters, strict=True))
        found = non_finite_tensors(names, parameters)
        bad = tuple(name for name in found if not self.window.state.mends(by_name[name]))
        return replace(
            seen,
            batch_finite=batch_finite,
            non_finite_parameters=len(bad),
            non_finite_frozen=self._frozen(bad),
            non_finite_names=bad[:3] or seen.non_finite_names,
        )

    # -- dropping ------------------------------------------------------------------------------------------------

    def _drop(self, optimizer: Optimizer) -> None:
        scaler = self.scaler
        if scaler is not None:
            self.window.keep_scaler(scaler)
        if scaler is None or not getattr(optimizer, "_step_supports_amp_scaling", False):
            drop_gradients(optimizer)
        elif is_of_torch(optimizer):
            drop_gradients_inside_step(optimizer)
        self.learning_rate.suspend(self._schedulers_of(optimizer))
        if self.module.automatic_optimization:
            withhold_update(self.trainer)
            self.window.undo_forward()  # early: other callbacks' batch-end hooks must not see the bad buffers

    def _schedulers_of(self, optimizer: Optimizer) -> set[int]:
        """``id`` of the schedulers that advance with the steps of an optimizer, and not with epochs.

        By hand users step either kind within ``training_step``, whatever the configuration says: the schedules of
        epochs at the last batch.
        """
        by_hand = not self.module.automatic_optimization and not self.trainer.is_last_batch
        return {
            id(config.scheduler)
            for config in self.trainer.lr_scheduler_configs
            if (config.interval == "step" or by_hand) and getattr(config.scheduler, "optimizer", None) is optimizer
        }

    def _note(self, seen: StepObservation, optimizer: Optimizer, *, repeated: bool) -> None:
        if not repeated:
            self._attempts.append(Attempt(seen, optimizer))
        elif not seen.applied:
            index = next(i for i, attempt in enumerate(self._attempts) if attempt.optimizer is optimizer)
            self._attempts[index] = Attempt(replace(seen, step=self._attempts[index].seen.step), optimizer)

    def _clean_up(self, attempts: list[Attempt]) -> None:
        dropped = [attempt for attempt in attempts if not attempt.seen.applied]
        if not dropped:
            return
        if all(attempt.seen.left_to_scaler for attempt in dropped):
            # The scaler skipped an overflow by itself, as it does without us; only what it leaves broken is mended.
            self.window.undo_forward(only_non_finite=True)
        elif len(dropped) < len(attempts):
            self.window.undo_forward(only_non_finite=True)
            self.window.undo_scaler(self.scaler)
        else:
            self.window.undo_forward()
            if self._step_wise:
                self.snapshots.restore_step_start()
            self.window.undo_rest(self.scaler, self.monitor.draws.after([attempt.seen for attempt in dropped]))

    # -- the rest ------------------------------------------------------------------------------------------------

    def _judge(self, seen: StepObservation, *, is_step: bool = True) -> Decision:
        observed = self.monitor.observe(seen)
        self.last = seen
        decision = answered(self.monitor, self.desk, observed, self._look)
        if is_step and not seen.applied and decision.findings:
            self.journal.count_skipped_step()
        if decision.worth_recording:
            events = step_events(seen, decision, rank=self.trainer.global_rank)
            self.journal.record(events)
            if decision.findings:
                self._found.append((seen, decision.findings, events[0]))
        if is_step:
            self.history.observe(seen, incident=bool(decision.findings))
        return decision

    # -- incidents -----------------------------------------------------------------------------------------------

    def examination(
        self, seen: StepObservation, findings: tuple[Finding, ...] = (), *, with_snapshots: bool = True
    ) -> Examination:
        """One incident, or the last step, ready to be looked into.

        Args:
            seen: The step.
            findings: What was found about it.
            with_snapshots: Whether trials may begin with the last known-good state.
        """
        failed, recent = self._batches()
        return Examination(
            self.trainer,
            self.module,
            seen,
            findings,
            failed,
            recent,
            self.history.history(),
            trusted=self._trusted if with_snapshots else lambda: None,
            random_streams=self.window.rng if self.window.batches else None,
            global_step=self._global_step if self.window.batches else None,
        )

    def last_step(self) -> tuple[Event, Examination] | None:
        """The last judged step for a look at it after the fit, without the snapshots; None if there was no step."""
        return None if self.last is None else (about(self.last), self.examination(self.last, with_snapshots=False))

    def _trusted(self) -> dict[str, Any] | None:
        good = self.monitor.last_good()
        return None if good is None else self.snapshots.saved(good.slot)

    def _batches(self) -> tuple[Batches, tuple[Batches, ...]]:
        """The batches of the present window, else of the last accepted one; and those before."""
        recent = self.recent.windows
        if self.window.batches:
            return tuple(self.window.batches), recent
        return (recent[-1], recent[:-1]) if recent else ((), ())

    def _report_found(self) -> None:
        """Take the incidents to the desk: after the batch was taken back, before anything is done about them."""
        found, self._found = self._found, []
        if self.desk is not None:
            for seen, findings, event in found:
                self.desk.take_in(event, partial(self.examination, seen, findings))
            if self.last is not None:
                self.desk.notice(self.last, self._look, incident=bool(found))

    def _look(self, findings: tuple[Finding, ...]) -> Examination | None:
        return self.examination(self.last, findings) if self._single and self.last is not None else None

    def _take_snapshot_if_due(self) -> None:
        if self._step_wise:
            self.snapshots.capture_step_start()
        if self.monitor.snapshot_is_due() and self.check_parameters():
            self.snapshots.capture(self.monitor.snapshot_slot(), self.window.rng)
            self.window.state.look()

    def _parameters(self) -> tuple[list[str], list[Tensor]]:
        named = [(n, p) for n, p in self.module.named_parameters() if p.is_floating_point() or p.is_complex()]
        return [name for name, _ in named], [parameter for _, parameter in named]

    def _frozen(self, names: tuple[str, ...]) -> int:
        return sum(not self.module.get_parameter(name).requires_grad for name in names)
