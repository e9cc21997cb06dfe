"""What is compared: ways of guarding a run, each as an ordinary user would switch it on."""

from collections.abc import Callable
from dataclasses import dataclass

import keras

from nan_callbacks.keras import NaNGuard


@dataclass(frozen=True, eq=False)
class Arm:
    """One way of guarding.

    Attributes:
        name: Its heading.
        callback: Makes the callback that guards, if there is one.
    """

    name: str
    callback: Callable[[], keras.callbacks.Callback] | None = None


def default_guard() -> keras.callbacks.Callback:
    """The guard as it comes; only its messages are turned off."""
    return NaNGuard(verbose=False)


def guard_with_constant_snapshots() -> keras.callbacks.Callback:
    """A guard that takes a snapshot before every step."""
    return NaNGuard(verbose=False, snapshot_every_n_steps=1, probation_steps=1)


NO_GUARD = Arm("no guard")
GUARD = Arm("NaNGuard()", default_guard)
ARMS = (
    NO_GUARD,
    Arm("no guard, again"),
    Arm("TerminateOnNaN()", keras.callbacks.TerminateOnNaN),
    GUARD,
)
"""The rows of the table. The difference between the first two is the noise of all others."""

CONSTANT_SNAPSHOTS = Arm("a snapshot every step", guard_with_constant_snapshots)
"""Not a row: what its steps need more than the guard's is the price of one snapshot."""
