"""The snapshots of one fit: two slots for the ledger, and one for optimizers that evaluate several times a step."""

from __future__ import annotations

from typing import Any

import torch

from nan_callbacks.core.config import SnapshotMemory
from nan_callbacks.lightning.averaging import averaged_modules, forget_update
from nan_callbacks.lightning.learning_rate import LearningRateControl
from nan_callbacks.lightning.metrics import MetricMemory
from nan_callbacks.torch.rng import RngState
from nan_callbacks.torch.snapshot import Snapshot, TrainingState
from nan_callbacks.torch.snapshot_home import SnapshotHome

STEP_START = -1
"""Slot of the snapshot at the start of the present step, kept only for LBFGS."""

MAX_BYTES_IN_CHECKPOINT = 256 * 2**20
"""Size up to which the copies travel in checkpoints by default: a checkpoint of a small model may triple, one of a
large model must not."""


class Snapshots:
    """Holds the copies that the core's ledger speaks of.

    Args:
        trainer: The trainer of the fit.
        module: Its module.
        learning_rate: The control of the learning rate; its record of scaled values belongs to the state.
        metrics: The logged metrics, put back by a rollback within the same epoch.
        memory: Where the copies are kept.
    """

    def __init__(
        self,
        trainer: Any,
        module: torch.nn.Module,
        learning_rate: LearningRateControl,
        metrics: MetricMemory,
        memory: SnapshotMemory = "auto",
    ) -> None:
        self._trainer = trainer
        self._home = SnapshotHome(memory)
        self._state = TrainingState(
            modules={"model": module, **averaged_modules(trainer)},
            optimizers=list(trainer.optimizers),
            schedulers=[config.scheduler for config in trainer.lr_scheduler_configs],
            scaler=getattr(trainer.precision_plugin, "scaler", None),
            extra={
                "learning_rate": (learning_rate.state_dict, learning_rate.load_state_dict),
                "metrics": (metrics.snapshot, metrics.restore_snapshot),
            },
        )
        self._slots: dict[int, Snapshot] = {}
        self._epochs: dict[int, int] = {}

    @property
    def nbytes(self) -> int:
        """Size of all copies in bytes."""
        return sum(snapshot.nbytes for snapshot in self._slots.values())

    def travel(self, choice: str) -> bool:
        """Whether the copies go into checkpoints.

        Args:
            choice: What the user wants: ``auto``, ``always`` or ``never``.
        """
        # Only rank 0's state of a callback is saved. Strategies that shard the model are those that restore it late.
        if self._trainer.strategy.restore_checkpoint_after_setup:
            return False
        return choice == "always" or (choice == "auto" and self.nbytes <= MAX_BYTES_IN_CHECKPOINT)

    def capture(self, slot: int, rng: RngState | None = None) -> None:
        """Copy the present state into a slot.

        Args:
            slot: The slot.
            rng: Random streams to go back to, if not the present ones: those before the coming batch was fetched.
        """
        if slot not in self._slots:
            self._slots[slot] = Snapshot(self._state, self._home)
        self._slots[slot].capture(rng)
        if self._home.on_host:
            for snapshot in self._slots.values():
                snapshot.settle()
        self._epochs[slot] = self._trainer.current_epoch

    def restore(self, slot: int, *, streams: bool = True) -> None:
        """Put a slot's state back.

        Args:
            slot: The slot.
            streams: Whether the random streams go back as well. They do so only within an epoch: the next epoch's order
                of the data is drawn from them, and data move forward, never back.
        """
        self._slots[slot].restore(rng=streams and self._epochs[slot] == self._trainer.current_epoch)
        forget_update(self._trainer)

    def saved(self, slot: int) -> dict[str, Any] | None:
        """A slot's copies as plain state, shared with it; None if it is empty."""
        return self._slots[slot].state_dict() if slot in self._slots else None

    def capture_step_start(self) -> None:
        """Copy the state at the start of a step."""
        self.capture(STEP_START)

    def restore_step_start(self) -> None:
        """Undo the present step, but for the random streams, of which the window takes care."""
        self.restore(STEP_START, streams=False)

    def state_dict(self) -> dict[str, Any]:
        """Plain state of the ledger's slots, for a checkpoint."""
        return {
            str(slot): {"epoch": self._epochs[slot], "snapshot": snapshot.state_dict()}
            for slot, snapshot in self._slots.items()
            if slot != STEP_START
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over slots saved by :meth:`state_dict`."""
        for slot, saved in state.items():
            self._slots[int(slot)] = Snapshot(self._state, self._home)
            self._slots[int(slot)].load_state_dict(saved["snapshot"])
            self._epochs[int(slot)] = int(saved["epoch"])
