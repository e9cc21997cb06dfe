"""What the checkup tells of the signal in layers that read sequences."""

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import nan_callbacks
from nan_callbacks.core.finding import Severity
from nan_callbacks.torch.recorder import Call
from nan_callbacks.torch.signals import signal_in, signal_out, spread

ROWS, STEPS, WIDTH = 64, 6, 32


class Step(LightningModule):
    """A network and a squared error."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def training_step(self, batch, batch_idx):
        x, y = batch
        return (self.net(x) - y).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-3)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def told(net, x=None):
    """Codes of everything but information."""
    x = normal(ROWS, STEPS, 4) if x is None else x
    data = DataLoader(TensorDataset(x, normal(len(x), 1, seed=1)), 32)
    report = nan_callbacks.checkup(Step(net), data, strict=True, ignore=["ENV701"])
    assert report.notes == ()
    return [each.code for each in report if each.severity >= Severity.WARNING]


class Attention(nn.Module):
    """Layers of attention behind each other, over categories whose vectors begin small; steps first."""

    def __init__(self, depth, scale=1.0):
        super().__init__()
        self.table, self.first = nn.Embedding(10, 16), nn.Linear(16, WIDTH)
        self.attention = nn.ModuleList(nn.MultiheadAttention(WIDTH, 2) for _ in range(depth))
        self.between = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(depth))
        self.head = nn.Linear(WIDTH, 1)
        nn.init.uniform_(self.table.weight, -0.25, 0.25)
        with torch.no_grad():
            for each in self.attention:
                each.in_proj_weight *= scale

    def forward(self, x):
        hidden = self.first(self.table(x)).transpose(0, 1)
        for attention, between in zip(self.attention, self.between, strict=True):
            hidden = between(attention(hidden, hidden, hidden)[0])
        return self.head(hidden.mean(0))


class Recurrent(nn.Module):
    """A recurrent layer, steps first or rows first, perhaps with a state that the first step of a row decides."""

    def __init__(self, make=nn.LSTM, batch_first=False, stated=False, gate=1.0, **options):
        super().__init__()
        self.first, self.state = nn.Linear(4, WIDTH), nn.Linear(4, WIDTH)
        self.cell = make(WIDTH, WIDTH, batch_first=batch_first, **options)
        self.head = nn.Linear(WIDTH, 1)
        self.batch_first, self.stated, self.gate = batch_first, stated, gate

    def forward(self, x):
        hidden = self.first(x) * self.gate
        start = torch.tanh(self.state(x[:, 0]))[None] if self.stated else None
        start = (start, start) if self.stated and isinstance(self.cell, nn.LSTM) else start
        out = self.cell(hidden if self.batch_first else hidden.transpose(0, 1), start)[0]
        return self.head(out[:, -1] if self.batch_first else out[-1])


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_attention_over_sequences_with_the_steps_first_is_healthy(depth):
    categories = torch.randint(0, 10, (ROWS, STEPS), generator=torch.Generator().manual_seed(0))
    assert told(Attention(depth), categories) == []


def test_attention_with_small_weights_is_told_with_the_steps_first_too():
    categories = torch.randint(0, 10, (ROWS, STEPS), generator=torch.Generator().manual_seed(0))
    assert "ACT304" in told(Attention(2, scale=0.01), categories)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_healthy_whichever_axis_is_first(make, batch_first):
    assert told(Recurrent(make, batch_first)) == []


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, nn.RNN])
def test_what_a_state_brings_is_no_signal_that_grows(make, batch_first):
    assert "ACT304" not in told(Recurrent(make, batch_first, stated=True, gate=1e-4))


@pytest.mark.parametrize("level", [0.5, 10.0, 1e4])
def test_a_constant_series_is_no_signal_that_shrinks(level):
    net = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    series = torch.full((ROWS, 12), level) + 1e-7 * level * normal(ROWS, 12).sign()
    assert "ACT304" not in told(net, series)


# -- what is measured ------------------------------------------------------------------------------------------------


def call(name, *args):
    return Call(name=name, module="", module_type="", args=args, kwargs={}, place=None, parents={})


SAMPLES = torch.tensor([1.0, -1.0]).repeat(8)
"""What tells 16 samples apart."""


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn_tanh"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_only_samples_are_told_apart_not_steps(name, batch_first):
    steps = torch.arange(5.0)
    x = (SAMPLES[:, None] * 0.5 + steps)[..., None].expand(16, 5, 3)
    x = x if batch_first else x.transpose(0, 1)
    made = call(name, x, (torch.zeros(1, 16, 3),), [], True, 1, 0.0, True, False, batch_first)
    assert signal_in(made)[0] == pytest.approx(0.5)
    assert signal_out(made, x) == pytest.approx(0.5)


def test_the_strongest_of_what_is_received_is_the_signal():
    states = (torch.zeros(1, 16, 3), 2 * SAMPLES[None, :, None].expand(1, 16, 3))
    assert signal_in(call("lstm", torch.ones(16, 5, 3), states, [], True, 1, 0.0, True, False, True)) == (2.0, 2.0)
    query, key = torch.ones(4, 16, 3), 3 * SAMPLES[None, :, None].expand(5, 16, 3)
    assert signal_in(call("multi_head_attention_forward", query, key, key)) == (3.0, 3.0)


def test_packed_sequences_are_measured():
    rows = SAMPLES[:, None].expand(16, 3)
    made = call("lstm", rows, torch.tensor([16]), (torch.zeros(1, 16, 3),) * 2, [], True, 1, 0.0, True, False)
    assert signal_in(made) == (1.0, 1.0)


@pytest.mark.parametrize("axis", [0, None])
@pytest.mark.parametrize("shape", [(3,), (1, 3), (4, 3), (2, 4, 3)])
def test_spread_of_any_shape(shape, axis):
    assert spread(torch.zeros(shape), axis) == 0.0
    assert spread(torch.full(shape, torch.nan), axis) is None
    assert spread(1e30 * normal(*shape), axis) > 1e28
