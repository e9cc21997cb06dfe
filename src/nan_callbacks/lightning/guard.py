"""NaNGuard for the Lightning Trainer: the callback itself, a thin shell around the session."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer

from nan_callbacks.core import Monitor, StepObservation
from nan_callbacks.core.events import Event
from nan_callbacks.core.health import HealthMonitor
from nan_callbacks.core.journal import Journal
from nan_callbacks.diagnosis.desk import Desk
from nan_callbacks.diagnosis.diagnosis import Diagnosis
from nan_callbacks.diagnosis.incident import Incident
from nan_callbacks.errors import NaNCallbacksError
from nan_callbacks.fail_open import fails_open
from nan_callbacks.guard_shell import GuardShell
from nan_callbacks.lightning.checkup import look_over_fit
from nan_callbacks.lightning.examiner import Examination, about, examine_exception
from nan_callbacks.lightning.hooks import TrainerHooks
from nan_callbacks.lightning.namespace import CALLBACK_BASES
from nan_callbacks.lightning.session import GuardSession
from nan_callbacks.lightning.voice import announce_limits, publish, speaker

STATE_VERSION = 1

PUBLISHED_TOTALS = ("incidents", "skipped_steps", "rollbacks", "lr_scale")
"""Totals that loggers and monitoring callbacks see."""


class NaNGuard(GuardShell, *CALLBACK_BASES):  # type: ignore[misc]
    """Watches every optimizer step, keeps bad ones from the weights, and puts the run right.

    A step whose loss or gradients are non-finite, or far outside their own history, is dropped as if its batch had
    never been drawn. When dropping is not enough, the run goes back to its last known-good state with a smaller
    learning rate. When that does not help either, the training stops and says why. A run without incidents is bitwise
    the run without this callback.

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
        log_every_n_steps: Steps between values sent to the loggers; None: as the trainer does.
        checkpoint_snapshots: Whether snapshots travel in checkpoints, so that a resumed run can roll back beyond the
            resume: ``auto`` up to 256 MiB, ``always``, ``never``. Those of a sharded model never do.
        diagnose: Which incidents are examined: ``on_incident`` those of a new kind, ``first`` only the first of a fit,
            ``never`` none. The first incident of a code is examined in full: up to 60 steps on copies of the state.
            Then the second, fourth, eighth … are replayed (a few steps each), and examined if they began elsewhere.
        diagnose_budget_s: Seconds that all examinations of a fit may take together. With several processes the others
            wait meanwhile, so stay well below the timeout of the process group.
        on_incident: Called with every :class:`nan_callbacks.diagnosis.incident.Incident` of this process.
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
        >>> from pytorch_lightning import Trainer
        >>> trainer = Trainer(callbacks=[NaNGuard()])  # doctest: +SKIP
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
        self._hooks: TrainerHooks | None = None
        self._resumed: dict[str, Any] | None = None
        self._final: dict[str, Any] | None = None
        self._published: dict[str, float] = {}

    # -- what the user reads -------------------------------------------------------------------------------------

    def diagnose(self) -> Diagnosis:
        """Examine the present batch, or the last one that was kept, whether or not anything is wrong with it.

        During the fit, from other callbacks' hooks, or after it. The run is not changed; the record gets the diagnosis.

        Raises:
            NaNCallbacksError: If no batch has been trained on under guard.
        """
        session = self._session
        if session is not None:
            seen = session.last or StepObservation(step=self._monitor.step)
            return self._desk.on_demand(about(seen), session.examination(seen))
        if self._last_step is None:
            raise NaNCallbacksError(
                "expected a fit with this guard before or around diagnose(), received none; without a fit use "
                "nan_callbacks.diagnose_step(model, batch)."
            )
        return self._desk.on_demand(*self._last_step)

    # -- hooks ---------------------------------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Every fit begins anew; what a checkpoint holds for it is loaded after this."""
        if stage == "fit":
            self._aside = False
            self._resumed = self._final = None

    @fails_open
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to guard. Tuners and the sanity check never come here; ``fast_dev_run`` is left alone."""
        self._monitor = Monitor(self.config)
        path = Path(self.events_path) if self.events_path is not None and trainer.is_global_zero else None
        self._journal = Journal(path, speaker(trainer, verbose=self.verbose))
        self._published = {}
        self._health = HealthMonitor(self.health_every_n_steps, self.ignore)
        manners = {"strict": self.strict, "verbose": self.verbose}
        self._desk, self._last_step = Desk(self.diagnoses, self._journal, rank=trainer.global_rank, **manners), None
        if trainer.fast_dev_run:
            return
        announce_limits(trainer)
        session = GuardSession(trainer, pl_module, self._monitor, self._journal, self._desk)
        self._load_resumed(session)
        self._session = session
        session.learning_rate.install()
        self._hooks = TrainerHooks(trainer, self._gate, self._before_checkpoint)
        self._hooks.install()

    @fails_open
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """The order of the data may have been drawn: the random streams have moved."""
        if self._session is not None:
            self._session.epoch_start()

    @fails_open
    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Remember what a dropped step would have to put back."""
        if self._session is not None:
            self._session.learning_rate.adopt([config.scheduler for config in trainer.lr_scheduler_configs])
            self._session.batch_start(batch)
            if self._monitor.step == 0 and trainer.is_global_zero:
                self._look_over(pl_module, partial(look_over_fit, trainer, pl_module, self._session, self.ignore))
            if self._health.is_due(self._monitor.step):
                self._session.layers.begin()

    @fails_open
    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        """Keep the loss for the measurement."""
        if self._session is not None:
            self._session.before_backward(loss)

    @fails_open
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Judge the batch's steps, act, log."""
        if self._session is None:
            return
        before = self._monitor.step
        if self._hooks is not None:
            self._hooks.withheld.forget()  # trials step as well
        self._session.batch_end()
        if self._monitor.step != before:
            last = self._session.last
            self._sample(partial(self._session.layers.end, applied=last is not None and last.applied), last)
            every = self.log_every_n_steps or trainer.log_every_n_steps
            stepped = trainer.fit_loop.epoch_loop._batches_that_stepped + 1
            self._publish(trainer, to_loggers=every > 0 and stepped % every == 0)

    @fails_open
    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Never validate non-finite weights. Monitors of our values may come at its end."""
        if self._session is not None and not trainer.sanity_checking:
            self._session.layers.end()
            self._session.check_parameters()
            self._publish(trainer)

    @fails_open
    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Validation may have drawn random numbers."""
        if self._session is not None:
            self._session.window.remember_rng()

    @fails_open
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Epoch-wise schedulers and monitors of our values come next."""
        if self._session is not None:
            self._session.learning_rate.resume()
            self._publish(trainer)

    @fails_open
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Give everything back."""
        if self._session is not None:
            self._session.check_parameters()
        self._end()

    @fails_open
    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """The run broke off: its weights may be saved now, and its objects must be left as they were found."""
        if self._session is not None and trainer.world_size == 1:  # other ranks need not come here
            # What broke the run may break this as well, and is what the user must see.
            with suppress(NaNCallbacksError if self.strict else Exception):
                self._session.check_parameters()
                if isinstance(exception, Exception) and not isinstance(exception, NaNCallbacksError):
                    examine_exception(self._session, exception)
        self._end()

    @fails_open
    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """The same, in case the end was not reached."""
        self._end()

    def step_aside(self) -> None:
        """Undo every change made to the run's objects and do nothing from now on."""
        self._aside = True
        self._release()

    # -- state ---------------------------------------------------------------------------------------------------

    @property
    def state_key(self) -> str:
        """Key of the state in checkpoints: the same in both namespaces."""
        return "nan_callbacks.NaNGuard"

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to decide as the unbroken one: plain containers and tensors."""
        if self._aside:
            return {}
        session = self._session
        outside = self._final or self._resumed  # after the fit, or before its first step
        if session is None and outside is not None:
            return outside
        state: dict[str, Any] = {
            "version": STATE_VERSION,
            "monitor": self._monitor.state_dict(),
            "journal": self._journal.state_dict(),
            "desk": self._desk.state_dict(),
            "health": self._health.state_dict(),
        }
        if session is not None:
            state["learning_rate"] = session.learning_rate.state_dict()
            state["history"] = session.history.state_dict()
            if session.snapshots.travel(self.checkpoint_snapshots):
                state["snapshots"] = session.snapshots.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a checkpoint's state for the coming fit.

        Raises:
            ValueError: If it was written by a version that this one cannot read.
        """
        if state_dict and state_dict.get("version") != STATE_VERSION:
            raise ValueError(
                f"expected a NaNGuard state of version {STATE_VERSION}, received {state_dict.get('version')!r}; "
                "resume with the version of nan-callbacks that wrote the checkpoint."
            )
        self._resumed = state_dict or None

    # -- inside --------------------------------------------------------------------------------------------------

    def _load_resumed(self, session: GuardSession) -> None:
        state, self._resumed = self._resumed, None
        if state is None:
            return
        snapshots = state.get("snapshots")
        if snapshots is not None:
            session.snapshots.load_state_dict(snapshots)
        self._monitor.load_state_dict(state["monitor"], snapshots_kept=snapshots is not None)
        self._journal.load_state_dict(state["journal"])
        for name, owner in (("desk", self._desk), ("health", self._health), ("history", session.history)):
            if name in state:  # absent from checkpoints of earlier versions
                owner.load_state_dict(state[name])
        session.window.refresh()  # in the middle of an epoch, no hook of its start will do so
        if "learning_rate" in state:
            session.learning_rate.load_state_dict(state["learning_rate"])

    def _gate(self, optimizer: Optimizer) -> bool:
        admitted = self._guarded_gate(optimizer)
        return True if admitted is None else bool(admitted)

    @fails_open
    def _guarded_gate(self, optimizer: Optimizer) -> bool:
        return self._session is None or self._session.gate(optimizer)

    @fails_open
    def _before_checkpoint(self) -> None:
        if self._session is not None:
            self._session.check_parameters()

    def _publish(self, trainer: Any, *, to_loggers: bool = False) -> None:
        """Show our values to monitoring callbacks whenever a total has changed or logging is due."""
        session = self._session
        if session is None or session.last is None:
            return
        summary = self.summary
        totals = {name: float(summary[name]) for name in PUBLISHED_TOTALS}
        if to_loggers or totals != self._published:
            self._published = totals
            norm = session.last.grad_norm
            values = totals if norm is None else {**totals, "grad_norm": norm}
            publish(trainer, values, to_loggers=to_loggers)

    def _end(self) -> None:
        if self._session is not None:
            self._journal.close(steps=self._monitor.step, lr_scale=self._monitor.lr_scale)
        self._release()

    def _release(self) -> None:
        """Give every object of the run back as it was found, and let go of them."""
        if self._hooks is not None:
            self._hooks.uninstall()
            self._hooks = None
        if self._session is not None:
            self._session.layers.end()
            self._session.learning_rate.uninstall()
            # Checkpoints are also written after this: by other callbacks' hooks at the end, and by the user.
            self._final = self.state_dict()
            with suppress(Exception):  # the rest must be given back in any case
                self._last_step = self._session.last_step()
            self._session = None
        self._journal.say = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy has its record, and neither trainer nor module, which every callback's `log` and `log_dict` hold."""
        kept = {name: value for name, value in vars(self).items() if name not in ("log", "log_dict")}
        final = self._final if self._session is None else self.state_dict()
        return {**kept, "_last_step": None, "_looked_over": None, "_session": None, "_hooks": None, "_final": final}
