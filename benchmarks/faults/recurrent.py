"""A vanilla recurrent network on long sequences, with and without gradient clipping."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from benchmarks.faults.faulty_run import FaultyRun
from benchmarks.faults.module import Built, FaultModule, assemble
from benchmarks.faults.tasks import MLP_SGD, RowReader

# Found by trial: with this norm and rate the clipped net learns at both lengths, the unclipped one does not.
CLIP_NORM = 1.0
LONG_MEMORY = replace(MLP_SGD, learning_rate=0.01, steps=900)


def identity_rnn() -> nn.Module:
    """ReLU cells whose recurrent weights start at the identity, as in Le, Jaitly and Hinton (2015)."""
    cell = nn.RNN(8, 32, nonlinearity="relu", batch_first=True)
    nn.init.eye_(cell.weight_hh_l0)
    with torch.no_grad():
        cell.weight_ih_l0.mul_(0.1)
        cell.bias_ih_l0.zero_()
        cell.bias_hh_l0.zero_()
    return cell


class LateUnclippedModule(FaultModule):
    """Clips in its own hook, but for the steps from `unclipped_from` on."""

    unclipped_from = 10**9

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if self.trainer.global_step < self.unclipped_from:
            self.clip_gradients(optimizer, CLIP_NORM, "norm")


def _run(repeat: int, unclipped_from: int) -> FaultyRun:
    task = replace(LONG_MEMORY, make_net=partial(RowReader, identity_rnn, repeat))

    def build(seed: int, with_fault: bool) -> Built:
        torch.manual_seed(seed)
        module = LateUnclippedModule(task, task.learning_rate)
        if with_fault:
            module.unclipped_from = unclipped_from
        return assemble(module, seed)

    length = 8 * repeat
    note = f"ReLU RNN over {length} steps, gradients not clipped from step {unclipped_from} (else: norm {CLIP_NORM:g})"
    late = f"_from_{unclipped_from}" if unclipped_from else ""
    return FaultyRun(f"unclipped_rnn_{length}_steps{late}", build, note, "rollback", task.higher_is_better)


RUNS = [_run(4, 0), _run(8, 0), _run(4, 300), _run(8, 300)]
