"""Exact copies of every variable that training changes, restored in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nan_callbacks.keras.model_parts import global_seed, learning_rate_variables, recurrent_states, unique


@dataclass
class Snapshot:
    """One copy."""

    epoch: int
    values: list[Any]
    """Backend arrays, in the order of the variables."""
    rng: Any = None
    """Streams outside of variables, for the backends that have them."""
    buffers: Any = None
    """State outside of variables that goes back with them, on torch. It does not travel in checkpoints."""


@dataclass(frozen=True)
class VariableGroups:
    """The variables of a run by what a rollback does with them."""

    always: list[Any]
    """Go back at every rollback: weights, running statistics, moments, counters, seeds."""
    metrics: list[Any]
    """Go back within their epoch: the next one begins from zero."""

    @property
    def all(self) -> list[Any]:
        """Both, in a fixed order."""
        return [*self.always, *self.metrics]

    def restored(self, same_epoch: bool, leave: Sequence[Any] = ()) -> list[bool]:
        """Whether each of :attr:`all` goes back.

        Args:
            same_epoch: Whether the snapshot was taken in the present epoch.
            leave: Variables that stay as they are.
        """
        left = {id(variable) for variable in leave}
        return [id(variable) not in left for variable in self.always] + [same_epoch] * len(self.metrics)


def variable_groups(model: Any, optimizers: list[Any], others: Sequence[Any] = ()) -> VariableGroups:
    """Sort a model's variables, and others that a step may write.

    Learning rates that callbacks assign belong to neither group: ``LearningRateScheduler`` and ``ReduceLROnPlateau``
    move forward with the epochs.
    """
    metrics = unique(list(model.metrics_variables))
    left_out = learning_rate_variables(optimizers) | {id(variable) for variable in metrics}
    moments = [variable for optimizer in optimizers for variable in optimizer.variables]
    everything = unique([*model.variables, *recurrent_states(model), *others, *moments, *global_seed()])
    return VariableGroups([variable for variable in everything if id(variable) not in left_out], metrics)
