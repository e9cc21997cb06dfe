"""Losses that users wrote: what they make of targets in another shape than that of the outputs, found out by asking."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from keras import ops

from nan_callbacks.checkup.facts import LossFacts
from nan_callbacks.diagnosis.lab import Trial, Variation
from nan_callbacks.keras.lab import KerasLab
from nan_callbacks.keras.lab_batch import map_parts

ROUNDING = 1e-4
"""Relative difference up to which two ways to compute one float32 loss may differ: sums in another order."""


def without_harmless_shapes(lab: KerasLab, losses: tuple[LossFacts, ...]) -> tuple[LossFacts, ...]:
    """The losses; the kind of those is unknown now that bring targets into shape by themselves.

    Keras hands targets to a loss of the user's own as they came. ``(rows,)`` beside ``(rows, 1)`` is broadcast there,
    all rows against all others, if it makes no difference to whom a target belongs, but one which shape it has.

    Args:
        lab: The step, held still.
        losses: Its losses.
    """
    doubtful = [_is_in_doubt(loss) for loss in losses]
    if not any(doubtful) or _compares_all_with_all(lab, losses):
        return losses
    return tuple(replace(loss, kind="unknown") if doubt else loss for loss, doubt in zip(losses, doubtful, strict=True))


def _is_in_doubt(loss: LossFacts) -> bool:
    same_size = loss.targets.size == loss.predictions.size
    return loss.kind == "own" and same_size and loss.targets.shape != loss.predictions.shape


def _compares_all_with_all(lab: KerasLab, losses: Sequence[LossFacts]) -> bool:
    shapes = {loss.targets.shape: loss.predictions.shape for loss in losses if _is_in_doubt(loss)}
    as_given = lab.run(Variation())
    rolled = lab.on(_changed(lab.failed_batch, shapes, lambda part: ops.roll(part, 1, axis=0))).run(Variation())
    if not _ran(as_given, rolled) or _differ(as_given, rolled):
        return False
    shaped = _changed(lab.failed_batch, shapes, lambda part: ops.reshape(part, shapes[tuple(part.shape)]))
    in_shape = lab.on(shaped).run(Variation())
    return _ran(in_shape) and _differ(as_given, in_shape)


def _changed(batch: Any, shapes: dict[tuple[int, ...], tuple[int, ...]], change: Callable[[Any], Any]) -> Any:
    """The batch with a change to the targets of some shapes."""

    def changed(name: str, part: Any) -> Any:
        return change(part) if name.partition("[")[0] == "y" and tuple(part.shape) in shapes else part

    return map_parts(batch, changed)


def _ran(*trials: Trial) -> bool:
    return all(trial.supported and not trial.raised for trial in trials)


def _differ(one: Trial, other: Trial) -> bool:
    """Whether losses or gradients are not the same."""
    pairs = zip((*one.losses, *one.grad_norms), (*other.losses, *other.grad_norms), strict=False)
    return any(not math.isclose(first, second, rel_tol=ROUNDING, abs_tol=1e-9) for first, second in pairs)
