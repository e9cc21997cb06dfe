"""After a replay everything is bit by bit as it was: gradients, random streams, hooks, modes."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as torch_module
from torch.optim import optimizer as torch_optimizer
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.checkpoint import checkpoint

from nan_callbacks.torch.replay import replay
from tests.torch_room.step import Net, make_batch


class Noise(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5) * random.random() + np.random.rand()  # noqa: NPY002


class Reentrant(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=True)


class Raises(nn.Module):
    def forward(self, x):
        raise ValueError("no")


class Fails(nn.Module):
    def forward(self, x):
        return torch.log(x * 0)


def everything(net):
    return {
        "gradients": [None if p.grad is None else (id(p.grad), p.grad.tolist()) for p in net.parameters()],
        "torch": torch.get_rng_state().tolist(),
        "numpy": [*np.random.get_state()[1].tolist(), np.random.get_state()[2]],  # noqa: NPY002
        "python": random.getstate(),
        "forward hooks": len(torch_module._global_forward_hooks) + len(torch_module._global_forward_pre_hooks),
        "always": len(torch_module._global_forward_hooks_always_called),
        "optimizer hooks": len(torch_optimizer._global_optimizer_pre_hooks)
        + len(torch_optimizer._global_optimizer_post_hooks),
        "modes": len(_get_current_dispatch_mode_stack()),
        "backward": torch.autograd.backward,
        "grad mode": torch.is_grad_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "module hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()],
        "parameters": [p.tolist() for p in net.parameters()],
        "post hooks": [p._post_accumulate_grad_hooks for p in net.parameters()],
    }


@pytest.mark.parametrize("whole_step", [False, True])
@pytest.mark.parametrize("layer", [nn.Identity, Noise, Reentrant, Raises, Fails])
@pytest.mark.parametrize("budget", [None, 0.0])
@pytest.mark.parametrize("with_gradients", [False, True])
def test_leaves_no_trace(layer, whole_step, budget, with_gradients):
    net, (x, y) = Net(layer()), make_batch()
    if with_gradients:
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
    fired = []
    for parameter in net.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: fired.append(p))
    before = everything(net)

    def step():
        loss = F.cross_entropy(net(x), y)
        if whole_step:
            loss.backward()
        return loss

    replay(
        step,
        modules={"": net},
        parameters=dict(net.named_parameters()),
        batch=(x, y),
        budget_seconds=budget,
        whole_step=whole_step,
    )

    assert everything(net) == before
    assert whole_step or not fired


def test_leaves_no_trace_of_an_interrupt():
    net = Net(nn.Identity())

    def step():
        torch.rand(3)
        raise KeyboardInterrupt

    before = everything(net)
    with pytest.raises(KeyboardInterrupt):
        replay(step, modules={"": net}, parameters=dict(net.named_parameters()), whole_step=True)
    assert everything(net) == before


def test_two_replays_say_the_same():
    torch.manual_seed(3)
    net, (x, y) = Net(Noise()), make_batch()

    def once():
        return replay(
            lambda: F.cross_entropy(net(x), y), modules={"": net}, parameters=dict(net.named_parameters()), batch=(x, y)
        )

    first, second = once(), once()

    assert (first.loss, first.grad_norm, first.operations) == (second.loss, second.grad_norm, second.operations)
