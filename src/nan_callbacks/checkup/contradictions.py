"""Copies of one sample with different labels.

Coarse data hold equal rows by chance, and a noisy outcome may differ among them. Copies count here only if there are
many times more of them than independent columns with the same frequencies would give.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nan_callbacks.checkup.advice import WARNING, notice, rows_in_words, share
from nan_callbacks.checkup.facts import CheckupFacts, LossFacts
from nan_callbacks.checkup.labels import CLASSIFYING
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
        if targets is None or loss.kind not in CLASSIFYING or not targets.size:
            continue
        arrays = [each.values for each in facts.inputs if each.use in ("numbers", "indices")]
        arrays = [array for array in arrays if len(array) == len(targets)]
        if not arrays or not all(array.dtype.kind in "fiub" for array in arrays):
            continue
        rows = np.concatenate([array.reshape(len(array), -1).astype(np.float64) for array in arrays], axis=1)
        yield from _among_copies(rows, _labels(targets), loss)


def _labels(targets: NDArray[np.generic]) -> NDArray[np.generic]:
    return targets.reshape(len(targets), -1)


def _among_copies(rows: NDArray[np.float64], labels: NDArray[np.generic], loss: LossFacts) -> Iterator[Notice]:
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, row in enumerate(np.ascontiguousarray(rows + 0.0)):
        groups[row.tobytes()].append(index)
    copies = [members for members in groups.values() if len(members) > 1]
    pairs = sum(len(members) * (len(members) - 1) / 2 for members in copies)
    if pairs < BEYOND_CHANCE * (0.5 * len(rows) ** 2 * 2.0 ** -_bits(rows)):
        return
    torn = [members for members in copies if any((labels[each] != labels[members[0]]).any() for each in members)]
    if len(torn) < FEWEST_GROUPS or len(torn) < LEAST_SHARE * len(copies):
        return
    shown = "; ".join(
        f"{rows_in_words(members)} have the labels {', '.join(_shown(labels[each]) for each in members[:4])}"
        for members in torn[:3]
    )
    yield notice(
        "DATA504", "contradictory_copies", WARNING, f"targets of {loss.name}" if loss.name else "targets",
        f"{len(torn)} of {len(copies)} samples that occur more than once ({share(len(torn) / len(copies))}) have "
        f"different labels: {shown}.",
    )  # fmt: skip


def _shown(label: NDArray[np.generic]) -> str:
    return f"{float(label[0]):g}" if len(label) == 1 else str(int(np.asarray(label, np.float64).argmax()))


def _bits(rows: NDArray[np.float64]) -> float:
    """Collision entropy of independent columns: 2 to the power of minus this is how often two rows agree by chance."""
    total = 0.0
    for column in rows.T:
        counts = np.unique(column, return_counts=True)[1] / len(column)
        total -= math.log2(float((counts**2).sum()))
    return total
