"""Evidence from a recorded step: which weights are copies, which labels are used, what is normalised twice."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nan_callbacks.torch.lab_batch import Changes
from nan_callbacks.torch.lab_evidence import alike_weights_of
from nan_callbacks.torch.loss_calls import losses_of
from nan_callbacks.torch.recorder import Recorder


def recorded(module, x):
    recorder = Recorder(module, recorded.__code__)
    with recorder:
        module(x)
    return recorder


class Scaled(nn.Module):
    """A scale of its own, one number per row and column."""

    def __init__(self):
        super().__init__()
        self.scale, self.layer = nn.Parameter(torch.ones(6, 4)), nn.Linear(4, 4)

    def forward(self, x):
        return self.scale * self.layer(x)


class ByHand(nn.Module):
    """A layer of its own, whose units begin alike."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((4, 8), 0.5))

    def forward(self, x):
        return x @ self.weight


def filled(layer):
    for parameter in layer.parameters():
        nn.init.constant_(parameter, 0.1)
    return layer


@pytest.mark.parametrize(
    ("module", "shape", "alike"),
    [
        (lambda: nn.LayerNorm([6, 4]), (8, 6, 4), ()),
        (Scaled, (8, 6, 4), ()),
        (lambda: nn.Sequential(nn.Linear(4, 8), nn.PReLU(8)), (8, 4), ()),
        (ByHand, (8, 4), ("weight",)),
        (lambda: filled(nn.Linear(4, 8)), (8, 4), ("weight",)),
        (lambda: filled(nn.Conv1d(6, 8, 3)), (8, 6, 4), ("weight",)),
        (lambda: filled(nn.GRU(4, 8)), (8, 6, 4), ("weight_ih_l0", "weight_hh_l0")),
    ],
    ids=["scale of a norm", "scale", "slopes", "matrix", "linear", "convolution", "recurrent"],
)
def test_copies_are_looked_for_among_units(module, shape, alike):
    torch.manual_seed(0)
    made = module()
    assert alike_weights_of(made, recorded(made, torch.randn(shape))) == alike


class Ends(nn.Module):
    def __init__(self, end):
        super().__init__()
        self.layer, self.end = nn.Linear(8, 4), end

    def forward(self, x):
        return self.end(self.layer(x))


def shares(x, axis=-1):
    return torch.softmax(x, axis)


@pytest.mark.parametrize(
    ("end", "twice"),
    [
        (lambda x: torch.distributions.Categorical(logits=shares(x)).logits, True),
        (lambda x: F.log_softmax(shares(x, 1), 1), True),
        (lambda x: F.log_softmax(shares(x, 1).reshape(2, 3, 4), -1), True),
        (lambda x: shares(x).logsumexp(-1), False),
        (lambda x: F.log_softmax(shares(x, 1), 0), False),
        (lambda x: F.log_softmax(shares(x).T, -1), False),
        (lambda x: x - x.logsumexp(-1, keepdim=True), False),
    ],
    ids=["categorical", "twice", "in another shape", "soft maximum", "other axis", "turned", "by hand"],
)
def test_shares_are_normalised_twice_along_their_own_axis(end, twice):
    torch.manual_seed(0)
    found = losses_of(recorded(Ends(end), torch.randn(6, 8)), {})
    assert [each.activation for each in found if each.kind == "cross_entropy"] == ["softmax"] * twice


@pytest.mark.parametrize(("steps", "is_time"), [(16, True), (15, False)])
def test_sequences_are_reversed_and_targets_are_not(steps, is_time):
    batch = (torch.arange(4.0 * steps).reshape(4, steps), torch.arange(4.0 * steps).reshape(4, steps))
    x, y = Changes([batch], batch).reverse_time(batch)
    assert torch.equal(x, batch[0].flip(1)) is is_time
    assert torch.equal(y, batch[1])
