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


def _run(repeat: int) -> FaultyRun:
    task = replace(LONG_MEMORY, make_net=partial(RowReader, identity_rnn, repeat))

    def build(seed: int, with_fault: bool) -> Built:
        torch.manual_seed(seed)
        clipping = {} if with_fault else {"gradient_clip_val": CLIP_NORM}
        return assemble(FaultModule(task, task.learning_rate), seed, None, **clipping)

    note = f"ReLU RNN over {8 * repeat} steps without gradient clipping (healthy twin: norm {CLIP_NORM:g})"
    return FaultyRun(f"unclipped_rnn_{8 * repeat}_steps", build, note, "rollback", task.higher_is_better)


RUNS = [_run(4), _run(8)]
