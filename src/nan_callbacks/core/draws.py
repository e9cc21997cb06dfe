"""Where the random streams stand after a dropped batch: whether its numbers are drawn again or count as used."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from nan_callbacks.core.observation import StepObservation


class Streams(Enum):
    """Where the random streams go on from after a dropped batch."""

    BEFORE_FETCH = "as if the batch had never been drawn"
    ARRIVAL = "where they were when the batch had been fetched"
    AFTER_STEP = "where the step left them"


class Draws:
    """Decides where the random streams stand after a dropped batch.

    A dropped batch is to be as if it had never been drawn, so the streams go back to where they were before it. But the
    failure may have been made by the numbers themselves (a noise level, a mask, an augmentation): then the next batch
    would draw the very same numbers and fail as well, and so would every other. So only the first dropped batch in a
    row gives its numbers back; in any further one they count as used, as far as they can be what failed. In a batch
    that is itself non-finite those of the step cannot.

    Args:
        rolls_back_at_once: Whether a single dropped batch leads to a rollback: then no batch gives its numbers back,
            or the restored state would fail with them again.
    """

    def __init__(self, *, rolls_back_at_once: bool = False) -> None:
        self._given_back = 0 if rolls_back_at_once else 1
        self.in_a_row = 0
        """Dropped batches up to now, without one that went through."""

    @property
    def count_as_used(self) -> bool:
        """Whether the numbers of the coming batch may count as used even if it is dropped."""
        return self.in_a_row >= self._given_back

    def after(self, dropped: Sequence[StepObservation]) -> Streams:
        """Where the streams go on from.

        Args:
            dropped: The steps of the batch, none of which went through.
        """
        if not self.count_as_used:
            return Streams.BEFORE_FETCH
        return Streams.ARRIVAL if any(seen.batch_finite is False for seen in dropped) else Streams.AFTER_STEP

    def note(self, batch: Sequence[StepObservation]) -> None:
        """One batch is over.

        Args:
            batch: The steps that it attempted, perhaps none.
        """
        if batch:
            self.in_a_row = self.in_a_row + 1 if is_dropped(batch) else 0


def is_dropped(batch: Sequence[StepObservation]) -> bool:
    """Whether no step of a batch went through, and none was skipped by a loss scaler on its own."""
    return all(not seen.applied and not seen.left_to_scaler for seen in batch)
