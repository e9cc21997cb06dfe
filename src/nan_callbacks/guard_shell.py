"""What both callbacks are, whatever the framework: their arguments, their records, and what users read of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal
from weakref import ref

from nan_callbacks.checkup.in_fit import look_over
from nan_callbacks.checkup.notice import CheckupReport
from nan_callbacks.core import GuardConfig, Monitor
from nan_callbacks.core.arguments import check_arguments
from nan_callbacks.core.events import Event, health_events
from nan_callbacks.core.health import HealthMonitor
from nan_callbacks.core.journal import Journal
from nan_callbacks.core.layer_observation import HealthObservation, LayerObservation
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.diagnosis.catalogue import known_codes
from nan_callbacks.diagnosis.desk import Desk, DeskSettings
from nan_callbacks.diagnosis.incident import Incident

LOGGER = logging.getLogger("nan_callbacks")


class GuardShell:
    """The common half of both callbacks; the other half drives a framework.

    The keyword arguments are spelled out in each callback, where signatures, LightningCLI and editors look for them.
    """

    config: GuardConfig
    """The arguments that decide."""
    diagnoses: DeskSettings
    """The arguments about diagnoses."""
    events_path: str | os.PathLike[str] | None
    log_every_n_steps: int | None
    checkpoint_snapshots: Literal["auto", "always", "never"]
    checkup: bool
    health_every_n_steps: int | None
    ignore: Collection[str]
    verbose: bool
    strict: bool

    def _take(self, given: Mapping[str, Any]) -> None:
        """Check and keep the arguments of the constructor, and begin with an empty record.

        Args:
            given: All of them by name; other names are passed over.

        Raises:
            ConfigurationError: What was expected, what was received, what to do.
        """
        self.config = GuardConfig(**{name: given[name] for name in GuardConfig.names()})
        self.diagnoses = DeskSettings(**{name: given[name] for name in DeskSettings.__dataclass_fields__})
        own = {name: given[name] for name in GuardShell.__annotations__ if name in given}
        check_arguments(**own)
        for name, value in own.items():
            setattr(self, name, value)
        known_codes(self.ignore)
        self.checkup_report = CheckupReport()
        """What was found before the first step of the last (or present) fit; empty if nothing was looked at."""
        self._monitor = Monitor(self.config)
        self._journal = Journal(None, None)
        self._desk = Desk(self.diagnoses, self._journal)
        self._health = HealthMonitor(self.health_every_n_steps, self.ignore)
        self._aside = False
        self._looked_over: ref[Any] | None = None
        self._largest_rate = 0.0

    @property
    def summary(self) -> dict[str, Any]:
        """Totals of the last (or present) fit: steps, incidents, skips, rollbacks, cuts, and whether it stopped."""
        self.catch_up()
        return self._journal.summary(steps=self._monitor.step, lr_scale=self._monitor.lr_scale)

    @property
    def events(self) -> list[Event]:
        """The event records of the last (or present) fit, oldest first."""
        self.catch_up()
        return self._journal.events

    @property
    def incidents(self) -> tuple[Incident, ...]:
        """The incidents of the last (or present) fit with their diagnoses, oldest first."""
        self.catch_up()
        return self._desk.incidents

    def catch_up(self) -> None:
        """Judge what has not been judged yet, where that may be put off."""

    def _look_over(self, model: Any, look: Callable[[], CheckupReport]) -> None:
        """Run the checkup, once for each model: a later fit goes on from where the first one ended.

        Args:
            model: The model of the fit.
            look: The adapter's checkup.
        """
        seen, self._looked_over = self._looked_over, ref(model)
        if self.checkup and (seen is None or seen() is not model):
            self.checkup_report = look_over(look, self._journal, strict=self.strict)

    def _sample(
        self, look: Callable[[], tuple[tuple[LayerObservation, ...], float]], seen: StepObservation | None
    ) -> None:
        """Take one sample of the layers and judge it; a look that fails is the last one.

        Args:
            look: What was measured, and the seconds that this took.
            seen: The sampled step.
        """
        try:
            layers, seconds = look()
        except Exception as error:
            if self.strict:
                raise
            self._health = HealthMonitor(None)
            LOGGER.warning("NaNGuard: the layers are not looked at any more: %s: %s", type(error).__name__, error)
            return
        self._health.has_cost(seconds)
        if seen is not None and layers:
            sample = HealthObservation(
                step=seen.step,
                epoch=seen.epoch,
                batch_index=seen.batch_index,
                layers=layers,
                rate_share=self._rate_share(seen),
            )
            self._journal.record(health_events(self._health.observe(sample)))

    def _rate_share(self, seen: StepObservation) -> float:
        rate = max(seen.learning_rates, default=0.0)
        self._largest_rate = max(self._largest_rate, rate)
        return rate / self._largest_rate if self._largest_rate else 1.0

    @property
    def is_aside(self) -> bool:
        """Whether the guard has failed and stepped aside."""
        return self._aside
