"""Samples that are ordinary as they come, and far larger than others once the model has prepared them.

A normalisation divides by nearly zero where a feature was constant in the data that it was adapted to.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nan_callbacks.checkup.facts import InputFacts
from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.evidence import BatchPart, Role
from nan_callbacks.diagnosis.outlying import outlying_rows

FEWEST_ROWS = 4
"""Rows of a batch below which the median row is no yardstick."""


def magnified_parts(inputs: Iterable[InputFacts], rows: int) -> tuple[BatchPart, ...]:
    """What first layers receive of inputs, where that sets rows apart from the batch which were not so before.

    Args:
        inputs: The inputs of a failed batch; of their values, its rows come first.
        rows: Its samples. A layer that receives another number of rows, such as points in time, receives no samples.
    """
    found = []
    for facts in inputs:
        received = facts.received
        if facts.use != "numbers" or received is None or not received.ndim or facts.values.dtype.kind not in "fiu":
            continue
        if not FEWEST_ROWS <= len(received) == rows <= len(facts.values):
            continue
        outlying, ratio = outlying_rows(received, [])
        if not outlying:
            continue  # pictures are large: they are measured once more only if that may tell anything
        large, _ = outlying_rows(facts.values[:rows].astype(np.float64), [])
        if not set(outlying) & set(large):
            name = f"{facts.name}, as {facts.first_layer} receives it,"
            summary = TensorSummary.of(received, name=name)
            found.append(BatchPart(role=Role.INPUT, failed=summary, outlier_rows=outlying, outlier_ratio=ratio))
    return tuple(found)
