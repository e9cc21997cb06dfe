"""From one step on the data, the loss or the weights are others: that is what the diagnosis says."""

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F

from nan_callbacks.diagnosis.diagnosis import Confidence
from nan_callbacks.lightning import NaNGuard
from tests.lightning_adapter.runs import TinyModule, loader, seed_all, tiny_trainer

AT = 100


def batches(moved):
    generator = torch.Generator().manual_seed(4)
    made = []
    for step in range(AT + 20):
        x = torch.randn(16, 6, generator=generator)
        y = torch.tanh(x[:, :1] - x[:, 1:2])
        made.append((20.0 + 4.0 * x if moved and step >= AT else x, y))
    return made


class Regression(TinyModule):
    weight_of_penalty = 0.0

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 1))

    def training_step(self, batch, batch_idx):
        x, y = batch
        guess = self.net(x)
        loss = F.mse_loss(guess, y)
        return loss + self.weight_of_penalty * guess.abs().mean() if self.global_step >= AT else loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=3e-3)


class Penalised(Regression):
    weight_of_penalty = 100.0


@pytest.mark.parametrize(("make", "moved", "code"), [(Regression, True, "DATA512"), (Penalised, False, "LOSS405")])
def test_a_change_is_no_explosion(make, moved, code):
    seed_all()
    guard = NaNGuard(strict=True, checkup=False)
    tiny_trainer(guard).fit(make(), loader(batches(moved)))
    first = guard.incidents[0]
    assert (first.step, first.action) == (AT, "skip_step")
    assert [verdict.code for verdict in first.diagnosis.verdicts] == [code], first.diagnosis.describe()
    assert first.diagnosis.cause.confidence is Confidence.CONFIRMED


class Glitch(Regression):
    """The rate of one step has too many zeros."""

    def on_train_batch_start(self, batch, batch_idx):
        self.optimizers().param_groups[0]["lr"] = 3.0 if batch_idx == AT - 1 else 3e-3


class Overwriting(pl.Callback):
    """A callback that is not as harmless as its author thought."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == AT:
            with torch.no_grad():
                for weight in pl_module.parameters():
                    weight.mul_(8.0)


@pytest.mark.parametrize(("make", "others", "code"), [(Glitch, [], "OPT601"), (Regression, [Overwriting()], "OPT609")])
def test_weights_that_were_thrown_off_are_no_explosion_and_no_fault_of_the_batch(make, others, code):
    seed_all()
    guard, module = NaNGuard(strict=True, checkup=False), make()
    tiny_trainer(guard, *others).fit(module, loader(batches(moved=False)))
    first = guard.incidents[0]
    assert (first.step, first.action) == (AT, "skip_step")
    assert first.diagnosis.cause.code == code, first.diagnosis.describe()
    assert first.diagnosis.cause.confidence is Confidence.CONFIRMED
    assert guard.summary["rollbacks"] == 1
    assert all(bool(weight.abs().max() < 4.0) for weight in module.parameters())


def test_without_a_change_neither_is_named():
    seed_all()
    guard = NaNGuard(strict=True, checkup=False)
    spoiled = batches(moved=False)
    spoiled[AT][0][3] = 500.0
    tiny_trainer(guard).fit(Regression(), loader(spoiled))
    assert guard.incidents[0].diagnosis.cause.code == "DATA503"
