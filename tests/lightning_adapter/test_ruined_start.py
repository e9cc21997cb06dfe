"""LOSS408: a rate too high ruins a net in its first steps; it begins again from its first weights if that is proved."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nan_callbacks.lightning import NaNGuard
from tests import ruined_start as fault
from tests.lightning_adapter.runs import TinyModule, loader, seed_all, tiny_trainer


class Classifier(TinyModule):
    def __init__(self, rate):
        super().__init__()
        self.rate = rate
        self.table = nn.Embedding(*fault.TABLE)
        sizes = (fault.FEATURES, fault.WIDTH, fault.WIDTH, fault.CLASSES)
        linear = [nn.Linear(*pair) for pair in pairwise(sizes)]
        self.net = nn.Sequential(linear[0], nn.ReLU6(), linear[1], nn.ReLU6(), linear[2])
        table, *rest = (torch.from_numpy(each) for each in fault.weights())
        self.table.weight.data = table.clone()
        for layer, matrix, bias in zip(linear, rest[::2], rest[1::2], strict=True):
            layer.weight.data, layer.bias.data = matrix.T.contiguous(), bias.clone()

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]) + self.table.weight[0, : fault.CLASSES], batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.rate)


def fitted(rate, *, noise=False, guarded=True, **options):
    seed_all()
    x, labels = map(torch.from_numpy, fault.data(noise=noise))
    batches = list(zip(x.split(fault.ROWS), labels.long().split(fault.ROWS), strict=True))
    guard, module = NaNGuard(strict=True, checkup=False, **options), Classifier(rate)
    tiny_trainer(*([guard] if guarded else [])).fit(module, loader(batches))
    hits = [(module.net(x).argmax(1) == labels).float().mean() for x, labels in batches[:20]]
    return guard, module, float(torch.stack(hits).mean())


def test_it_goes_back_to_the_first_weights_and_learns():
    guard, module, accuracy = fitted(fault.RUINOUS)
    assert accuracy > 0.9
    (incident,) = guard.incidents
    assert (incident.code, incident.action, incident.step) == ("LOSS408", "rollback", 199)
    assert incident.diagnosis.cause.code == "OPT601"
    (rolled_back,) = [event for event in guard.events if event["event"] == "rollback"]
    assert rolled_back["restored_step"] == 0
    assert guard.summary["lr_scale"] <= 0.125
    assert module.optimizers().param_groups[0]["lr"] == pytest.approx(fault.RUINOUS * guard.summary["lr_scale"])
    (told,) = [event["message"] for event in guard.events if event["event"] == "incident"]
    assert "steps from the first weights at 0.125 of the learning rate" in told


def test_who_wants_no_trials_gets_none():
    guard, _, accuracy = fitted(fault.RUINOUS, diagnose="never")
    assert guard.incidents == ()
    assert accuracy < 0.5


def test_who_observes_only_is_told():
    guard, _, accuracy = fitted(fault.RUINOUS, on_divergence="observe")
    assert [(each.code, each.action) for each in guard.incidents if each.code == "LOSS408"] == [("LOSS408", "observe")]
    assert guard.summary["rollbacks"] == 0
    assert accuracy < 0.5


@pytest.mark.parametrize("rate", [fault.RIGHT, fault.RUINOUS / 8])
def test_noise_that_cannot_be_learnt_is_left_alone_bit_for_bit(rate):
    """Its loss stands still as well, and the few batches of a trial could be learnt by heart."""
    guard, guarded, _ = fitted(rate, noise=True)
    _, alone, _ = fitted(rate, noise=True, guarded=False)
    assert guard.summary["rollbacks"] == 0
    assert all(torch.equal(one, other) for one, other in zip(guarded.parameters(), alone.parameters(), strict=True))


def test_noise_at_a_ruinous_rate_is_not_begun_again():
    guard, _, _ = fitted(fault.RUINOUS, noise=True)
    assert "LOSS408" not in guard.summary["codes"]
