"""Ways in which a batch can be wrong."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tests.conformance.tasks import Array, Batch

Fault = Callable[[Batch], Batch]


def _changed(array: Array, change: Callable[[Array], None]) -> Array:
    array = array.copy()
    change(array)
    return array


def input_value(value: float, position: tuple[int, ...]) -> Fault:
    """One value of the first input is replaced."""
    return lambda batch: replace(
        batch, inputs=(_changed(batch.inputs[0], lambda x: x.__setitem__(position, value)), *batch.inputs[1:])
    )


def target_value(value: float) -> Fault:
    """One value of the target is replaced."""
    return lambda batch: replace(batch, target=_changed(batch.target, lambda y: y.__setitem__((2, 0), value)))


def all_targets(value: float) -> Fault:
    """The target is the same large number for every sample."""
    return lambda batch: replace(batch, target=np.full_like(batch.target, value))


def inputs_times(factor: float) -> Fault:
    """The first input in another unit."""
    return lambda batch: replace(batch, inputs=(batch.inputs[0] * np.float32(factor), *batch.inputs[1:]))


def zero_row(batch: Batch) -> Batch:
    """One sample is zero, where the root has no slope: the loss stays finite."""
    return input_value(0.0, (2,))(batch)


def impossible_class(batch: Batch) -> Batch:
    """One target probability is zero: p log p reads NaN, and no gradient depends on it."""
    return replace(batch, target=_changed(batch.target, lambda p: p.__setitem__(2, np.float32([0.0, 0.5, 0.5]))))


def fully_masked(batch: Batch) -> Batch:
    """One sample's mask hides all of its positions: the softmax of nothing."""
    mask = _changed(batch.inputs[1], lambda m: m.__setitem__(3, -np.inf))
    return replace(batch, inputs=(batch.inputs[0], mask))
