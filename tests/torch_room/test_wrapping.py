"""Whole-number arithmetic that goes around the end of its type is told where it is computed with, and only there."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nan_callbacks

BYTES = (torch.arange(32 * 6).reshape(32, 6) * 7 % 250).to(torch.uint8)
TARGET = torch.randn(32, 1, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, prepare):
        super().__init__()
        self.prepare, self.table, self.out = prepare, nn.Embedding(256, 4), nn.Linear(6, 1)

    def forward(self, x):
        return self.prepare(self, x)


def codes(prepare):
    from pytorch_lightning import LightningModule

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net(prepare)

        def training_step(self, batch, batch_idx):
            return F.mse_loss(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    torch.manual_seed(0)
    report = nan_callbacks.checkup(Module(), [(BYTES, TARGET)])
    assert not any("raises an error" in note for note in report.notes), report.notes
    return {notice.code for notice in report.notices if notice.code == "DATA507"}


def scaled(net, x):
    return net.out(x.float() / 128 - 1)


PREPARED = {
    "difference": (lambda net, x: net.out((x - 128).float() / 64), {"DATA507"}),
    "sum": (lambda net, x: net.out((x + x).float() / 128), {"DATA507"}),
    "in float": (scaled, set()),
    "within its range": (lambda net, x: net.out((255 - x).float() / 128), set()),
    "a hash": (lambda net, x: net.out(net.table((x * 31 + 7).long()).mean(-1)), set()),
    "a mask": (lambda net, x: scaled(net, x) * ((x - 200).bool().any(1, keepdim=True)), set()),
    "sparse": (lambda net, x: scaled(net, (x.to_sparse() * 1).to_dense()), set()),
    "mapped": (lambda net, x: scaled(net, torch.func.vmap(lambda row: row * 1)(x)), set()),
}


@pytest.mark.parametrize("how", PREPARED)
def test_bytes(how):
    prepare, expected = PREPARED[how]
    assert codes(prepare) == expected
