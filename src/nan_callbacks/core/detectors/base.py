"""What every detector promises."""

from __future__ import annotations

from typing import Any, Protocol

from nan_callbacks.core.finding import Finding
from nan_callbacks.core.limits import Limits
from nan_callbacks.core.observation import StepObservation


class Detector(Protocol):
    """Watches the observations of one stream (one optimizer).

    A detector judges a value *before* it learns it, learns only finite values that were neither flagged nor dropped,
    keeps bounded memory, and has a plain, JSON-compatible state.
    """

    def update(self, observation: StepObservation) -> list[Finding]:
        """Judge one observation, then learn from it."""
        ...

    def limits(self) -> Limits:
        """What the next step must stay under. Detectors without a say return :data:`.OPEN`."""
        ...

    def accept_level(self) -> None:
        """The policy found the present level to be the new normal: forget the history that says otherwise."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Plain state: numbers, strings, booleans, None, lists and dicts."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        ...
