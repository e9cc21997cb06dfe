"""float16 mixed precision with a loss scaler: overflows that are its business, and some that are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pytorch_lightning.plugins import MixedPrecision

from benchmarks.faults.faulty_run import FaultyRun
from benchmarks.faults.module import Batch, Built, Corruption, FaultModule, assemble
from benchmarks.faults.tasks import TASKS

START_SCALE = 2.0**12
BREAK_STEP = 300
# Above the largest float16, 65504: the first matrix product of such an input is Inf.
OVERFLOWING_INPUT = 1e6


def mixed_precision(scale: float) -> MixedPrecision:
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2000)
    return MixedPrecision("16-mixed", "cpu", scaler)


def overflow_at(when: Callable[[int], bool]) -> Corruption:
    def corrupt(step: int, batch: Batch) -> Batch:
        if when(step):
            batch[0][:1] = OVERFLOWING_INPUT
        return batch

    return corrupt


def _run(
    name: str, note: str, scale: float, corrupt: Corruption | None,
    expected: Literal["none", "stop"],
) -> FaultyRun:  # fmt: skip
    task = TASKS["mlp_sgd"]

    def build(seed: int, with_fault: bool) -> Built:
        torch.manual_seed(seed)
        plugin = mixed_precision(scale if with_fault else START_SCALE)
        module = FaultModule(task, task.learning_rate)
        return assemble(module, seed, corrupt if with_fault else None, plugins=[plugin])

    return FaultyRun(name, build, note, expected, task.higher_is_better)


def at_break(step: int) -> bool:
    return step == BREAK_STEP


def from_break(step: int) -> bool:
    return step >= BREAK_STEP


def at_every(step: int) -> bool:
    return True


RUNS = [
    _run("fp16_calibration", "first loss scale 2^26: several overflows, then fine", 2.0**26, None, "none"),
    _run("fp16_one_overflow", "one overflow at step 300", START_SCALE, overflow_at(at_break), "none"),
    _run("fp16_overflow_for_good", "overflow from step 300 on", START_SCALE, overflow_at(from_break), "stop"),
    _run("fp16_overflow_always", "overflow at each step", START_SCALE, overflow_at(at_every), "stop"),
]
