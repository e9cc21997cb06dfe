"""Learning rates that are right at first: a warm-up or one-cycle peak too high, or a jump in mid-run."""

from __future__ import annotations

import math
from typing import Any

import torch

from benchmarks.faults.faulty_run import FaultyRun
from benchmarks.faults.module import Batch, Built, FaultModule, assemble
from benchmarks.faults.tasks import TASKS

WARMUP_STEPS = 200
JUMP_STEP = 300


def warmup(peak: float, step: int) -> float:
    """Linear from 1 % of the peak to the peak, then constant."""
    return peak * (0.01 + 0.99 * min(1.0, step / WARMUP_STEPS))


def one_cycle(peak: float, total: int, step: int) -> float:
    """Cosine up to the peak at 30 % of the run and down to nothing: one-cycle (Smith and Topin, 2018)."""
    rise = 0.3 * total
    position = step / rise if step < rise else 1 - (step - rise) / (total - rise)
    return peak * (0.04 + 0.96 * (1 - math.cos(math.pi * max(0.0, position))) / 2)


class JumpModule(FaultModule):
    """Writes a new learning rate into the optimizer, once or (a hand-made schedule) before every step."""

    jump_factor = 1.0
    every_step = False

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> Any:
        if batch_idx == JUMP_STEP or (self.every_step and batch_idx > JUMP_STEP):
            for group in self.optimizers().param_groups:  # type: ignore[union-attr]
                group["lr"] = self.learning_rate * self.jump_factor


def _jump(task_name: str, factor: int, every_step: bool = False) -> FaultyRun:
    task = TASKS[task_name]

    def build(seed: int, with_fault: bool) -> Built:
        torch.manual_seed(seed)
        module = JumpModule(task, task.learning_rate)
        module.jump_factor, module.every_step = factor if with_fault else 1, every_step
        return assemble(module, seed)

    how, kind = ("written at every step", "rewritten") if every_step else ("written once", "jump")
    note = f"learning rate times {factor} from step {JUMP_STEP}, {how}"
    return FaultyRun(f"lr_{kind}_x{factor}_{task_name}", build, note, "rollback", task.higher_is_better)


def _scheduled(kind: str, task_name: str, peak: int) -> FaultyRun:
    task = TASKS[task_name]

    def build(seed: int, with_fault: bool) -> Built:
        torch.manual_seed(seed)
        height = peak if with_fault else 1

        def factor(step: int) -> float:
            return warmup(height, step) if kind == "warmup" else one_cycle(height, task.steps, step)

        return assemble(FaultModule(task, task.learning_rate, factor), seed)

    note = f"{kind.replace('_', '-')} schedule whose peak is {peak} times too high"
    return FaultyRun(f"lr_{kind}_x{peak}_{task_name}", build, note, "rollback", task.higher_is_better)


RUNS = [
    *[_jump(name, 100) for name in ("mlp_sgd", "mlp_adam", "transformer_adam", "lstm_sgd", "regression_sgd")],
    _jump("mlp_sgd", 10),
    # A rollback alone undoes a jump that was written once; here only a cut that survives the next write helps.
    _jump("mlp_sgd", 30, every_step=True),
    _jump("transformer_adam", 30, every_step=True),
    _scheduled("warmup", "mlp_sgd", 30),
    _scheduled("warmup", "transformer_adam", 30),
    _scheduled("warmup", "regression_sgd", 100),
    _scheduled("one_cycle", "mlp_sgd", 30),
    _scheduled("one_cycle", "transformer_adam", 30),
    _scheduled("one_cycle", "lstm_sgd", 30),
]
