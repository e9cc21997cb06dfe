"""Which snapshot is known good. The ledger holds slots and steps, never tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SLOTS = 3
"""One trusted snapshot and one on probation, since the newest may already hold what is about to be noticed; and as long
as a run has little to show for itself, the one that it began with."""


FEWEST_CLEAN_STEPS = 16
"""Clean steps after which a snapshot on probation is good enough to go back to from non-finite values: what makes them
was not in that state, or would have shown at each of these steps. Spikes and divergence may grow out of a state."""


@dataclass
class LedgerEntry:
    """One snapshot that an adapter holds."""

    slot: int
    step: int
    clean_steps: int
    trusted: bool
    detectors: dict[str, Any]
    """State of the detectors when it was taken; a rollback brings it back as well."""


class Ledger:
    """Decides when a snapshot is due, when it has earned trust, and which one a rollback goes to.

    Args:
        every_n_steps: Attempted steps between snapshots.
        probation_steps: Clean steps after which a snapshot is trusted.
    """

    def __init__(self, every_n_steps: int, probation_steps: int) -> None:
        self.every_n_steps = every_n_steps
        self.probation_steps = probation_steps
        self._trusted: LedgerEntry | None = None
        self._candidate: LedgerEntry | None = None
        self._first: LedgerEntry | None = None

    def due(self, step: int, *, suspicious: bool) -> bool:
        """Whether a snapshot should be taken before this step.

        Args:
            step: The clock.
            suspicious: True while a detector suspects the present state.
        """
        if self._trusted is None:
            return True
        return self._candidate is None and step % self.every_n_steps == 0 and not suspicious

    def record(self, step: int, detectors: dict[str, Any], *, keep: bool = False) -> int:
        """Register a snapshot that is being taken now.

        Args:
            step: The clock.
            detectors: State of the detectors at this moment.
            keep: Whether the very first one is kept until :meth:`release_first`.

        Returns:
            The slot into which the adapter must write it. The very first one is trusted at once: it is the state
            that the user began with.
        """
        first = self._trusted is None
        self._candidate = None
        slot = min(set(range(SLOTS)) - self.slots())
        entry = LedgerEntry(slot, step, 0, first, detectors)
        if first:
            self._trusted = entry
            self._first = entry if keep else None
        else:
            self._candidate = entry
        return slot

    def clean_step(self) -> None:
        """A step went well; promote the candidate that has survived its probation."""
        if self._candidate is None:
            return
        self._candidate.clean_steps += 1
        if self._candidate.clean_steps >= self.probation_steps:
            self._candidate.trusted = True
            self._trusted, self._candidate = self._candidate, None

    def slots(self) -> set[int]:
        """The slots that are in use; what an adapter holds in others can go."""
        return {entry.slot for entry in (self._trusted, self._candidate, self._first) if entry is not None}

    def first(self) -> LedgerEntry | None:
        """The state that the run began with, as long as it is kept."""
        return self._first

    def release_first(self) -> None:
        """The state that the run began with need not be kept any longer than others."""
        self._first = None

    def target(self) -> LedgerEntry | None:
        """The trusted snapshot, None if there is none yet."""
        return self._trusted

    def newest(self) -> LedgerEntry | None:
        """The one on probation if it has had some clean steps, else the trusted one."""
        candidate = self._candidate
        known = candidate is not None and candidate.clean_steps >= FEWEST_CLEAN_STEPS
        return candidate if known else self._trusted

    def witnesses(self) -> list[LedgerEntry]:
        """The snapshots that may tell what the weights knew, the newest first: it may be too new."""
        found = [self.newest(), self._trusted]
        return [each for place, each in enumerate(found) if each is not None and each not in found[:place]]

    def choose(self, chosen: LedgerEntry | None) -> LedgerEntry | None:
        """Go back to a snapshot.

        Args:
            chosen: The trusted one, the first, or that on probation, which begins its probation anew.
        """
        if chosen is not None and chosen is self._candidate:
            chosen.clean_steps = 0
        else:
            self._candidate = None  # it did not hold
        if chosen is not None and chosen is self._first:
            self._trusted = chosen
        return chosen

    def renew_detectors(self, detectors: dict[str, Any]) -> None:
        """A new level holds from now on, whichever state the run goes back to.

        Args:
            detectors: State of the detectors that know it.
        """
        for entry in (self._trusted, self._candidate, self._first):
            if entry is not None:
                entry.detectors = detectors

    def forget(self) -> None:
        """The adapter no longer holds any snapshot (a resumed run without saved snapshots)."""
        self._trusted = self._candidate = self._first = None

    def state_dict(self) -> dict[str, Any]:
        """Plain state."""
        return {
            name: None if entry is None else dict(vars(entry))
            for name, entry in (("trusted", self._trusted), ("candidate", self._candidate), ("first", self._first))
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        self._trusted = LedgerEntry(**state["trusted"]) if state["trusted"] else None
        self._candidate = LedgerEntry(**state["candidate"]) if state["candidate"] else None
        first = state.get("first")  # absent from states of earlier versions
        self._first = LedgerEntry(**first) if first else None
        if self._first is not None and self._trusted is not None and self._first.slot == self._trusted.slot:
            self._first = self._trusted
