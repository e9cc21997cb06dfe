"""The steps that the checkup tries out: in the laboratory, or by the guarded step that a fit has compiled anyway."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import keras
from keras import ops

from nan_callbacks.checkup.facts import RateFacts
from nan_callbacks.checkup.learning_rate import STEPS, probe_rate
from nan_callbacks.core import Limits
from nan_callbacks.diagnosis.lab import Variation
from nan_callbacks.keras.backend import TryingBackend
from nan_callbacks.keras.lab import KerasLab
from nan_callbacks.keras.model_parts import leaf_optimizers, optimizers_of
from nan_callbacks.keras.readings import Reading, pack_limits
from nan_callbacks.keras.replay_result import message_of

Losses = tuple[float, ...]


class Trials(Protocol):
    """Steps on copies of the state."""

    @property
    def raised(self) -> str:
        """The error of the first step; empty if it went well."""

    @property
    def gradients(self) -> dict[str, float]:
        """Gradient norm of each variable at the first step, by path; empty if there is none."""

    def losses(self, factor: float) -> Losses | None:
        """Losses of the first batch over :data:`STEPS` steps with a factor on the rate; None: that cannot be tried."""


class LabTrials:
    """Trials in the laboratory, which compiles steps of its own.

    Args:
        lab: The first step, held still.
    """

    def __init__(self, lab: KerasLab) -> None:
        self._lab = lab
        self._first = lab.run(Variation())

    @property
    def raised(self) -> str:
        """See :class:`Trials`."""
        return self._first.raised

    @property
    def gradients(self) -> dict[str, float]:
        """See :class:`Trials`."""
        return self._lab.gradients if self._first.supported and not self.raised else {}

    def losses(self, factor: float) -> Losses | None:
        """See :class:`Trials`."""
        if self.raised or not self._first.supported:
            return None
        trial = self._lab.run(Variation(steps=STEPS + 1, lr_factor=factor))
        return trial.losses if trial.supported and not trial.raised else None


class GuardedTrials:
    """Trials by the guarded step of a fit: they cost their steps alone.

    Args:
        backend: The guarded step.
        batch: The first batch, as the step receives it.
        lr_scale: What the guard has the learning rate multiplied by.
    """

    def __init__(self, backend: TryingBackend, batch: Any, lr_scale: float) -> None:
        self._backend, self._batch, self._lr_scale = backend, batch, lr_scale
        self._first: list[Reading] = []
        self._raised = ""
        self._as_it_is = self._steps(1.0)

    @property
    def raised(self) -> str:
        """See :class:`Trials`."""
        return self._raised

    @property
    def gradients(self) -> dict[str, float]:
        """See :class:`Trials`."""
        return {name: norm for each in self._first for name, norm in zip(each.names, each.norms, strict=False)}

    def losses(self, factor: float) -> Losses | None:
        """See :class:`Trials`."""
        return self._as_it_is if factor == 1.0 or self.raised else self._steps(factor)

    def _steps(self, factor: float) -> Losses | None:
        streams = range(max(len(self._backend.optimizers), 1))
        everything = replace(Limits(), admit_non_finite_loss=True, admit_non_finite_gradients=True)
        limits = pack_limits([everything for _ in streams], self._lr_scale * factor)
        losses: list[float] = []
        try:
            with self._backend.on_copies():
                for _ in range(STEPS + 1):
                    readings = self._backend.run(self._batch, limits)[1]()
                    self._first = self._first or readings
                    losses += [each.loss for each in readings[:1] if each.loss is not None]
                    if not all(map(math.isfinite, losses)):
                        break
        except Exception as error:
            self._raised = f"{type(error).__name__}: {message_of(error)}"
            return None
        return tuple(losses) or None


def rate_of(model: Any, trials: Trials, held_still_for: Callable[[Callable[[], Any]], Any]) -> RateFacts | None:
    """What the learning rate does to the loss of the first batch.

    Args:
        model: The model.
        trials: Where it is tried.
        held_still_for: Calls a function while the model's variables hold their values.
    """
    leaves = [leaf for optimizer in optimizers_of(model) for leaf in leaf_optimizers(optimizer)]
    if not leaves:
        return None
    rates = held_still_for(lambda: [float(ops.convert_to_numpy(leaf.learning_rate)) for leaf in leaves])
    schedules = keras.optimizers.schedules.LearningRateSchedule
    names = ", ".join(type(leaf).__name__ for leaf in leaves)
    scheduled = any(isinstance(getattr(leaf, "_learning_rate", None), schedules) for leaf in leaves)
    largest = max(rates)
    return probe_rate(trials.losses, largest, optimizer=names, is_scheduled=scheduled) if largest else None
