"""What both callbacks are, whatever the framework: their arguments, their records, and what users read of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from nan_callbacks.checkup.notice import CheckupReport
from nan_callbacks.core import GuardConfig, Monitor
from nan_callbacks.core.arguments import check_arguments
from nan_callbacks.core.events import Event
from nan_callbacks.core.journal import Journal
from nan_callbacks.diagnosis.catalogue import catalogue
from nan_callbacks.diagnosis.desk import Desk, DeskSettings
from nan_callbacks.diagnosis.incident import Incident
from nan_callbacks.errors import ConfigurationError

ACTED_ON = {
    "NAN101": "on_non_finite='observe'",
    "NAN102": "on_non_finite='observe'",
    "NAN103": "on_divergence='observe'",
    "GRAD201": "on_spike='observe'",
    "ACT301": "on_spike='observe'",
    "LOSS401": "on_spike='observe'",
    "LOSS402": "on_divergence='observe'",
}
"""Codes that the guard acts on, which only hiding would make worse, and the argument that makes it watch instead."""


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
    ignore: Sequence[str]
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
        check_arguments(**{name: value for name, value in own.items() if name != "ignore"})
        _check_codes(own["ignore"])
        for name, value in own.items():
            setattr(self, name, value)
        self.checkup_report: CheckupReport | None = None
        """What the checkup of the last (or present) fit found; None before it, or without one."""
        self._monitor = Monitor(self.config)
        self._journal = Journal(None, None)
        self._desk = Desk(self.diagnoses, self._journal)
        self._aside = False

    @property
    def summary(self) -> dict[str, Any]:
        """Totals of the last (or present) fit: steps, incidents, skips, rollbacks, cuts, and whether it stopped."""
        return self._journal.summary(steps=self._monitor.step, lr_scale=self._monitor.lr_scale)

    @property
    def events(self) -> list[Event]:
        """The event records of the last (or present) fit, oldest first."""
        return self._journal.events

    @property
    def incidents(self) -> tuple[Incident, ...]:
        """The incidents of the last (or present) fit with their diagnoses, oldest first."""
        return self._desk.incidents

    @property
    def is_aside(self) -> bool:
        """Whether the guard has failed and stepped aside."""
        return self._aside


def _check_codes(ignore: Any) -> None:
    expected = "a list of codes such as ['DATA502']"
    if isinstance(ignore, str) or not isinstance(ignore, Sequence) or not all(isinstance(code, str) for code in ignore):
        raise ConfigurationError.of("ignore", expected, ignore, "An empty list silences nothing.")
    known = catalogue()
    for code in (code.upper() for code in ignore):
        if code not in known:
            remedy = f"The codes are {', '.join(known)}."
            raise ConfigurationError.of("ignore", expected, ignore, remedy)
        if code in ACTED_ON:
            remedy = f"The guard acts on {code}; with {ACTED_ON[code]} it only watches."
            raise ConfigurationError.of("ignore", "codes of the checkup and of the health of layers", ignore, remedy)
