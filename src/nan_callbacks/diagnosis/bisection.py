"""Which rows of a batch are to blame: group testing with a step that either stays finite or does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GuiltyRows:
    """What a bisection found."""

    rows: tuple[int, ...] = ()
    """In ascending order; empty if no few rows are to blame."""
    confirmed: bool = False
    """Whether the step was tried without them and stayed finite."""
    trials: int = 0
    note: str = ""
    """Why there are no rows, or that the search was cut short."""


def guilty_rows(
    is_finite_with: Callable[[Sequence[int]], bool | None],
    count: int,
    *,
    suspects: Sequence[int] = (),
    max_guilty: int | None = None,
    max_trials: int = 64,
) -> GuiltyRows:
    """Find the rows without which the step is finite.

    Args:
        is_finite_with: Runs the step on these rows only and says whether loss and gradients were finite; None if the
            step cannot run on them (batch normalisation on a single row).
        count: Rows of the batch.
        suspects: Rows that a tracer blames already, tried first.
        max_guilty: Give up beyond this many; default a quarter of the rows, at least 1.
        max_trials: Give up after this many runs of the step.
    """
    search = _Search(is_finite_with, count, max_trials)
    most = max(1, count // 4) if max_guilty is None else max_guilty
    if count < 2:
        return GuiltyRows(note="A batch of one row cannot be divided.")
    try:
        return search.from_suspects(suspects, most) or search.from_nothing(most)
    except _TooManyTrialsError:
        return GuiltyRows(trials=search.trials, note=f"Given up after {search.trials} runs of the step.")


class _TooManyTrialsError(Exception):
    pass


class _Search:
    """The trials of one search."""

    def __init__(self, is_finite_with: Callable[[Sequence[int]], bool | None], count: int, max_trials: int) -> None:
        self._is_finite_with, self._count, self._max_trials = is_finite_with, count, max_trials
        self._known: dict[tuple[int, ...], bool | None] = {}
        self._good: list[int] = []
        self.trials = 0

    def from_suspects(self, suspects: Sequence[int], most: int) -> GuiltyRows | None:
        """Take the suspects' guilt if the step is finite without them and fails with each of them."""
        rows = sorted({row for row in suspects if 0 <= row < self._count})
        if not rows or len(rows) > most or len(rows) == self._count:
            return None
        if self._is_finite(self._without(rows)) is not True:
            return None
        self._good = self._without(rows)
        return self._confirmed(rows)

    def from_nothing(self, most: int) -> GuiltyRows:
        """Halve the batch, and the halves that fail."""
        everything = list(range(self._count))
        if self._is_finite(everything) is True:
            return GuiltyRows(trials=self.trials, note="The step is finite with all rows.")
        guilty: list[int] = []
        if not self._halve(everything, guilty, most):
            return GuiltyRows(trials=self.trials, note=f"More than {most} of {self._count} rows seem to be involved.")
        if not guilty:
            return GuiltyRows(trials=self.trials, note="No row fails by itself: rows fail only together.")
        return self._confirmed(guilty)

    def _halve(self, rows: list[int], guilty: list[int], most: int) -> bool:
        """Find the guilty ones among rows that fail together; False if there are too many."""
        if len(rows) == 1:
            guilty.extend(rows)
            return len(guilty) <= most
        middle = len(rows) // 2
        for half in (rows[:middle], rows[middle:]):
            if self._is_finite(half) is True:
                self._good.extend(half)
            elif not self._halve(half, guilty, most):
                return False
        return True

    def _confirmed(self, guilty: list[int]) -> GuiltyRows:
        if len(guilty) <= _FEW:
            # Rows that could not run alone have companions by now; a suspect may be innocent.
            guilty = [row for row in guilty if self._is_finite([row]) is not True]
        rest = self._without(guilty)
        if not guilty or not rest or self._is_finite(rest) is not True:
            return GuiltyRows(trials=self.trials, note="The step fails without the suspected rows as well.")
        return GuiltyRows(rows=tuple(sorted(guilty)), confirmed=True, trials=self.trials)

    def _without(self, rows: Sequence[int]) -> list[int]:
        left_out = set(rows)
        return [row for row in range(self._count) if row not in left_out]

    def _is_finite(self, rows: list[int]) -> bool | None:
        """One trial, or what an earlier one said; rows that cannot run alone get two innocent companions."""
        verdict = self._try(rows)
        if verdict is None and len(rows) <= 2 and self._good:
            companions = [row for row in self._good if row not in rows][:2]
            verdict = self._try(sorted([*rows, *companions]))
        return verdict

    def _try(self, rows: list[int]) -> bool | None:
        key = tuple(rows)
        if key not in self._known:
            if self.trials >= self._max_trials:
                raise _TooManyTrialsError
            self.trials += 1
            self._known[key] = self._is_finite_with(rows)
        return self._known[key]


_FEW = 8
"""Suspects up to this number are tried one by one."""
