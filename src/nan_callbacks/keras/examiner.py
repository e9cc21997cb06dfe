"""Examines incidents of a Keras fit: gathers the evidence in the laboratory and asks for the cause."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nan_callbacks.core import StepObservation
from nan_callbacks.core.events import Event, exception_event
from nan_callbacks.core.finding import Finding
from nan_callbacks.core.start import BetterStart
from nan_callbacks.diagnosis.diagnose import Budget, diagnose
from nan_callbacks.diagnosis.diagnosis import Diagnosis
from nan_callbacks.diagnosis.evidence import Evidence, History
from nan_callbacks.diagnosis.first_weights import better_start
from nan_callbacks.diagnosis.origin import ReplayResult
from nan_callbacks.diagnosis.rate_trials import cut_by_trials
from nan_callbacks.diagnosis.weights_at_fault import weights_at_fault
from nan_callbacks.errors import NaNCallbacksError
from nan_callbacks.keras.evidence import REPLAY_SHARE, gather, settings_of
from nan_callbacks.keras.lab import KerasLab
from nan_callbacks.keras.model_parts import obstacle_of
from nan_callbacks.keras.saving import save_incident

if TYPE_CHECKING:
    from nan_callbacks.keras.session import GuardSession

NO_STEP = (
    "expected a fit with this guard before or around diagnose(), received none; without a fit use "
    "nan_callbacks.diagnose_step(model, batch)."
)
"""What is said to a user who asks for a diagnosis of nothing."""


class Examination:
    """One incident: implements :class:`nan_callbacks.diagnosis.desk.Case`.

    Args:
        model: The model.
        seen: The failed step.
        findings: What was found about it.
        failed: Its batch as the step received it; None if it was not kept.
        recent: Batches of accepted steps, oldest first.
        history: The run so far.
        state: JAX only: returns what ``fit`` hands around.
        trusted: Returns the values of the last known-good snapshot by ``id`` of the variable.
        lr_scale: What the guard has the learning rate multiplied by.
    """

    def __init__(
        self,
        model: Any,
        seen: StepObservation,
        findings: Sequence[Finding],
        failed: Any,
        recent: Sequence[Any],
        history: History,
        *,
        state: Callable[[], Any] = lambda: None,
        trusted: Callable[[], Mapping[int, Any] | None] = lambda: None,
        lr_scale: float = 1.0,
    ) -> None:
        self._model = model
        self._seen, self._findings, self._history = seen, tuple(findings), history
        self._failed, self._recent, self._state = failed, recent, state
        self._trusted, self._lr_scale = trusted, lr_scale
        self._obstacle = "no batch of the step was kept" if failed is None else obstacle_of(model)

    def replay(self, seconds: float) -> ReplayResult:
        """The failed step once more, traced."""
        if self._obstacle:
            return ReplayResult(note=self._obstacle)
        return self._laboratory().replay(seconds * REPLAY_SHARE)

    def diagnose(self, replay: ReplayResult, budget: Budget) -> Diagnosis:
        """The cause."""
        if self._obstacle:
            settings = settings_of(self._model)
            evidence = Evidence(
                seen=self._seen, findings=self._findings, replay=replay, history=self._history, **settings
            )
            return diagnose(evidence, None, budget)
        lab = self._laboratory()
        evidence = gather(lab, self._seen, self._findings, replay, history=self._history, seconds=budget.seconds)
        return diagnose(evidence, lab, budget)

    def weights_at_fault(self) -> bool | None:
        """Whether the weights are to blame for what was found, and not the data; None if that cannot be tried."""
        return None if self._obstacle else weights_at_fault(self._laboratory(), self._findings[0])

    def better_start(self) -> BetterStart | None:
        """What a few steps from the first weights achieve at a lower rate, if that is clearly better than all else."""
        return None if self._obstacle else better_start(self._laboratory(), self._history, self._seen)

    def cut_by_trials(self, cut: float) -> float:
        """The cut of the learning rate after which the run trains best from the last good state; ``cut`` at least."""
        return cut if self._obstacle else cut_by_trials(self._laboratory(), cut, self._history, self._seen)

    def save(self, folder: Path, event: Event) -> None:
        """Write the batch and the state down."""
        save_incident(
            folder, model=self._model, failed=self._failed, recent=self._recent, state=self._state(), about=event
        )

    def _laboratory(self) -> KerasLab:
        # A new one each time: what it has learnt is of no use once the run has gone on.
        return KerasLab(
            self._model,
            self._failed,
            self._recent,
            state=self._state,
            trusted=self._trusted,
            lr_scale=self._lr_scale,
        )


def about(seen: StepObservation) -> Event:
    """What a record of the stream says about a step that is no incident."""
    return {"step": seen.step, "epoch": seen.epoch, "batch_index": seen.batch_index, "optimizer": seen.stream}


def examine_exception(session: GuardSession, error: BaseException | None) -> None:
    """Look into an error that the training step of the present batch raised; a step that goes well is left alone.

    Args:
        session: Of the fit that the error ends.
        error: The error, if it came out of the training step. The guard's own, and what is no error but an
            interruption, are left alone.
    """
    if not isinstance(error, Exception) or isinstance(error, NaNCallbacksError):
        return
    if session.desk is None or not session.batches or "out of memory" in str(error).lower():
        return
    seen = StepObservation(step=session.monitor.step, epoch=session.epoch, batch_index=session.batch_index)
    session.desk.take_in_exception(exception_event(seen, error), lambda: session.examination(seen))
