"""A learning rate hundreds of times too high: one rollback finds the rate at which the run trains."""

import torch
from torch import nn
from torch.nn import functional as F

from nan_callbacks.core.events import read_events
from nan_callbacks.lightning import NaNGuard
from tests.lightning_adapter.runs import TinyModule, loader, seed_all, tiny_trainer

RIGHT, STEPS = 0.005, 160


class Classifier(TinyModule):
    def __init__(self, rates):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
        self.rates = rates

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.rates)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def batches():
    generator = torch.Generator().manual_seed(4)
    rule = torch.randn(6, 4, generator=generator)
    inputs = [torch.randn(32, 6, generator=generator) for _ in range(STEPS)]
    return [(x, (x @ rule).argmax(1)) for x in inputs]


def fitted(rates, **settings):
    seed_all()
    guard, module, data = NaNGuard(strict=True, checkup=False, **settings), Classifier(rates), batches()
    tiny_trainer(guard).fit(module, loader(data))
    right = [(module.net(x).argmax(1) == labels).float().mean() for x, labels in data]
    return guard, float(torch.stack(right).mean())


def test_one_rollback_finds_a_rate_that_trains(tmp_path):
    guard, accuracy = fitted(lambda step: 1000 * RIGHT, events_path=tmp_path / "events.jsonl")
    assert guard.summary["rollbacks"] == 1
    assert 1000 * RIGHT * guard.summary["lr_scale"] < 40 * RIGHT
    assert accuracy > 0.8
    (cut,) = [event for event in read_events(tmp_path / "events.jsonl") if event["event"] == "reduce_lr"]
    assert cut["tried"]
    assert cut["lr_scale"] == guard.summary["lr_scale"]


def test_a_warm_up_is_tried_at_the_rate_that_it_had_come_to():
    guard, accuracy = fitted(lambda step: 1000 * RIGHT * min(step / 40, 1.0))
    assert guard.summary["rollbacks"] == 1
    assert accuracy > 0.8


def test_without_diagnoses_the_ladder_keeps_its_own_cuts(tmp_path):
    fitted(lambda step: 1000 * RIGHT, diagnose="never", events_path=tmp_path / "events.jsonl")
    cuts = [event for event in read_events(tmp_path / "events.jsonl") if event["event"] == "reduce_lr"]
    assert [cut["factor"] for cut in cuts[:2]] == [0.5, 0.25]
    assert not any(cut["tried"] for cut in cuts)
