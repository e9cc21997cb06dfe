"""Training runs that go wrong, each beside its healthy twin."""

from __future__ import annotations

from benchmarks.faults import (
    collapse,
    learning_rate,
    loss_scale,
    non_finite_data,
    numerics,
    optimizer_made,
    outliers,
    recurrent,
    schedule,
)
from benchmarks.faults.faulty_run import FaultyRun, train

FAMILIES = (
    learning_rate,
    outliers,
    non_finite_data,
    schedule,
    numerics,
    recurrent,
    collapse,
    optimizer_made,
    loss_scale,
)
FAULTY_RUNS: dict[str, FaultyRun] = {run.name: run for family in FAMILIES for run in family.RUNS}

__all__ = ["FAULTY_RUNS", "FaultyRun", "train"]
