"""What a detector saw, and how strongly the guard may react to it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from nan_callbacks.core.observation import StepObservation


class Severity(enum.IntEnum):
    """How much a finding threatens the run."""

    INFO = 0
    WARNING = 1
    ERROR = 2


class Action(enum.IntEnum):
    """What can be done about a finding, ordered by how much it changes the run."""

    OBSERVE = 0
    """Only reported."""
    SKIP_STEP = 1
    """The update does not reach the weights."""
    REDUCE_LR = 2
    """The learning rate is multiplied by a factor below one."""
    ROLLBACK = 3
    """The state returns to the last known-good snapshot."""
    STOP = 4
    """Training ends."""

    @property
    def word(self) -> str:
        """The action as users write it, such as ``skip_step``."""
        return self.name.lower()


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that one detector saw at one step."""

    code: str
    """Stable code of the symptom, such as ``GRAD201``."""
    title: str
    """The symptom in the field's words, such as ``exploding gradient``."""
    step: int
    epoch: int
    batch_index: int
    severity: Severity
    action: Action
    """What the detector proposes; the policy decides."""
    stream: int = 0
    where: str = ""
    """Name of the parameter or quantity, empty if it concerns the whole model."""
    quantity: str = ""
    """Which number was judged, such as ``grad_norm``."""
    value: float | None = None
    limit: float | None = None
    robust_z: float | None = None
    """Distance from the median of the quantity's history in robust standard deviations, if that is defined."""
    detail: str = ""
    """One more sentence for people."""
    level_before: float | None = None
    """The level that was left, if harder data would look the same: weights that had it may do no better now."""
    standing: bool = False
    """True if the value has been so for a while and no reaction helps: it is broken, and not the training."""

    @classmethod
    def of(cls, seen: StepObservation, **about: Any) -> Finding:
        """A finding at an observed step.

        Args:
            seen: The step.
            **about: The other fields.
        """
        return cls(step=seen.step, epoch=seen.epoch, batch_index=seen.batch_index, stream=seen.stream, **about)
