"""Examines incidents of a Lightning fit: gathers the evidence in the laboratory and asks for the cause."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nan_callbacks.core import StepObservation
from nan_callbacks.core.events import Event, exception_event
from nan_callbacks.core.finding import Finding
from nan_callbacks.core.start import BetterStart
from nan_callbacks.diagnosis.diagnose import Budget, diagnose
from nan_callbacks.diagnosis.diagnosis import Diagnosis
from nan_callbacks.diagnosis.evidence import Evidence, History
from nan_callbacks.diagnosis.first_weights import better_start
from nan_callbacks.diagnosis.guilty_samples import succeeds
from nan_callbacks.diagnosis.lab import Variation
from nan_callbacks.diagnosis.origin import ReplayResult
from nan_callbacks.diagnosis.rate_trials import cut_by_trials
from nan_callbacks.diagnosis.weights_at_fault import weights_at_fault
from nan_callbacks.lightning.lab import LightningLab, can_be_held_still
from nan_callbacks.torch.gate import learning_rates
from nan_callbacks.torch.lab_bench import Window
from nan_callbacks.torch.lab_evidence import REPLAY_SHARE, gather, narrowest, settings_of
from nan_callbacks.torch.rng import RngState
from nan_callbacks.torch.saving import save_incident

if TYPE_CHECKING:
    from nan_callbacks.lightning.session import GuardSession

HALF = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16, 16: torch.float16, "16": torch.float16}
"""What the trainer's precision computes in, where parameters do not show it."""


class Examination:
    """One incident on one process: implements :class:`nan_callbacks.diagnosis.desk.Case`.

    Args:
        trainer: The trainer.
        module: Its module.
        seen: The failed step.
        findings: What was found about it.
        failed: Its batches.
        recent: Windows of accepted steps, oldest first.
        history: The run so far.
        trusted: Returns the ``state_dict()`` of the last known-good snapshot.
        random_streams: Where the streams were when the step began; None: where they are.
        global_step: What ``trainer.global_step`` said when the step began.
    """

    def __init__(
        self,
        trainer: Any,
        module: Any,
        seen: StepObservation,
        findings: Sequence[Finding],
        failed: Window,
        recent: Sequence[Window],
        history: History,
        *,
        trusted: Callable[[], dict[str, Any] | None] = lambda: None,
        random_streams: RngState | None = None,
        global_step: int | None = None,
    ) -> None:
        self._trainer, self._module = trainer, module
        self._seen, self._findings, self._history = seen, tuple(findings), history
        self._failed, self._recent, self._random_streams = failed, recent, random_streams
        self._obstacle = can_be_held_still(trainer, module) if failed else "no batch of the step was kept"
        self._lab: LightningLab | None = None
        if not self._obstacle:
            self._lab = LightningLab(
                trainer,
                module,
                failed,
                recent,
                trusted=trusted,
                random_streams=random_streams,
                global_step=global_step,
            )

    def replay(self, seconds: float) -> ReplayResult:
        """The failed step once more, traced."""
        if self._lab is None:
            return ReplayResult(note=self._obstacle)
        return self._lab.replay(seconds * REPLAY_SHARE)

    def diagnose(self, replay: ReplayResult, budget: Budget) -> Diagnosis | None:
        """The cause; None if the step went well on this process, so that another one must have failed."""
        settings = self._settings()
        if self._lab is None:
            evidence = Evidence(
                seen=self._seen, findings=self._findings, replay=replay, history=self._history, **settings
            )
            return diagnose(evidence, None, budget) if self._trainer.is_global_zero else None
        several = self._trainer.world_size > 1
        if several and not replay.reproduced and succeeds(self._lab.run(Variation()), self._findings, replay):
            return None
        evidence = gather(
            self._lab,
            self._seen,
            self._findings,
            replay,
            history=self._history,
            settings=settings,
            seconds=budget.seconds,
        )
        return diagnose(evidence, self._lab, budget)

    def weights_at_fault(self) -> bool | None:
        """Whether the weights are to blame for what was found, and not the data; None if that cannot be tried."""
        return None if self._lab is None else weights_at_fault(self._lab, self._findings[0])

    def better_start(self) -> BetterStart | None:
        """What a few steps from the first weights achieve at a lower rate, if that is clearly better than all else."""
        return None if self._lab is None else better_start(self._lab, self._history, self._seen)

    def cut_by_trials(self, cut: float) -> float:
        """The cut of the learning rate after which the run trains best from the last good state; ``cut`` at least."""
        return cut if self._lab is None else cut_by_trials(self._lab, cut, self._history, self._seen)

    def save(self, folder: Path, event: Event) -> None:
        """Write the batch and the state down."""
        save_incident(
            folder,
            module=self._module,
            failed=self._failed,
            recent=self._recent,
            random_streams=self._random_streams,
            about={**event, "framework": "lightning"},
        )

    def _settings(self) -> dict[str, Any]:
        trainer = self._trainer
        precision = getattr(trainer.precision_plugin, "precision", None)
        return {
            **settings_of(self._module, trainer.optimizers),
            "framework": "lightning",
            "precision": narrowest(self._module, HALF.get(precision)),
            "clipping": None if trainer.gradient_clip_val is None else float(trainer.gradient_clip_val),
        }


def about(seen: StepObservation) -> Event:
    """What a record of the stream says about a step that is no incident."""
    return {"step": seen.step, "epoch": seen.epoch, "batch_index": seen.batch_index, "optimizer": seen.stream}


def examine_exception(session: GuardSession, error: Exception) -> None:
    """Look into an error that the training step of the present batch raised; a step that goes well is left alone.

    Args:
        session: Of the fit that the error ends.
        error: The error.
    """
    window, trainer = session.window, session.trainer
    if session.desk is None or not window.batches or trainer.world_size > 1 or "out of memory" in str(error).lower():
        return
    window.undo_forward()
    rates = [rate for optimizer in trainer.optimizers for rate in learning_rates(optimizer)]
    seen = StepObservation(
        step=session.monitor.step,
        epoch=trainer.current_epoch,
        batch_index=trainer.fit_loop.epoch_loop.batch_idx,
        learning_rates=tuple(rates),
    )
    session.desk.take_in_exception(exception_event(seen, error), lambda: session.examination(seen))
