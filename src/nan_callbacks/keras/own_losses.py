"""Losses that users wrote: what they make of targets in another shape than that of the outputs, found out by asking."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from keras import ops

from nan_callbacks.checkup.facts import LossFacts
from nan_callbacks.diagnosis.lab import Start, Trial, Variation
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

    def is_doubtful(name: str, part: Any) -> bool:
        return name.partition("[")[0] == "y" and tuple(part.shape) in shapes

    return any(_compares_others_from(start, lab, is_doubtful, shapes) for start in (Start.PRESENT, Start.FRESH))


def _compares_others_from(
    start: Start,
    lab: KerasLab,
    is_doubtful: Callable[[str, Any], bool],
    shapes: Mapping[tuple[int, ...], tuple[int, ...]],
) -> bool:
    """From fresh weights as well: where all units have died meanwhile, nothing makes a difference any more."""

    def differ(one: Any, other: Any) -> bool | None:
        trials = [lab.on(batch).run(Variation(start=start)) for batch in (one, other)]
        return _differ(*trials) if _ran(*trials) else None

    given = lab.failed_batch
    in_shape = _changed(given, is_doubtful, lambda part: ops.reshape(part, shapes[tuple(part.shape)]))
    if not differ(given, in_shape):
        return False
    if differ(given, _changed(given, is_doubtful, _rolled)) is False:
        return True
    return bool(differ(given, _changed(given, _has_rows, _rolled))) and (
        differ(in_shape, _changed(in_shape, _has_rows, _rolled)) is False
    )


def _rolled(part: Any) -> Any:
    return ops.roll(part, 1, axis=0)


def _has_rows(name: str, part: Any) -> bool:
    return len(part.shape) > 0


def _changed(batch: Any, which: Callable[[str, Any], bool], change: Callable[[Any], Any]) -> Any:
    """The batch with a change to some of its parts."""
    return map_parts(batch, lambda name, part: change(part) if which(name, part) else part)


def _ran(*trials: Trial) -> bool:
    return all(trial.supported and not trial.raised for trial in trials)


def _differ(one: Trial, other: Trial) -> bool:
    """Whether losses or gradients are not the same."""
    pairs = zip((*one.losses, *one.grad_norms), (*other.losses, *other.grad_norms), strict=False)
    return any(not math.isclose(first, second, rel_tol=ROUNDING, abs_tol=1e-9) for first, second in pairs)
