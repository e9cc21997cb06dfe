"""Finite gradients, non-finite parameters: an epsilon of zero, or one that half precision rounds to zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.faults.faulty_run import FaultyRun
from benchmarks.faults.module import Batch, Built, FaultModule, Task, assemble
from benchmarks.faults.tasks import MLP_ADAM, mlp

UNFREEZE_STEP = 300


class Half(nn.Module):
    """A net that holds its parameters in float16 and answers in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp().half()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.half()).float()


class UnfreezingModule(FaultModule):
    """Trains the head at first; the first layer, whose blank pixels have zero gradients, joins later.

    The first layer has an epsilon of its own, as in fine-tuning scripts with one group per layer.
    """

    epsilon = 1e-8

    def configure_optimizers(self) -> Any:
        first, head = self.net[0], self.net[1:]  # type: ignore[index]
        first.requires_grad_(False)
        groups = [{"params": head.parameters()}, {"params": first.parameters(), "eps": self.epsilon}]
        return torch.optim.Adam(groups, lr=self.learning_rate)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if batch_idx == UNFREEZE_STEP:
            self.net[0].requires_grad_(True)  # type: ignore[index]


def adam_with(epsilon: float) -> Any:
    return lambda parameters, rate: torch.optim.Adam(parameters, lr=rate, eps=epsilon)


def _run(name: str, note: str, task: Task, twin: Task) -> FaultyRun:
    def build(seed: int, with_fault: bool) -> Built:
        torch.manual_seed(seed)
        chosen = task if with_fault else twin
        return assemble(FaultModule(chosen, chosen.learning_rate), seed)

    return FaultyRun(name, build, note, "stop", True)


def _build_unfreezing(seed: int, with_fault: bool) -> Built:
    torch.manual_seed(seed)
    module = UnfreezingModule(MLP_ADAM, MLP_ADAM.learning_rate)
    module.epsilon = 0.0 if with_fault else 1e-8
    return assemble(module, seed)


HALF = replace(MLP_ADAM, make_net=Half)
NO_EPSILON, HALF_TWIN = (replace(t, make_optimizer=adam_with(e)) for t, e in ((MLP_ADAM, 0.0), (HALF, 1e-4)))
UNFREEZE_NOTE = f"a layer with blank inputs joins at step {UNFREEZE_STEP}; its Adam group has eps=0"

RUNS = [
    _run("adam_eps_0", "Adam with eps=0; blank pixels have zero gradients: 0/0", NO_EPSILON, MLP_ADAM),
    _run("adam_eps_underflow_fp16", "eps=1e-8 is 0 in float16 (healthy twin: 1e-4)", HALF, HALF_TWIN),
    FaultyRun("adam_eps_0_unfreeze", _build_unfreezing, UNFREEZE_NOTE, "stop", True),
]
