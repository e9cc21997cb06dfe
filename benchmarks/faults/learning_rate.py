"""Learning rates that are too high from the first step."""

from __future__ import annotations

import torch

from benchmarks.faults.faulty_run import FaultyRun
from benchmarks.faults.module import Built, FaultModule, assemble
from benchmarks.faults.tasks import TASKS

FACTORS = (10, 30, 100, 1000)
TASK_NAMES = ("mlp_sgd", "mlp_adam", "cnn_bn_adam", "transformer_adam", "lstm_sgd", "regression_sgd")
# Measured over three seeds: these train as well as with the right rate, or (regression) with more noise only.
HARMLESS = {
    ("mlp_adam", 10),
    ("mlp_adam", 30),
    ("cnn_bn_adam", 10),
    ("cnn_bn_adam", 30),
    ("cnn_bn_adam", 100),
    ("transformer_adam", 10),
    ("regression_sgd", 10),
}


def _run(task_name: str, factor: int) -> FaultyRun:
    task = TASKS[task_name]

    def build(seed: int, with_fault: bool) -> Built:
        torch.manual_seed(seed)
        learning_rate = task.learning_rate * (factor if with_fault else 1)
        return assemble(FaultModule(task, learning_rate), seed)

    note = f"learning rate {task.learning_rate * factor:g} where {task.learning_rate:g} is right, from step 0"
    expected = "none" if (task_name, factor) in HARMLESS else "rollback"
    return FaultyRun(f"lr_x{factor}_{task_name}", build, note, expected, task.higher_is_better)


RUNS = [_run(task_name, factor) for task_name in TASK_NAMES for factor in FACTORS]
