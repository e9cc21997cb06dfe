"""NaNGuard for Keras: the callback itself, a thin shell around the session."""

from __future__ import annotations

import os
import warnings
from typing import Any, Literal

import keras

from nan_callbacks.core import GuardConfig, Monitor
from nan_callbacks.core.arguments import check_arguments
from nan_callbacks.core.events import Event
from nan_callbacks.core.journal import Journal
from nan_callbacks.fail_open import fails_open
from nan_callbacks.keras.backend import Backend, make_backend
from nan_callbacks.keras.checkpoints import CheckpointHooks
from nan_callbacks.keras.readings import Reading
from nan_callbacks.keras.session import GuardSession
from nan_callbacks.keras.train_function import OwnedTrainFunction
from nan_callbacks.keras.voice import published, speaker


class NaNGuard(keras.callbacks.Callback):
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
        lr_factor: Factor on the learning rate at a rollback; squared at each further one without progress.
        lr_recovery_steps: Clean steps over which the learning rate returns to its schedule; None: it stays reduced.
        snapshot_every_n_steps: Steps between in-memory snapshots.
        probation_steps: Clean steps that a snapshot must survive to count as known good.
        on_give_up: ``stop`` ends the training in an orderly way, ``raise`` raises ``TrainingStoppedError``.
        events_path: File to which every event is appended as one JSON line; None for no file.
        log_every_n_steps: Steps between values in the logs of batches; None: in the logs of epochs only.
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
        max_rollbacks: int = 3,
        lr_factor: float = 0.5,
        lr_recovery_steps: int | None = None,
        snapshot_every_n_steps: int = 50,
        probation_steps: int = 50,
        on_give_up: Literal["stop", "raise"] = "stop",
        events_path: str | os.PathLike[str] | None = None,
        log_every_n_steps: int | None = None,
        verbose: bool = True,
        strict: bool = False,
    ) -> None:
        super().__init__()
        self.config = GuardConfig(
            on_non_finite=on_non_finite,
            on_spike=on_spike,
            on_divergence=on_divergence,
            window_size=window_size,
            warmup_steps=warmup_steps,
            z_threshold=z_threshold,
            min_ratio=min_ratio,
            max_consecutive_skips=max_consecutive_skips,
            max_skip_fraction=max_skip_fraction,
            max_rollbacks=max_rollbacks,
            lr_factor=lr_factor,
            lr_recovery_steps=lr_recovery_steps,
            snapshot_every_n_steps=snapshot_every_n_steps,
            probation_steps=probation_steps,
            on_give_up=on_give_up,
        )
        self.events_path = events_path
        self.log_every_n_steps = log_every_n_steps
        self.verbose = verbose
        self.strict = strict
        check_arguments(events_path, log_every_n_steps, verbose=verbose, strict=strict)
        self._monitor = Monitor(self.config)
        self._journal = Journal(None, None)
        self._session: GuardSession | None = None
        self._function: OwnedTrainFunction | None = None
        self._checkpoints: CheckpointHooks | None = None
        self._compiled: tuple[Any, Backend] | None = None
        self._prepared = False
        """Whether the backend has been compiled; that survives from fit to fit."""
        self._aside = False

    # -- what the user reads -------------------------------------------------------------------------------------

    @property
    def summary(self) -> dict[str, Any]:
        """Totals of the last (or present) fit: steps, incidents, skips, rollbacks, cuts, and whether it stopped."""
        return self._journal.summary(steps=self._monitor.step, lr_scale=self._monitor.lr_scale)

    @property
    def events(self) -> list[Event]:
        """The event records of the last (or present) fit, oldest first."""
        return self._journal.events

    @property
    def is_aside(self) -> bool:
        """Whether the guard has failed and stepped aside."""
        return self._aside

    # -- hooks ---------------------------------------------------------------------------------------------------

    def set_model(self, model: Any) -> None:
        """Called before any other callback's ``on_train_begin``, where ``BackupAndRestore`` loads."""
        self._aside = False
        self._release()
        super().set_model(model)
        self._checkpoints = CheckpointHooks(model, before_save=self._before_save, state=self._state)
        self._checkpoints.install()

    @fails_open
    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin to guard; every fit begins anew."""
        self._monitor = Monitor(self.config)
        self._journal = Journal(self.events_path, speaker(self.params, verbose=self.verbose))
        self._install()

    @fails_open
    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Somebody may have compiled the model anew."""
        if self._session is None:
            return
        if self._model.train_function is not self._function and self._function is not None:
            self._model.make_train_function()
            self._install()
        self._session.epoch_start(epoch)

    @fails_open
    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Never validate non-finite weights."""
        if self._session is None:
            self._release()
        else:
            self._before_save()

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Not our business outside of ``fit``."""
        if self._session is None:
            self._release()

    @fails_open
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Show the totals to the callbacks after us, the ``History`` among them."""
        if self._session is None:
            return
        self._before_save()
        if logs is not None:
            logs.update(published(self.summary, self._session.last))

    @fails_open
    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Give everything back."""
        self._before_save()
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
            self._load_resumed()
        return session.before_step(batch)

    def after_step(self, readings: list[Reading]) -> bool:
        """Judge a step; whether the logs must be computed anew."""
        return bool(self._judge(readings)) or any(not reading.admitted for reading in readings)

    @fails_open
    def _judge(self, readings: list[Reading]) -> bool:
        session = self._session
        if session is None:
            return False
        if not readings:
            self._say_unguarded()
            return False
        session.after_step(readings)
        return session.restored

    @fails_open
    def could_not_guard(self, error: Exception) -> None:
        """The guarded step cannot be traced, the model's own can: train unguarded, say so."""
        raise RuntimeError("this model's training step cannot be guarded") from error

    @fails_open
    def broke_off(self) -> None:
        """An error is about to leave ``fit``: leave the model as it was found."""
        self._end()

    # -- inside --------------------------------------------------------------------------------------------------

    def _install(self) -> None:
        model = self._model
        if self._compiled is None or self._compiled[0] is not model.train_function:
            self._compiled = (model.train_function, make_backend(model))
            self._prepared = False
        backend = self._compiled[1]
        if self._session is None:
            self._session = GuardSession(model, backend, self._monitor, self._journal)
        self._session.backend = backend
        self._function = OwnedTrainFunction(model, backend, self)
        self._function.install()

    def _before_save(self) -> None:
        if self._session is not None and self._prepared and not self._aside:
            self._session.check_parameters()

    def _state(self) -> dict[str, Any] | None:
        if self._session is None or self._aside:
            return None
        return {"monitor": self._monitor.state_dict(), "journal": self._journal.state_dict()}

    def _load_resumed(self) -> None:
        state = None if self._checkpoints is None else self._checkpoints.take_loaded()
        if state is not None:
            self._monitor.load_state_dict(state["monitor"], snapshots_kept=False)
            self._journal.load_state_dict(state["journal"])

    def _say_unguarded(self) -> None:
        warnings.warn(
            "NaNGuard: this training step calls no optimizer that can be seen from outside, so it is not guarded.",
            stacklevel=2,
        )
        self.step_aside()

    def _end(self) -> None:
        if self._session is not None:
            self._journal.close(steps=self._monitor.step, lr_scale=self._monitor.lr_scale)
        self._release()

    def _release(self) -> None:
        """Give every object of the run back as it was found, and let go of them."""
        if self._function is not None:
            self._function.uninstall()
            self._function = None
        if self._checkpoints is not None:
            self._checkpoints.uninstall()
            self._checkpoints = None
        if self._session is not None:
            self._session.backend.slots.clear()
            self._session = None
        self._journal.say = None
