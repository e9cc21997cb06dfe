"""Losses that users wrote: what they make of targets in another shape than that of the outputs, found out by asking."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from keras import ops

from nan_callbacks.checkup.facts import LossFacts
from nan_callbacks.diagnosis.lab import Start, Variation
from nan_callbacks.keras.lab import KerasLab
from nan_callbacks.keras.lab_batch import map_parts

ROUNDING = 1e-4
"""Relative difference up to which two ways to compute one float32 loss may differ: sums in another order."""


def without_harmless_shapes(lab: KerasLab, losses: tuple[LossFacts, ...]) -> tuple[LossFacts, ...]:
    """The losses; the kind of those is unknown now that bring targets into shape by themselves.

    Keras hands targets to a loss of the user's own as they came. Beside outputs of another shape they are broadcast
    there, rows against other rows, if the shape makes a difference, and besides

    - it makes none to whom a target belongs (all rows against all others), or
    - the order of the samples makes one, which with targets in the shape of the outputs it does not (rows of the batch
      against rows of a picture).

    Args:
        lab: The step, held still.
        losses: Its losses.
    """
    doubtful = [_is_in_doubt(loss) for loss in losses]
    if not any(doubtful) or _compares_others(lab, losses):
        return losses
    return tuple(replace(loss, kind="unknown") if doubt else loss for loss, doubt in zip(losses, doubtful, strict=True))


def _is_in_doubt(loss: LossFacts) -> bool:
    same_size = loss.targets.size == loss.predictions.size
    return loss.kind == "own" and same_size and loss.targets.shape != loss.predictions.shape


def _compares_others(lab: KerasLab, losses: Sequence[LossFacts]) -> bool:
    shapes = {loss.targets.shape: loss.predictions.shape for loss in losses if _is_in_doubt(loss)}
    asked = _Asked(lab, shapes)
    # From fresh weights as well: where all units have died meanwhile, nothing makes a difference any more.
    return any(asked.compares_others(start) for start in (Start.PRESENT, Start.FRESH))


class _Asked:
    """The step with its batch as given and changed, each in a laboratory that is set up (and compiles) once.

    Args:
        lab: The step, held still.
        shapes: Of targets, and of the outputs that they belong to.
    """

    def __init__(self, lab: KerasLab, shapes: Mapping[tuple[int, ...], tuple[int, ...]]) -> None:
        self._lab, self._shapes = lab, shapes

    def compares_others(self, start: Start) -> bool:
        """Whether outputs are compared with targets of others, tried from some weights."""
        given, in_shape = self._lab, self._in_shape
        if not _differ(start, given, in_shape):
            return False
        if _differ(start, given, self._rolled_targets) is False:
            return True
        return bool(_differ(start, given, self._rolled_samples)) and (
            _differ(start, in_shape, self._rolled_samples_in_shape) is False
        )

    @cached_property
    def _in_shape(self) -> KerasLab:
        reshaped = _changed(self._lab.failed_batch, self._is_doubtful, self._reshaped)
        return self._lab.on(reshaped)

    @cached_property
    def _rolled_targets(self) -> KerasLab:
        return self._lab.on(_changed(self._lab.failed_batch, self._is_doubtful, _rolled))

    @cached_property
    def _rolled_samples(self) -> KerasLab:
        return self._lab.on(_changed(self._lab.failed_batch, _has_rows, _rolled))

    @cached_property
    def _rolled_samples_in_shape(self) -> KerasLab:
        return self._lab.on(_changed(self._in_shape.failed_batch, _has_rows, _rolled))

    def _is_doubtful(self, name: str, part: Any) -> bool:
        return name.partition("[")[0] == "y" and tuple(part.shape) in self._shapes

    def _reshaped(self, part: Any) -> Any:
        return ops.reshape(part, self._shapes[tuple(part.shape)])


def _rolled(part: Any) -> Any:
    return ops.roll(part, 1, axis=0)


def _has_rows(name: str, part: Any) -> bool:
    return len(part.shape) > 0


def _changed(batch: Any, which: Callable[[str, Any], bool], change: Callable[[Any], Any]) -> Any:
    """The batch with a change to some of its parts."""
    return map_parts(batch, lambda name, part: change(part) if which(name, part) else part)


def _differ(start: Start, one: KerasLab, other: KerasLab) -> bool | None:
    """Whether losses or gradients of the step are not the same; None if it cannot be run."""
    first, second = (lab.run(Variation(start=start)) for lab in (one, other))
    if any(trial.raised or not trial.supported for trial in (first, second)):
        return None
    pairs = zip((*first.losses, *first.grad_norms), (*second.losses, *second.grad_norms), strict=False)
    return any(not math.isclose(some, others, rel_tol=ROUNDING, abs_tol=1e-9) for some, others in pairs)
