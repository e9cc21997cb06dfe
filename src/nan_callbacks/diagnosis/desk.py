"""The desk: which incidents are examined, at what cost, and who is told. The same for every framework."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from nan_callbacks.core.decision import Decision
from nan_callbacks.core.events import SCHEMA, Event, describe, step_events
from nan_callbacks.core.finding import Action, Finding
from nan_callbacks.core.journal import Journal
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.core.stall import StallWatch
from nan_callbacks.core.start import BetterStart
from nan_callbacks.diagnosis.diagnose import Budget
from nan_callbacks.diagnosis.diagnosis import Confidence, Diagnosis
from nan_callbacks.diagnosis.incident import Incident
from nan_callbacks.diagnosis.origin import ReplayResult
from nan_callbacks.errors import ConfigurationError

LOGGER = logging.getLogger("nan_callbacks")

When = Literal["on_incident", "first", "never"]

Found = TypeVar("Found")

BUDGET_SECONDS = 60.0
"""What all diagnoses of a fit may cost by default: a fraction of the ten minutes that NCCL lets a process wait."""

ONE_DIAGNOSIS = Budget()
"""What a single diagnosis may cost at most."""

UNASKED = Budget(seconds=10.0)
"""What a look at a run that stands still may cost: it is made once, and not at the expense of incidents."""

MOST_INCIDENTS_KEPT = 1000
"""Records in ``guard.incidents``; the stream of events holds all of them."""


@dataclass(frozen=True, kw_only=True)
class DeskSettings:
    """The arguments of both callbacks about diagnoses.

    Raises:
        ConfigurationError: What was expected, what was received, what to do.
    """

    diagnose: When = "on_incident"
    diagnose_budget_s: float = BUDGET_SECONDS
    on_incident: Callable[[Incident], None] | None = None
    save_batch: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.diagnose not in ("on_incident", "first", "never"):
            expected = "one of 'on_incident', 'first', 'never'"
            raise ConfigurationError.of("diagnose", expected, self.diagnose, "Choose one of these words.")
        seconds: Any = self.diagnose_budget_s
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
            remedy = "60 is usual; diagnose='never' switches diagnoses off."
            raise ConfigurationError.of("diagnose_budget_s", "a number of seconds > 0", seconds, remedy)
        called: Any = self.on_incident
        if called is not None and not callable(called):
            remedy = "It is called with an Incident; None calls nothing."
            raise ConfigurationError.of("on_incident", "a function or None", called, remedy)
        folder: Any = self.save_batch
        if folder is not None and (not isinstance(folder, str | os.PathLike) or Path(folder).is_file()):
            remedy = "Such as 'logs/incidents'; None saves nothing."
            raise ConfigurationError.of("save_batch", "the path of a folder or None", folder, remedy)


class Case(Protocol):
    """One incident that an adapter can examine."""

    def replay(self, seconds: float) -> ReplayResult:
        """The failed step once more, traced; cheap beside :meth:`diagnose`."""

    def diagnose(self, replay: ReplayResult, budget: Budget) -> Diagnosis | None:
        """The cause, by experiment; None if another process must know it."""

    def weights_at_fault(self) -> bool | None:
        """Whether the weights are to blame for what was found, and not the data; None if that cannot be tried."""

    def better_start(self) -> BetterStart | None:
        """What a few steps from the first weights achieve at a lower rate, if that is clearly better than all else."""

    def cut_by_trials(self, cut: float) -> float:
        """The cut of the learning rate after which the run trains best from the last good state; ``cut`` at least."""

    def save(self, folder: Path, event: Event) -> None:
        """Write the batch and the state down."""


class Desk:
    """Takes in the incidents of one fit.

    The first incident of every code is examined in full. After that the second, fourth, eighth … of the code are
    replayed, and examined if the failure began elsewhere than before: 500 incidents of a kind cost one diagnosis
    and eight replays. All examinations together stay within ``diagnose_budget_s``.

    Args:
        settings: What the user wants.
        journal: Where diagnoses are written and said.
        strict: Whether an error of the diagnosis is raised; otherwise it is reported once and no more are made.
        rank: Rank of the process.
        verbose: Whether a rank other than zero, whose journal is silent, says its diagnoses through the log.
    """

    def __init__(
        self,
        settings: DeskSettings,
        journal: Journal,
        *,
        strict: bool = False,
        rank: int = 0,
        verbose: bool = True,
    ) -> None:
        self.settings = settings
        self._journal = journal
        self._strict = strict
        self._rank = rank
        self._verbose = verbose
        self._incidents: list[Incident] = []
        self._counts: Counter[str] = Counter()
        self._examined: dict[str, tuple[int, Diagnosis]] = {}
        self._spent = 0.0
        self._stall = StallWatch()
        self._broken = False
        self._callback_failed = False

    @property
    def incidents(self) -> tuple[Incident, ...]:
        """The incidents so far, oldest first, at most the first 1000."""
        return tuple(self._incidents)

    @property
    def seconds_left(self) -> float:
        """What is left of the budget."""
        return max(0.0, self.settings.diagnose_budget_s - self._spent)

    def take_in(self, event: Event, open_case: Callable[[], Case | None]) -> Incident:
        """One incident.

        Args:
            event: Its record in the stream.
            open_case: Makes it examinable; called only if it shall be. May return None: not on this process.
        """
        diagnosis = None
        code = str(event["code"])
        self._counts[code] += 1
        if code == "LOSS408":  # the run begins anew, and is known to have stood still
            self._stall.finish()
        if self._is_worth_a_look(code):
            diagnosis = self._guarded(lambda: self._examine(event, open_case()))
        incident = Incident.from_event(event, diagnosis)
        if len(self._incidents) < MOST_INCIDENTS_KEPT:
            self._incidents.append(incident)
        self._tell(incident)
        return incident

    def take_in_exception(self, event: Event, open_case: Callable[[], Case]) -> Incident | None:
        """An error that ends the run, if it is the training step's own: if the step raises again.

        Args:
            event: Its record, which is written only then.
            open_case: Makes the step examinable.
        """
        if self.settings.diagnose == "never" or self._broken or self.seconds_left <= 0.0:
            return None
        return self._guarded(lambda: self._incident_of(event, open_case()))

    def notice(
        self, seen: StepObservation, open_case: Callable[[tuple[Finding, ...]], Case | None], *, incident: bool
    ) -> None:
        """One judged step. Once, a run that has learnt nothing is looked into; it is told of if the cause is found.

        Args:
            seen: The step.
            open_case: Makes it examinable, with what was found about it.
            incident: Whether it was an incident.
        """
        finding = self._stall.observe(seen, incident=incident)
        when = self.settings.diagnose
        if finding is None or self._broken or when == "never" or (when == "first" and self._incidents):
            return
        self._guarded(lambda: self._look_into(seen, finding, open_case((finding,))))

    def weights_at_fault(self, open_case: Callable[[], Case | None]) -> bool | None:
        """Whether the weights are to blame; None if that cannot be tried. No diagnosis: four steps' work.

        Args:
            open_case: Makes the last step examinable.
        """
        if self._broken:
            return None
        case = self._guarded(open_case)
        return None if case is None else self._guarded(case.weights_at_fault)

    def better_start(self, open_case: Callable[[], Case | None]) -> BetterStart | None:
        """Whether the run had better begin again at a lower rate; None if not, or if nothing shall be tried.

        Args:
            open_case: Makes the last step examinable.
        """
        if self._broken or self.settings.diagnose == "never":
            return None
        case = self._guarded(open_case)
        return None if case is None else self._guarded(case.better_start)

    def cut_by_trials(self, open_case: Callable[[], Case | None], cut: float) -> float:
        """How deep the learning rate must be cut; ``cut`` itself if that cannot be tried, or nothing shall be.

        Args:
            open_case: Makes the last step examinable.
            cut: What is meant.
        """
        if self._broken or self.settings.diagnose == "never":
            return cut
        case = self._guarded(open_case)
        return cut if case is None else self._guarded(lambda: case.cut_by_trials(cut)) or cut

    def on_demand(self, event: Event, case: Case) -> Diagnosis:
        """A diagnosis that the user asked for: whatever the settings say, and beyond the budget of the fit.

        Args:
            event: Of the step: ``step``, ``epoch``, ``batch_index``.
            case: The step.
        """
        began = time.perf_counter()
        replay = case.replay(ONE_DIAGNOSIS.seconds)
        diagnosis = case.diagnose(replay, ONE_DIAGNOSIS) or Diagnosis(note="The step went well on this process.")
        diagnosis = replace(diagnosis, seconds=time.perf_counter() - began)
        self._journal.record([self._event(event, diagnosis)])
        return diagnosis

    def state_dict(self) -> dict[str, Any]:
        """Plain state, so that a resumed fit does not examine again what it knows."""
        return {
            "counts": dict(self._counts),
            "spent": self._spent,
            "examined": {key: [step, diagnosis.to_dict()] for key, (step, diagnosis) in self._examined.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        self._counts = Counter(state["counts"])
        self._spent = float(state["spent"])
        self._examined = {key: (step, Diagnosis.from_dict(told)) for key, (step, told) in state["examined"].items()}

    # -- inside --------------------------------------------------------------------------------------------------

    def _is_worth_a_look(self, code: str) -> bool:
        when = self.settings.diagnose
        if when == "never" or self._broken or self.seconds_left <= 0.0:
            return False
        count = self._counts[code]
        if when == "first":
            return self._counts.total() == 1
        return count & (count - 1) == 0

    def _incident_of(self, event: Event, case: Case) -> Incident | None:
        replay = case.replay(min(ONE_DIAGNOSIS.seconds, self.seconds_left))
        if replay.error is None:  # it is another callback's, a logger's, the data loader's
            return None
        self._journal.record([event])
        self._counts[str(event["code"])] += 1
        incident = Incident.from_event(event, self._examine(event, case, replay))
        self._incidents.append(incident)
        self._tell(incident)
        return incident

    def _look_into(self, seen: StepObservation, finding: Finding, case: Case | None) -> None:
        """Whether a run that stands still does so for a reason; many a healthy one takes its time."""
        if case is None:
            return
        began = time.perf_counter()
        budget = replace(UNASKED, seconds=min(UNASKED.seconds, self.settings.diagnose_budget_s))
        diagnosis = case.diagnose(case.replay(budget.seconds), budget)
        if diagnosis is None or diagnosis.cause is None or diagnosis.cause.confidence is Confidence.POSSIBLE:
            return
        (event,) = step_events(seen, Decision(action=Action.OBSERVE, findings=(finding,)), rank=self._rank)
        diagnosis = replace(diagnosis, seconds=time.perf_counter() - began)
        self._journal.record([event, self._event(event, diagnosis)])
        self._counts[finding.code] += 1
        self._incidents.append(Incident.from_event(event, diagnosis))
        self._tell(self._incidents[-1])

    def _examine(self, event: Event, case: Case | None, replay: ReplayResult | None = None) -> Diagnosis | None:
        if case is None:
            return None
        began = time.perf_counter()
        try:
            budget = Budget(steps=ONE_DIAGNOSIS.steps, seconds=min(ONE_DIAGNOSIS.seconds, self.seconds_left))
            replay = replay or case.replay(budget.seconds)
            key = f"{event['code']} {_place(replay)}"
            if key in self._examined:
                step, known = self._examined[key]
                note = f"It began where it did at step {step}; not examined again."
                # The cause is that of the other incident; its numbers and samples are not.
                verdicts = tuple(replace(verdict, because=(), trials=()) for verdict in known.verdicts)
                return Diagnosis(verdicts=verdicts, origin=replay.origin, note=note)
            diagnosis = case.diagnose(replay, budget)
            if diagnosis is None:
                return None
            diagnosis = replace(diagnosis, seconds=time.perf_counter() - began)
            self._examined[key] = (int(event["step"]), diagnosis)
            if self.settings.save_batch is not None:
                case.save(Path(self.settings.save_batch) / f"step_{event['step']:06d}", event)
        finally:
            self._spend(time.perf_counter() - began)
        self._journal.record([self._event(event, diagnosis)])
        if self._rank and self._verbose:  # only rank 0 has a voice, and this one alone knows
            LOGGER.warning("NaNGuard (rank %d): %s\n%s", self._rank, event.get("message"), diagnosis.describe())
        return diagnosis

    def _spend(self, seconds: float) -> None:
        before = self.seconds_left
        self._spent += seconds
        if before > 0.0 and self.seconds_left <= 0.0:
            LOGGER.warning(
                "NaNGuard: the %g s for diagnoses are spent; incidents are still handled, no longer explained. "
                "`diagnose_budget_s` allows more.",
                self.settings.diagnose_budget_s,
            )

    def _event(self, about: Event, diagnosis: Diagnosis) -> Event:
        cause = diagnosis.cause
        event: Event = {
            "event": "diagnosis",
            "schema": SCHEMA,
            "time": time.time(),
            "rank": self._rank,
            **{name: about.get(name) for name in ("step", "epoch", "batch_index", "optimizer")},
            "about": about.get("code"),
            "code": None if cause is None else cause.code,
            "confidence": None if cause is None else cause.confidence.value,
            "paragraph": diagnosis.describe(),
            "diagnosis": diagnosis.to_dict(),
        }
        event["message"] = describe(event)
        return event

    def _guarded(self, examine: Callable[[], Found | None]) -> Found | None:
        try:
            return examine()
        except Exception as error:
            if self._strict:
                raise
            self._broken = True
            LOGGER.warning(
                "NaNGuard: the diagnosis failed and is switched off for this fit; the guard goes on guarding. "
                "Please report this. (%s: %s)",
                type(error).__name__,
                error,
                exc_info=True,
            )
            return None

    def _tell(self, incident: Incident) -> None:
        if self.settings.on_incident is None:
            return
        try:
            self.settings.on_incident(incident)
        except Exception as error:
            if self._strict:
                raise
            if not self._callback_failed:
                LOGGER.warning("NaNGuard: on_incident raised %s: %s", type(error).__name__, error, exc_info=True)
            self._callback_failed = True


def _place(replay: ReplayResult) -> str:
    """Where a failure began, to tell whether another one began there as well."""
    origin = replay.origin
    if origin is None:
        return "reproduced" if replay.reproduced else "not reproduced"
    line = "" if origin.source is None else f"{origin.source.file}:{origin.source.line}"
    return " ".join((origin.kind.value, origin.operation, origin.phase.value, origin.module, line))
