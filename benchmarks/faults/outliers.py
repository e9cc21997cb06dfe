"""Finite samples and targets of the wrong scale: a few, in a few batches."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from benchmarks.faults.faulty_run import FaultyRun
from benchmarks.faults.module import Batch, Built, FaultModule, assemble
from benchmarks.faults.tasks import TASKS

ROWS = 2
# One batch soon after the warm-up of any detector, two in a row, and one late.
OUTLIER_STEPS = (180, 300, 301, 450)
EARLY_STEPS = (3, 40)


def scramble(rows: Tensor, factor: float) -> Tensor:
    """A broken sample: pixels out of place and on the wrong scale; the net has no chance to be right."""
    return rows.roll(13, dims=-1).flip(-1) * factor


def _run(
    task_name: str, factor: float, kind: str = "inputs", steps: tuple[int, ...] = OUTLIER_STEPS,
    expected: Literal["none", "skip"] = "skip",
) -> FaultyRun:  # fmt: skip
    task = TASKS[task_name]

    def corrupt(step: int, batch: Batch) -> Batch:
        inputs, targets = batch
        if step not in steps:
            return batch
        if kind == "inputs":
            inputs[:ROWS] = scramble(inputs[:ROWS], factor)
        else:
            (targets if kind == "targets" else inputs)[:ROWS] *= factor
        return inputs, targets

    def build(seed: int, with_fault: bool) -> Built:
        torch.manual_seed(seed)
        return assemble(FaultModule(task, task.learning_rate), seed, corrupt if with_fault else None)

    early = "_early" if steps == EARLY_STEPS else ""
    name = f"outlier_{kind}_x{factor:.0e}{early}_{task_name}".replace("e+0", "e").replace("e+", "e")
    note = f"{kind} of two samples times {factor:g} in the batches {', '.join(map(str, steps))}"
    return FaultyRun(name, build, note, expected, task.higher_is_better)


RUNS = [
    *[_run(name, scale) for name in ("mlp_sgd", "mlp_adam", "cnn_bn_adam") for scale in (1e3, 1e4, 1e6)],
    # Scaled only: a trained net is still right about such a digit, only more certain; hardly any gradient.
    _run("mlp_sgd", 1e4, "scale", expected="none"),
    _run("lstm_sgd", 1e4),
    _run("mlp_sgd", 1e4, steps=EARLY_STEPS),
    _run("cnn_bn_adam", 1e6, steps=EARLY_STEPS),
    _run("regression_sgd", 1e4, "targets"),
    _run("regression_adam", 1e4, "targets"),
    # The square of such a gradient overflows: Adam's second moment stays Inf and the weights stand still.
    _run("regression_adam", 1e20, "targets"),
]
