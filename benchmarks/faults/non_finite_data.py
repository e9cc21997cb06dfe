"""NaN and Inf in inputs and targets: once, now and then, often, and for good."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch

from benchmarks.faults.faulty_run import FaultyRun
from benchmarks.faults.module import Batch, Built, FaultModule, assemble
from benchmarks.faults.tasks import TASKS

ROWS = 2
BREAK_STEP = 300


def happens(step: int, fraction: float) -> bool:
    """Whether a fault that hits this fraction of the batches hits this step; no pattern, but repeatable."""
    generator = torch.Generator().manual_seed(9_000_000 + step)
    return float(torch.rand((), generator=generator)) < fraction


def spoil_rows(batch: Batch, value: float, where: str) -> Batch:
    """Set one feature (or the target) of the first rows to a value."""
    inputs, targets = batch
    if where == "targets":
        targets[:ROWS] = value
    else:
        inputs[:ROWS, inputs.shape[1] // 2] = value
    return inputs, targets


def once(step: int) -> bool:
    return step == BREAK_STEP


def for_good(step: int) -> bool:
    return step >= BREAK_STEP


def share(fraction: float) -> Callable[[int], bool]:
    return partial(happens, fraction=fraction)


def _run(
    name: str, task_name: str, when: Callable[[int], bool], value: float, note: str,
    expected: Literal["skip", "stop"] = "skip", where: str = "inputs",
) -> FaultyRun:  # fmt: skip
    task = TASKS[task_name]

    def corrupt(step: int, batch: Batch) -> Batch:
        return spoil_rows(batch, value, where) if when(step) else batch

    def build(seed: int, with_fault: bool) -> Built:
        torch.manual_seed(seed)
        return assemble(FaultModule(task, task.learning_rate), seed, corrupt if with_fault else None)

    return FaultyRun(name, build, note, expected, task.higher_is_better)


NAN, INF = float("nan"), float("inf")
RUNS = [
    _run("nan_rows_once_cnn_bn_adam", "cnn_bn_adam", once, NAN, "two NaN rows in one batch, at step 300"),
    _run("nan_rows_once_mlp_sgd", "mlp_sgd", once, NAN, "two NaN rows in one batch, at step 300"),
    _run("nan_rows_5pct_cnn_bn_adam", "cnn_bn_adam", share(0.05), NAN, "two NaN rows in 5 % of the batches"),
    _run("nan_rows_40pct_mlp_adam", "mlp_adam", share(0.4), NAN, "two NaN rows in 40 % of the batches"),
    _run("nan_rows_for_good_mlp_sgd", "mlp_sgd", for_good, NAN, "two NaN rows from step 300 on", "stop"),
    _run("inf_rows_5pct_cnn_bn_adam", "cnn_bn_adam", share(0.05), INF, "two Inf rows in 5 % of the batches"),
    _run("inf_rows_5pct_mlp_sgd", "mlp_sgd", share(0.05), INF, "two Inf rows in 5 % of the batches"),
    _run(
        "nan_targets_5pct_regression_adam", "regression_adam", share(0.05), NAN,
        "two NaN targets in 5 % of the batches", where="targets",
    ),
]  # fmt: skip
