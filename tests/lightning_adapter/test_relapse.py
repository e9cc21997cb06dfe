"""What was learnt is lost: the run goes back. The same course of the loss with other data is nobody's fault."""

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F

from nan_callbacks.core import Monitor
from nan_callbacks.lightning import NaNGuard
from tests.lightning_adapter.runs import TinyModule, loader, seed_all, tiny_trainer

LOST_AT, STEPS = 90, 200


def batches(harder):
    generator = torch.Generator().manual_seed(4)
    rule = torch.randn(6, 4, generator=generator)
    made = []
    for step in range(STEPS):
        x = torch.randn(32, 6, generator=generator)
        labels = (x @ rule).argmax(1)
        if harder and step >= LOST_AT:
            labels[::4] = (labels[::4] + 1) % 4
        made.append((x, labels))
    return made


class Classifier(TinyModule):
    """Its schedule is over by the time that it loses what it knows."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 4))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step < LOST_AT else 1e-6)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Reloading(pl.Callback):
    """Loads the wrong weights in the middle of a run: those that it began with."""

    def on_train_start(self, trainer, pl_module):
        self.first = {name: value.clone() for name, value in pl_module.state_dict().items()}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == LOST_AT:
            pl_module.load_state_dict(self.first)


def accuracy(module, data):
    hits = [(module.net(x).argmax(1) == labels).float().mean() for x, labels in data]
    return float(torch.stack(hits).mean())


@pytest.mark.parametrize("diagnose", ["on_incident", "never"])
def test_a_run_that_has_lost_what_it_knew_goes_back(diagnose):
    seed_all()
    guard, module = NaNGuard(strict=True, checkup=False, diagnose=diagnose), Classifier()
    data = batches(harder=False)
    tiny_trainer(guard, Reloading()).fit(module, loader(data))
    assert guard.summary["codes"] == {"LOSS407": 1}
    assert (guard.summary["rollbacks"], guard.summary["skipped_steps"]) == (1, 0)
    (incident,) = guard.incidents
    assert incident.action == "rollback"
    assert LOST_AT + 32 < incident.step < LOST_AT + 100
    assert accuracy(module, data[:20]) > 0.9


def test_harder_data_cost_as_much_with_the_last_good_weights(monkeypatch):
    settle, answers = Monitor.settle, []
    monkeypatch.setattr(Monitor, "settle", lambda *given: answers.append(settle(*given)) or answers[-1])
    seed_all()
    guard, module = NaNGuard(strict=True, checkup=False), Classifier()
    tiny_trainer(guard).fit(module, loader(batches(harder=True)))
    assert answers == [None]
    assert guard.summary["incidents"] == 0
    assert guard.summary["lr_scale"] == 1.0


class Annealed(Classifier):
    """A frozen parameter says what the loss is made of; trials with the last good weights leave it as it is."""

    def __init__(self):
        super().__init__()
        self.weight_of_penalty = nn.Parameter(torch.zeros(()), requires_grad=False)

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + self.weight_of_penalty

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if batch_idx == LOST_AT:
            self.weight_of_penalty.fill_(1.5)


def test_what_a_frozen_parameter_makes_of_the_loss_is_no_relapse():
    seed_all()
    guard, module = NaNGuard(strict=True, checkup=False), Annealed()
    tiny_trainer(guard).fit(module, loader(batches(harder=False)))
    assert guard.summary["incidents"] == 0
    assert float(module.weight_of_penalty) == 1.5
