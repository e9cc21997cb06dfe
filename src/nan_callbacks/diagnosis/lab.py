"""The laboratory: what an adapter offers so that a suspicion can be tried out on the run's own state.

Every trial runs on the state that produced the incident, or on the last known-good snapshot, and leaves nothing behind:
parameters, optimizer, buffers, random streams, metrics, logs and the order of the data are put back bit by bit.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from nan_callbacks.diagnosis.origin import ReplayResult

Batch = TypeVar("Batch")

FEWEST_TIME_STEPS = 16
"""Length of axis 1 from which it may be time."""


class Start(enum.StrEnum):
    """The state that a trial begins with."""

    PRESENT = "present"
    """As it was before the failed step (a dropped step leaves it untouched)."""
    SNAPSHOT = "snapshot"
    """The last known-good snapshot; the present state if there is none."""
    WEIGHTS = "weights"
    """The trained weights alone as in the last known-good snapshot; counters, schedules and statistics as they are."""
    TRAINED = "trained"
    """The trained weights and the optimizer as in the last known-good snapshot; what else makes up the loss (counters,
    frozen weights, queues) as it is."""
    FRESH = "fresh"
    """Newly drawn weights with Glorot or He scale by the activation that follows, an empty optimizer."""


class Half(enum.StrEnum):
    """Of the batches that trials have: the recent ones and the failed one."""

    OLDER = "older"
    NEWER = "newer"

    def places(self, count: int) -> tuple[range, range]:
        """Places of the batches that are not in it, and of those that are.

        Args:
            count: Batches in all.
        """
        older, newer = range(count // 2), range(count // 2, count)
        return (newer, older) if self is Half.OLDER else (older, newer)


@dataclass(frozen=True, kw_only=True)
class Variation:
    """What one trial does differently from the run."""

    start: Start = Start.PRESENT
    steps: int = 0
    """0: loss and gradients of the failed batch only. n: n optimizer steps over the recent batches, the failed batch
    the last of them; if there are fewer recent batches, they are taken in turn."""
    without_rows: tuple[int, ...] = ()
    """Rows taken out of the failed batch."""
    only_rows: tuple[int, ...] | None = None
    """Rows of the failed batch that are kept; None: all."""
    then_other: bool = False
    """A recent accepted batch is the last one, behind the failed one: what the update by that one does to others."""
    other_batch: bool = False
    """Use recent accepted batches in place of the failed one: the control of an accusation of the data."""
    held_out: Half | None = None
    """This half of the batches is not trained on but measured after the steps, which go over the other half."""
    standardise: bool = False
    """Inputs brought to mean 0 and standard deviation 1 per feature, by the statistics of the recent batches."""
    input_scale: float = 1.0
    """Floating point inputs are multiplied by this."""
    reverse_time: bool = False
    """Inputs of at least 16 time steps (axis 1, behind the rows) in the opposite order."""
    target_scale: float = 1.0
    """Floating point targets are multiplied by this."""
    clip_targets: bool = False
    """Targets clipped to the range that the recent batches had."""
    lr_factor: float = 1.0
    """On the learning rate of every parameter group."""
    clip_norm: float | None = None
    """Global gradient norm clipped to this before each update."""
    dtype: str | None = None
    """``float32`` or ``float64`` for parameters, inputs and arithmetic (mixed precision is off then)."""
    nudge: float | None = None
    """Operands of the origin's operation are kept this far (absolutely) from the edge of its domain:
    ``log(max(x, nudge))``, ``sqrt(max(x, nudge))``, a divisor of at least this magnitude. Only asked of labs whose
    ``can_nudge`` is True."""

    def line_up(self, failed: Batch, recent: Sequence[Batch]) -> tuple[list[Batch], list[Batch]] | None:
        """What is trained on, in turn, and what is held out; None if that takes a recent batch and none was kept.

        Args:
            failed: The batch that failed, or what is left of it.
            recent: Recent accepted batches, oldest first.
        """
        if self.held_out is not None:
            known = [*recent, failed]
            used, held = ([known[place] for place in places] for places in self.held_out.places(len(known)))
            return ([used[step % len(used)] for step in range(self.steps)], held) if used else None
        if (self.other_batch or self.then_other) and not recent:
            return None
        last = recent[-1] if self.other_batch else failed
        earlier = [recent[index % len(recent)] if recent else last for index in range(max(self.steps - 1, 0))]
        return [*earlier, last, *(recent[-1:] if self.then_other else [])], []

    def describe(self) -> str:
        """In words, such as ``the learning rate × 0.1, 12 steps from the last good state``."""
        said = [words for words, applies in self._changes() if applies]
        if self.steps:
            said.append(f"{self.steps} step{'s' if self.steps > 1 else ''} from {_STARTS[self.start]}")
        elif self.start is not Start.PRESENT:
            said.append(f"from {_STARTS[self.start]}")
        return ", ".join(said) or "the same step again"

    def _changes(self) -> list[tuple[str, bool]]:
        rows = ", ".join(map(str, self.without_rows[:5])) + (" …" if len(self.without_rows) > 5 else "")
        kept = self.only_rows or ()
        return [
            (f"without sample{'s' if len(self.without_rows) > 1 else ''} {rows}", bool(self.without_rows)),
            (f"with {len(kept)} of the samples only", self.only_rows is not None),
            ("with another batch", self.other_batch),
            (f"measured on the {self.held_out} half of the batches, without training on it", self.held_out is not None),
            ("then another batch", self.then_other),
            ("inputs standardised", self.standardise),
            ("sequences reversed", self.reverse_time),
            (f"inputs × {self.input_scale:g}", self.input_scale != 1.0),
            (f"targets × {self.target_scale:g}", self.target_scale != 1.0),
            ("targets clipped to their usual range", self.clip_targets),
            (f"learning rate × {self.lr_factor:g}", self.lr_factor != 1.0),
            (f"gradients clipped to norm {self.clip_norm or 0:.3g}", self.clip_norm is not None),
            (f"in {self.dtype}", self.dtype is not None),
            (f"operands of the failing operation kept {self.nudge or 0:g} from its edge", self.nudge is not None),
        ]


_STARTS = {
    Start.PRESENT: "the state before the failure",
    Start.SNAPSHOT: "the last good state",
    Start.WEIGHTS: "the last good weights",
    Start.TRAINED: "the last good weights and optimizer",
    Start.FRESH: "fresh weights",
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of one variation."""

    variation: Variation
    supported: bool = True
    """False: the adapter cannot do this here; ``note`` says why. Such a trial proves nothing."""
    losses: tuple[float, ...] = ()
    """Raw loss of each step, in order (one value for ``steps=0``)."""
    grad_norms: tuple[float, ...] = ()
    """Global gradient norm of each step before clipping."""
    held_out: tuple[float, ...] = ()
    """Losses of the batches that were held out, in order; empty if the trial broke off before."""
    parameters_finite: bool = True
    """At the end of the trial."""
    statistics_jump: float | None = None
    """Largest factor by which a running variance of a normalisation layer grew in the last step, as
    :attr:`.StepObservation.statistics_jump` has it; None if not measured."""
    raised: str = ""
    """Class and message of the exception that ended the trial; empty if none did."""
    seconds: float = 0.0
    note: str = ""


class Lab(Protocol):
    """One incident, held still. Implemented by each adapter.

    A lab that can do :attr:`Variation.nudge` says so with an attribute ``can_nudge = True``; a lab without that
    attribute is never asked.
    """

    def replay(self) -> ReplayResult:
        """The failed step once more, traced."""

    def run(self, variation: Variation) -> Trial:
        """One trial; leaves nothing behind.

        Never raises for what the model does: an exception of the model is the trial's result.
        """

    @property
    def rows(self) -> int:
        """Rows of the failed batch; 0 if it has no batch dimension."""

    @property
    def step_seconds(self) -> float:
        """About how long one step takes, measured in the lab."""
