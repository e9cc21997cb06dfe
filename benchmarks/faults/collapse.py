"""A short jump of the learning rate throws a good model away; the rate comes back, the model does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from benchmarks.faults.faulty_run import FaultyRun
from benchmarks.faults.module import Batch, Built, FaultModule, assemble
from benchmarks.faults.tasks import TASKS

JUMP_STEP, JUMP_STEPS = 450, 20


class ShortJumpModule(FaultModule):
    """Writes a high learning rate into the optimizer for some steps, then the old one again."""

    jump_factor = 1.0

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> Any:
        factor = {JUMP_STEP: self.jump_factor, JUMP_STEP + JUMP_STEPS: 1.0}.get(batch_idx)
        if factor is not None:
            for group in self.optimizers().param_groups:  # type: ignore[union-attr]
                group["lr"] = self.learning_rate * factor


def _run(task_name: str, factor: float, steps: int) -> FaultyRun:
    task = replace(TASKS[task_name], steps=steps)

    def build(seed: int, with_fault: bool) -> Built:
        torch.manual_seed(seed)
        module = ShortJumpModule(task, task.learning_rate)
        module.jump_factor = factor if with_fault else 1.0
        return assemble(module, seed)

    note = f"learning rate times {factor:g} for {JUMP_STEPS} steps from step {JUMP_STEP}, then as before"
    return FaultyRun(f"collapse_x{factor:g}_{task_name}", build, note, "rollback", task.higher_is_better)


RUNS = [
    _run("transformer_adam", 100, 900),
    _run("transformer_adam", 300, 900),
    _run("mlp_sgd", 100, 900),
    _run("mlp_adam", 300, 900),
]
