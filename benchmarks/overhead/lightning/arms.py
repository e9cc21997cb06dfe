"""What is compared: ways of guarding a run, each as an ordinary user would switch it on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytorch_lightning import Callback
from pytorch_lightning.callbacks.spike import SpikeDetection

from nan_callbacks.lightning import NaNGuard


@dataclass(frozen=True, eq=False)
class Arm:
    """One way of guarding.

    Attributes:
        name: Its heading.
        callback: Makes the callback that guards, if it is one.
        options: Arguments of the trainer, if it is done by these.
        detects_anomalies: Whether autograd's anomaly mode is on.
        clips: Whether the trainer's clipping is the arm's own work.
    """

    name: str
    callback: Callable[[], Callback] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    detects_anomalies: bool = False
    clips: bool = False

    @property
    def has_own_time(self) -> bool:
        """Whether its work can be told from the rest of the step; the work of anomaly mode is all over it."""
        return self.callback is not None or self.clips


def default_guard() -> Callback:
    """The guard as it comes; only its messages are turned off."""
    return NaNGuard(verbose=False)


def guard_with_constant_snapshots() -> Callback:
    """A guard that takes a snapshot before every step."""
    return NaNGuard(verbose=False, snapshot_every_n_steps=1, probation_steps=1)


NO_GUARD = Arm("no guard")
NO_GUARD_AGAIN = Arm("no guard, again")
GUARD = Arm("NaNGuard()", default_guard)
ARMS = (
    NO_GUARD,
    NO_GUARD_AGAIN,
    GUARD,
    Arm("gradient_clip_val=1", options={"gradient_clip_val": 1.0}, clips=True),
    Arm("detect_anomaly=True", options={"detect_anomaly": True}, detects_anomalies=True),
    Arm("SpikeDetection()", SpikeDetection),
)
"""The rows of the table. The difference between the first two is the noise of all others."""

CONSTANT_SNAPSHOTS = Arm("a snapshot every step", guard_with_constant_snapshots)
"""Not a row: what its steps need more than the guard's is the price of one snapshot."""
