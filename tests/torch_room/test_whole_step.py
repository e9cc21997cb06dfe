"""Steps that differentiate and update by themselves, as in manual optimisation."""

import torch
import torch.nn.functional as F
from torch import nn

from nan_callbacks.diagnosis.origin import OriginKind, Phase
from nan_callbacks.torch.replay import replay
from tests.torch_room.step import Net, make_batch, marked, origin_of


def replay_whole(net, step):
    return replay(step, modules={"": net}, parameters=dict(net.named_parameters()), batch=make_batch(), whole_step=True)


def test_several_losses_and_optimizers():
    net, critic, (x, y) = Net(nn.Identity()), nn.Linear(4, 1), make_batch()
    first, second = torch.optim.SGD(net.parameters(), 0.1), torch.optim.Adam(critic.parameters())

    def step():
        first.zero_grad()
        F.cross_entropy(net(x), y).backward()
        first.step()
        second.zero_grad()
        torch.log(-critic(net(x)).abs() - 1).mean().backward()  # @second loss
        second.step()

    result = replay_whole(net, step)

    assert (origin_of(result).operation, origin_of(result).phase) == ("log", Phase.FORWARD)
    assert marked(result) == "second loss"


def test_a_gradient_that_was_cleared_at_the_end_is_seen():
    class Spread(nn.Module):
        def forward(self, x):
            return x + (x * 0).pow(2).sum(-1, keepdim=True).sqrt()  # @cleared gradient

    net, (x, y) = Net(Spread()), make_batch()
    optimizer = torch.optim.SGD(net.parameters(), 0.0)

    def step():
        F.cross_entropy(net(x), y).backward()
        optimizer.zero_grad()

    result = replay_whole(net, step)

    assert (origin_of(result).operation, origin_of(result).phase) == ("sqrt", Phase.BACKWARD)
    assert origin_of(result).module == "body.1"
    assert marked(result) == "cleared gradient"
    assert "first.weight" in result.non_finite_gradients


def test_an_optimizer_that_makes_a_nan_of_finite_gradients():
    net, (x, y) = Net(nn.Identity()), make_batch()
    optimizer = torch.optim.Adam(net.parameters(), eps=0.0)

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y) * 0
        loss.backward()
        optimizer.step()  # @optimizer
        return loss.detach()

    result = replay_whole(net, step)

    assert (origin_of(result).kind, origin_of(result).phase) == (OriginKind.OPERATION, Phase.OPTIMIZER)
    assert origin_of(result).operation == "divide"
    assert marked(result) == "optimizer"
    assert result.loss == 0.0


def test_a_gradient_penalty_inside_of_the_forward_pass():
    net, (x, y) = Net(nn.Identity()), make_batch()

    def step():
        points = torch.zeros_like(x).requires_grad_()
        score = (net(points) * points.pow(2).sum(-1, keepdim=True).sqrt()).sum()  # @penalty
        (slope,) = torch.autograd.grad(score, points, create_graph=True)
        return slope.norm()

    result = replay(step, modules={"": net}, parameters=dict(net.named_parameters()), batch=(x, y))

    assert origin_of(result).operation == "sqrt"
    assert marked(result) == "penalty"


def test_a_healthy_step_is_told_to_be_healthy():
    net, (x, y) = Net(nn.Identity()), make_batch()
    optimizer = torch.optim.AdamW(net.parameters())

    def step():
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    result = replay_whole(net, step)

    assert not result.reproduced
    assert "not reproduced" in result.note
    assert result.loss is not None
