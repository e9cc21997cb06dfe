"""Copies of one sample with different labels.

Coarse data hold equal rows by chance, and a noisy outcome may differ among them. Copies count here only if there are
many times more of them than independent columns with the same frequencies would give.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nan_callbacks.checkup.advice import WARNING, notice, rows_in_words, share
from nan_callbacks.checkup.facts import CheckupFacts, LossFacts
from nan_callbacks.checkup.labels import CLASSIFYING, REGRESSING
from nan_callbacks.checkup.notice import Notice

BEYOND_CHANCE = 20.0
"""How many times more pairs of equal rows there must be than chance gives."""

FEWEST_GROUPS = 2
LEAST_SHARE = 0.05
"""Share of the groups of copies that contradict themselves, from which labels are suspicious."""


def contradictions(facts: CheckupFacts) -> Iterator[Notice]:
    """A notice if copies of samples have different labels."""
    for loss in facts.losses:
        targets = loss.all_targets
        if targets is None or loss.kind not in CLASSIFYING | REGRESSING or targets.size == 0 or not targets.ndim:
            continue
        if _predicts_its_own_alphabet(facts, loss):
            continue
        if not any(each.use in ("numbers", "indices") for each in facts.inputs):
            continue
        # All of a sample but its label: what is done in a state is a part of it, too.
        parts = [each.values for each in facts.inputs if each.use != "target" and each.values.ndim]
        arrays = [array for array in parts if len(array) == len(targets) and not np.array_equal(array, targets)]
        if not arrays or not all(array.dtype.kind in "fiub" for array in arrays):
            continue
        yield from _among_copies([array.reshape(len(array), -1) for array in arrays], _labels(targets), loss)


def _predicts_its_own_alphabet(facts: CheckupFacts, loss: LossFacts) -> bool:
    """Whether labels are drawn from what the inputs are made of, as the next letter is: texts go on in many ways."""
    if loss.class_axis is None or not loss.predictions.ndim:
        return False
    classes = loss.predictions.shape[loss.class_axis]
    sizes = {lookup.rows for each in facts.inputs if each.use == "indices" for lookup in each.lookups}
    shapes = [each.received for each in facts.inputs if each.use == "numbers" and each.received is not None]
    sizes |= {array.shape[-1] for array in shapes if array.ndim > 2}
    return classes in sizes


def _labels(targets: NDArray[Any]) -> NDArray[Any]:
    return targets.reshape(len(targets), -1)


def _among_copies(parts: list[NDArray[Any]], labels: NDArray[Any], loss: LossFacts) -> Iterator[Notice]:
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index in range(len(labels)):
        groups[b"".join((part[index] + 0).tobytes() for part in parts)].append(index)  # + 0: -0.0 is 0.0
    copies = [members for members in groups.values() if len(members) > 1]
    pairs = sum(len(members) * (len(members) - 1) / 2 for members in copies)
    if not pairs or pairs < BEYOND_CHANCE * (0.5 * len(labels) ** 2 * 2.0 ** -_bits(parts)):
        return
    # Classes differ or do not; numbers contradict each other if they lie as far apart as any two of them.
    apart = 0.0 if loss.kind in CLASSIFYING else float(np.std(labels.astype(np.float64)))
    torn = [members for members in copies if _differ(labels[members], apart)]
    if len(torn) < FEWEST_GROUPS or len(torn) < LEAST_SHARE * len(copies):
        return
    shown = "; ".join(
        f"{rows_in_words(members, loss.row_numbers)} have the labels "
        f"{', '.join(_shown(labels[each]) for each in members[:4])}"
        for members in torn[:3]
    )
    yield notice(
        "DATA504", "contradictory_copies", WARNING, f"targets of {loss.name}" if loss.name else "targets",
        f"{len(torn)} of {len(copies)} samples that occur more than once ({share(len(torn) / len(copies))}) have "
        f"different labels: {shown}.",
    )  # fmt: skip


def _shown(label: NDArray[Any]) -> str:
    return f"{float(label[0]):g}" if len(label) == 1 else str(int(np.asarray(label, np.float64).argmax()))


def _differ(labels: NDArray[Any], apart: float) -> bool:
    if labels.dtype.kind not in "fiub":
        return bool((labels != labels[:1]).any())
    numbers = labels.astype(np.float64)
    return bool((np.ptp(numbers, axis=0) > apart).any())


def _bits(parts: list[NDArray[Any]]) -> float:
    """Collision entropy of independent columns: 2 to the power of minus this is how often two rows agree by chance."""
    total = 0.0
    for column in (column for part in parts for column in part.T):
        counts = np.unique(column, return_counts=True)[1] / len(column)
        total -= math.log2(float((counts**2).sum()))
    return total
