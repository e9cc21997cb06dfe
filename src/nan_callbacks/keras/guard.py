"""NaNGuard for Keras: the callback itself, a thin shell around the session."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import keras

from nan_callbacks.core import Monitor
from nan_callbacks.core.events import Event
from nan_callbacks.core.health import HealthMonitor
from nan_callbacks.core.journal import Journal
from nan_callbacks.diagnosis.desk import Desk
from nan_callbacks.diagnosis.diagnosis import Diagnosis
from nan_callbacks.diagnosis.incident import Incident
from nan_callbacks.errors import NaNCallbacksError
from nan_callbacks.fail_open import fails_open
from nan_callbacks.guard_shell import GuardShell
from nan_callbacks.keras import saved_snapshots
from nan_callbacks.keras.backend import backend_of
from nan_callbacks.keras.call_stack import arrays_of_fit
from nan_callbacks.keras.checkpoints import CheckpointHooks
from nan_callbacks.keras.checkup import look_over_fit
from nan_callbacks.keras.examiner import NO_STEP, Examination, examine_exception
from nan_callbacks.keras.readings import Reading
from nan_callbacks.keras.session import GuardSession
from nan_callbacks.keras.surroundings import Surroundings
from nan_callbacks.keras.train_function import OwnedTrainFunction
from nan_callbacks.keras.voice import EpochTotals, published, say_loss_is_hidden, say_unguarded, speaker


class NaNGuard(GuardShell, keras.callbacks.Callback):
    """Watches every optimizer step, keeps bad ones from the weights, and puts the run right.

    A step whose loss or gradients are non-finite, or far outside their own history, is dropped as if its batch had
    never been drawn. When dropping is not enough, the run goes back to its last known-good state with a smaller
    learning rate. When that does not help either, the training stops and says why.

    Args:
        on_non_finite: Reaction to a non-finite loss or gradient.
        on_spike: Reaction to a finite loss, gradient norm or batch statistic far outside its own history.
        on_divergence: Reaction to weights that were thrown about without progress of the loss.
        window_size: Accepted steps that make up the history of a quantity.
        warmup_steps: Accepted steps before the robust limits apply.
        z_threshold: Robust standard deviations (log space for positive series) that make a spike.
        min_ratio: Multiples of the median that a spike has at least.
        max_consecutive_skips: Dropped steps in a row after which the state is suspected: rollback.
        max_skip_fraction: Share of the last 100 steps that may be dropped before the guard gives up.
        max_rollbacks: Rollbacks without progress in between before the guard gives up.
        lr_factor: Factor on the learning rate at a rollback; its powers 2, 4, 4 … at further ones without progress.
            Trials from the restored state may find that more is needed; ``diagnose="never"`` makes none.
        lr_recovery_steps: Clean steps over which the learning rate returns to its schedule; None: it stays reduced.
        snapshot_every_n_steps: Steps between in-memory snapshots.
        probation_steps: Clean steps that a snapshot must survive to count as known good.
        snapshot_memory: Where snapshots are kept: ``device`` (beside the weights), ``host``, or ``auto``: on the device
            while they take a twentieth of its memory at most.
        on_give_up: ``stop`` ends the training in an orderly way, ``raise`` raises ``TrainingStoppedError``.
        events_path: File to which every event is appended as one JSON line; None for no file.
        log_every_n_steps: Steps between values in the logs of batches; all callbacks then see them and those of epochs.
            None: logs are as without the guard; only the ``History`` of a fit with incidents has columns for them.
        checkpoint_snapshots: Whether snapshots travel in the folder of ``BackupAndRestore``, so that a resumed run can
            roll back beyond the resume: ``auto`` up to 256 MiB, ``always``, ``never``.
        diagnose: Which incidents are examined: ``on_incident`` those of a new kind, ``first`` only the first of a fit,
            ``never`` none. The first incident of a code is examined in full: up to 60 steps on copies of the state.
            Then the second, fourth, eighth … are replayed (a few steps each), and examined if they began elsewhere.
        diagnose_budget_s: Seconds that all examinations of a fit may take together.
        on_incident: Called with every :class:`nan_callbacks.diagnosis.incident.Incident`.
        save_batch: Folder into which the batch and the weights of every examined incident are written, for
            ``nan-callbacks replay``; None saves nothing.
        checkup: Whether data, labels, loss, initialisation, learning rate and versions are looked over before the first
            step, on copies: a handful of steps' time.
        health_every_n_steps: Steps between looks at the layers (saturated or dead units, gradients by depth, update
            ratios, headroom of float16); None: none. They take a thousandth of the time at most and decide nothing.
        ignore: Codes of checkup and health that are not to be told, such as ``["DATA502"]``.
        verbose: Whether incidents and actions are printed.
        strict: Whether an error inside the guard is raised. Otherwise it is reported once and the guard steps aside.

    Raises:
        ConfigurationError: If an argument is out of range: what was expected, what was received, what to do.

    Example:
        >>> model.fit(x, y, callbacks=[NaNGuard()])  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        on_non_finite: Literal["observe", "skip_step", "stop"] = "skip_step",
        on_spike: Literal["observe", "skip_step", "stop"] = "skip_step",
        on_divergence: Literal["observe", "rollback", "stop"] = "rollback",
        window_size: int = 128,
        warmup_steps: int = 20,
        z_threshold: float = 8.0,
        min_ratio: float = 10.0,
        max_consecutive_skips: int = 3,
        max_skip_fraction: float = 0.75,
        max_rollbacks: int = 4,
        lr_factor: float = 0.5,
        lr_recovery_steps: int | None = None,
        snapshot_every_n_steps: int = 50,
        probation_steps: int = 50,
        snapshot_memory: Literal["auto", "device", "host"] = "auto",
        on_give_up: Literal["stop", "raise"] = "stop",
        events_path: str | os.PathLike[str] | None = None,
        log_every_n_steps: int | None = None,
        checkpoint_snapshots: Literal["auto", "always", "never"] = "auto",
        diagnose: Literal["on_incident", "first", "never"] = "on_incident",
        diagnose_budget_s: float = 60.0,
        on_incident: Callable[[Incident], None] | None = None,
        save_batch: str | os.PathLike[str] | None = None,
        checkup: bool = True,
        health_every_n_steps: int | None = 50,
        ignore: Sequence[str] = (),
        verbose: bool = True,
        strict: bool = False,
    ) -> None:
        super().__init__()
        self._take(locals())
        self._last_step: tuple[Event, Examination] | None = None
        self._session: GuardSession | None = None
        self._function: OwnedTrainFunction | None = None
        self._checkpoints: CheckpointHooks | None = None
        self._surroundings: Surroundings | None = None
        self._prepared = False
        """Whether the backend has been compiled; that survives from fit to fit."""
        self._batches_ended = 0
        self._totals = EpochTotals()
        self._rows: Any = None

    # -- what the user reads -------------------------------------------------------------------------------------

    def diagnose(self) -> Diagnosis:
        """Examine the present batch, or the last one that was kept, whether or not anything is wrong with it.

        Works in other callbacks' hooks and after the fit; changes nothing; what was found is also written as an event.

        Raises:
            NaNCallbacksError: If no batch has been trained on under guard.
        """
        self.catch_up()
        step = self._last_step if self._session is None else self._session.last_step()
        if step is None:
            raise NaNCallbacksError(NO_STEP)
        return self._desk.on_demand(*step)

    # -- hooks ---------------------------------------------------------------------------------------------------

    def set_model(self, model: Any) -> None:
        """Called before any other callback's ``on_train_begin``, where ``BackupAndRestore`` loads."""
        self._aside = False
        self._release()
        super().set_model(model)
        self._attach()

    @fails_open
    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin to guard; every fit begins anew."""
        self._attach()
        self._monitor = Monitor(self.config, trials=self.diagnoses.diagnose != "never")
        self._health = HealthMonitor(self.health_every_n_steps, self.ignore)
        self._journal = Journal(self.events_path, speaker(self.params, verbose=self.verbose))
        self._desk = Desk(self.diagnoses, self._journal, strict=self.strict)
        self._last_step, self._totals = None, EpochTotals()
        self._install()
        if self._surroundings is not None:
            self._surroundings.watch_data()
        self._rows = arrays_of_fit(self._model) if self.checkup else None

    @fails_open
    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Somebody may have compiled the model anew."""
        if self._session is None:
            return
        self.catch_up()
        if self._model.train_function is not self._function and self._function is not None:
            self._model.make_train_function()
            self._install()
        self._session.epoch_start(epoch)

    @fails_open
    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Never validate non-finite weights."""
        if self._session is None:
            self._release()
        elif not self._sees_callbacks:
            self._before_save()

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Not our business outside of ``fit``."""
        if self._session is None:
            self._release()

    @fails_open
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Show the totals to the callbacks after us, the ``History`` among them, if somebody asked for them."""
        if not self._sees_callbacks:
            self._before_save()
        values = self._values()
        self._totals.note(values)
        if logs is not None and self.log_every_n_steps is not None:
            logs.update(values)

    @fails_open
    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Give everything back."""
        self._before_save()
        if self.log_every_n_steps is None and self.summary["incidents"]:
            self._totals.add_to(self._model.history.history)
        self._end()

    def step_aside(self) -> None:
        """Undo every change made to the run's objects and do nothing from now on."""
        self._aside = True
        self._release()

    # -- the train function's driver -----------------------------------------------------------------------------

    @fails_open
    def before_step(self, batch: Any) -> Any:
        """Limits for the coming step; None if the guard failed."""
        session = self._session
        if session is None:
            return None
        if not self._prepared:
            session.backend.prepare(batch)
            self._prepared = True
        if self._monitor.step == 0:
            self._load_resumed(session)
        limits = session.before_step(batch)
        if self._monitor.step == 0:
            self._look_over(self._model, partial(look_over_fit, session, self._rows, self.ignore, strict=self.strict))
        last = self._monitor.step + max(len(session.backend.optimizers), 1) - 1  # of the updates of one batch
        session.layers.before_step(due=self._health.is_due(last))
        return limits

    def catch_up(self) -> None:
        """Judge the newest step if that was put off."""
        if self._function is not None:
            self._function.settle()

    def after_step(self, readings: list[Reading]) -> bool:
        """Judge a step; whether the logs must be computed anew."""
        return bool(self._judge(readings)) or any(not reading.admitted for reading in readings)

    @fails_open
    def _judge(self, readings: list[Reading]) -> bool:
        session = self._session
        if session is None:
            return False
        if not readings:
            say_unguarded(self._model)
            self.step_aside()
            return False
        if self._monitor.step == 0 and all(reading.loss is None for reading in readings):
            say_loss_is_hidden()
        session.after_step(readings)
        if self._health.is_due(session.last.step) and session.last.applied:
            self._sample(partial(session.layers.look, session.batches[0], readings), session.last)
        return session.restored

    @fails_open
    def could_not_guard(self, error: Exception) -> None:
        """The guarded step cannot be traced, the model's own can: train unguarded, say so."""
        raise RuntimeError("this model's training step cannot be guarded") from error

    @fails_open
    def broke_off(self, error: BaseException | None = None) -> None:
        """An error is about to leave ``fit``: leave the model as it was found, and its weights fit to be saved.

        Args:
            error: The error, if it came out of the training step.
        """
        try:
            # What broke the run may break this as well, and is what the user must see.
            with suppress(NaNCallbacksError if self.strict else Exception):
                self._before_save()
                if self._session is not None:
                    examine_exception(self._session, error)
        finally:
            self._end()

    # -- what other callbacks see --------------------------------------------------------------------------------

    def batch_values(self) -> dict[str, float]:
        """Totals and the gradient norm, every :attr:`log_every_n_steps` batches."""
        if self.log_every_n_steps is None:
            return {}
        return self._batch_values(self.log_every_n_steps) or {}

    def epoch_values(self) -> dict[str, float]:
        """The same at the end of an epoch, for callbacks before us too; nothing that nobody asked for."""
        return self._epoch_values() or {}

    @fails_open
    def before_validation(self) -> dict[str, float]:
        """Never validate non-finite weights."""
        self._before_save()
        return {}

    @property
    def _sees_callbacks(self) -> bool:
        return self._surroundings is not None and self._surroundings.sees_callbacks

    @fails_open
    def _batch_values(self, every: int) -> dict[str, float]:
        self._batches_ended += 1
        if self._session is None or self._batches_ended % every:
            return {}
        self.catch_up()
        return self._values()

    @fails_open
    def _epoch_values(self) -> dict[str, float]:
        self._before_save()
        return {} if self.log_every_n_steps is None else self._values()

    def _values(self) -> dict[str, float]:
        return {} if self._session is None else published(self.summary, self._session.grad_norm)

    # -- inside --------------------------------------------------------------------------------------------------

    def _attach(self) -> None:
        """Look over the model's files and the surroundings of its fit."""
        if self._checkpoints is not None:
            return
        model = self._model
        self._checkpoints = CheckpointHooks(model, before_save=self._before_save, state=self._state)
        self._checkpoints.install()
        self._surroundings = Surroundings(model, self)
        self._surroundings.install()
        self._batches_ended = 0

    def _install(self) -> None:
        model = self._model
        backend = backend_of(model)
        self._prepared = bool(backend.made_for)
        if self._session is None:
            self._session = GuardSession(model, backend, self._monitor, self._journal, self._desk)
        self._session.backend = backend
        backend.memory = self.config.snapshot_memory
        unobserved = self._surroundings is not None and self._surroundings.unobserved
        self._function = OwnedTrainFunction(model, backend, self, unobserved=unobserved)
        self._function.install()

    def _before_save(self) -> None:
        self.catch_up()
        if self._session is not None and self._prepared and not self._aside:
            self._session.check_parameters()

    @fails_open
    def _state(self, folder: Path) -> dict[str, Any] | None:
        """What a resumed run needs to decide as the unbroken one; the snapshots are written beside it."""
        session = self._session
        if session is None:
            return None
        kept = saved_snapshots.save(folder, self._model, session.backend, self.checkpoint_snapshots)
        parts = {"monitor": self._monitor, **self._parts(session)}
        return {**{name: part.state_dict() for name, part in parts.items()}, "snapshots": kept}

    def _load_resumed(self, session: GuardSession) -> None:
        loaded = None if self._checkpoints is None else self._checkpoints.take_loaded()
        if loaded is None:
            return
        folder, state = loaded
        kept = state["snapshots"] and saved_snapshots.load(folder, session.backend, session.epoch)
        self._monitor.load_state_dict(state["monitor"], snapshots_kept=kept)
        for name, part in self._parts(session).items():
            if name in state:  # absent from backups of earlier versions
                part.load_state_dict(state[name])

    def _parts(self, session: GuardSession) -> dict[str, Any]:
        return {"journal": self._journal, "desk": self._desk, "health": self._health, "history": session.history}

    def _end(self) -> None:
        if self._session is not None:
            self._journal.close(steps=self._monitor.step, lr_scale=self._monitor.lr_scale)
        self._release()

    def _release(self) -> None:
        """Give every object of the run back as it was found, and let go of them."""
        if self._function is not None:
            self._function.uninstall()
            self._function = None
        if self._surroundings is not None:
            self._surroundings.uninstall()
            self._surroundings = None
        if self._checkpoints is not None:
            self._checkpoints.uninstall()
            self._checkpoints = None
        if self._session is not None:
            self._last_step = self._session.last_step(with_snapshots=False)
            self._session.backend.slots.clear()
            self._session = None
        self._rows = None  # arrays of the user's
        self._journal.say = None
