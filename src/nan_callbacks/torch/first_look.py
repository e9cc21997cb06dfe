"""The first step of a torch model, recorded on copies of its state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nan_callbacks.torch.call_kinds import weight_of
from nan_callbacks.torch.checkup_facts import FirstLook
from nan_callbacks.torch.hazard_calls import measure
from nan_callbacks.torch.lab import TorchLab
from nan_callbacks.torch.lab_bench import Fed, Hands
from nan_callbacks.torch.layer_facts import measure_activation
from nan_callbacks.torch.recorder import Call, Recorder
from nan_callbacks.torch.replay.left_alone import run_eagerly


def first_look(lab: TorchLab, fed: Fed | None = None) -> FirstLook:
    """Run a batch once, recorded, and differentiate its loss.

    Nothing of it is left behind; an error of the step is a part of the result.

    Args:
        lab: The first step, held still.
        fed: The batch; None: the lab's own.
    """
    return lab.once(lambda fed: _record(lab, fed), fed)


def _record(lab: TorchLab, fed: Fed) -> FirstLook:
    bench = lab.bench
    recorder = Recorder(bench.module, _record.__code__, _measure)
    look = FirstLook(recorder=recorder, batch=fed.batch)
    losses = _Losses()
    with run_eagerly():
        try:
            with recorder:
                if bench.by_hand is not None:
                    bench.by_hand(fed, losses)
                else:
                    losses.add(bench.loss_of(fed))
        except Exception as error:  # the user's own error, which the step will raise as well
            look.raised = f"{type(error).__name__}: {error}"
        look.loss = losses.total
        look.gradients = _gradients(recorder, bench.module, losses.total)
    return look


def _measure(call: Call) -> None:
    measure(call)
    measure_activation(call)


class _Losses(Hands):
    """Takes the losses of a step by hand, and lets it update nothing."""

    def __init__(self) -> None:
        self.total: Tensor | None = None

    def add(self, loss: Tensor | None) -> None:
        if loss is not None and loss.requires_grad:
            self.total = loss if self.total is None else self.total + loss

    def backward(self, loss: Tensor, **options: Any) -> None:
        """In place of ``loss.backward()``."""
        self.add(loss)

    def step(self, optimizer: Any, closure: Any = None) -> Any:
        """In place of ``optimizer.step()``."""
        return None if closure is None else closure()


def _gradients(recorder: Recorder, module: nn.Module, loss: Tensor | None) -> dict[int, Tensor]:
    if loss is None:
        return {}
    results = [call.result for call in recorder.calls if weight_of(call) is not None]
    wanted: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
    wanted += [each for each in results if each is not None and each.requires_grad]
    try:
        found = torch.autograd.grad(loss.sum(), wanted, allow_unused=True)
    except RuntimeError:  # reentrant checkpoints, hooks of the user's own: signals are judged without gradients
        return {}
    return {id(tensor): grad for tensor, grad in zip(wanted, found, strict=True) if grad is not None}
