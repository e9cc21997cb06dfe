"""A model that does not learn, asked about after the fit: what holds it back is named."""

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.nn import functional as F

from nan_callbacks.lightning import NaNGuard
from tests.lightning_adapter.runs import loader, seed_all, tiny_trainer


def classes():
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(0, 4, (40, 12), generator=generator)
    return [(torch.randn(12, 6, generator=generator) + 3 * torch.eye(4, 6)[each], each) for each in labels]


class Classifier(LightningModule):
    def __init__(self, trains):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))
        self.body = nn.Sequential(nn.Linear(6, 16), nn.ReLU())
        self.head = nn.Linear(16, 4)
        self.trains = trains

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.head(self.body(batch[0] * self.scale)), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.trains(self), lr=1e-3)


def frozen_by_mistake(module):
    for part in (module.body, module.head):
        part.requires_grad_(False)
    return module.parameters()


TRAINS = {
    "frozen": (frozen_by_mistake, True),
    "in no optimizer": (lambda module: [module.scale], True),
    "the head alone": (lambda module: module.head.parameters(), False),
    "everything": (lambda module: module.parameters(), False),
}


@pytest.mark.parametrize("which", TRAINS)
def test_a_head_that_nothing_trains(which):
    trains, accused = TRAINS[which]
    seed_all()
    guard = NaNGuard(strict=True, checkup=False)
    tiny_trainer(guard).fit(Classifier(trains), loader(classes()))
    found = guard.diagnose()
    codes = [verdict.code for verdict in found.verdicts]
    assert ("OPT608" in codes) == accused, found.describe()
    if accused:
        assert found.cause.code == "OPT608"
        assert "head, the last layer with weights, nor 1 of the 1 before it" in found.describe()


def began_with_zeros(module):
    for layer in (module.body[0], module.head):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return [module.body[0].weight, module.head.weight]


def long_fit(trains, **options):
    seed_all()
    guard = NaNGuard(strict=True, checkup=False, **options)
    tiny_trainer(guard, max_epochs=6).fit(Classifier(trains), loader(classes()))
    return guard


def test_a_run_that_learns_nothing_is_noticed_without_being_asked():
    told = []
    guard = long_fit(began_with_zeros, on_incident=told.append)
    (incident,) = guard.incidents
    assert (incident.code, incident.action, incident.step) == ("LOSS406", "observe", 199)
    assert incident.diagnosis.cause.code in ("ACT304", "ACT305")
    assert told == [incident]
    assert guard.summary["codes"] == {"LOSS406": 1}
    assert [each["event"] for each in guard.events if each["event"] != "health"] == ["incident", "diagnosis", "summary"]


@pytest.mark.parametrize("options", [{"diagnose": "never"}, {"diagnose": "first"}])
def test_who_wants_no_diagnosis_gets_none(options):
    codes = [incident.code for incident in long_fit(began_with_zeros, **options).incidents]
    assert codes == ([] if options["diagnose"] == "never" else ["LOSS406"])


def test_a_head_that_is_frozen_is_told_to_those_who_ask_alone():
    assert long_fit(frozen_by_mistake).incidents == ()


@pytest.mark.parametrize("which", ["the head alone", "everything"])
def test_a_run_that_learns_is_not_looked_into(which):
    assert long_fit(TRAINS[which][0]).incidents == ()


def test_a_run_without_a_cause_goes_on_in_silence():
    """Labels that nobody can learn: nothing is proved against the run, so nothing is said."""
    generator = torch.Generator().manual_seed(8)
    noise = [
        (torch.randn(12, 6, generator=generator), torch.randint(0, 4, (12,), generator=generator)) for _ in "x" * 240
    ]
    seed_all()
    guard = NaNGuard(strict=True, checkup=False)
    tiny_trainer(guard).fit(Classifier(lambda module: module.parameters()), loader(noise))
    assert guard.incidents == ()
    assert [event["event"] for event in guard.events] == ["summary"]


def test_looking_into_it_changes_nothing():
    def final(options):
        seed_all()
        module = Classifier(began_with_zeros)
        guard = NaNGuard(strict=True, checkup=False, **options)
        tiny_trainer(guard, max_epochs=6).fit(module, loader(classes()))
        return module.head.weight.detach().clone(), torch.get_rng_state()

    silent, told = final({"diagnose": "never"}), final({})
    assert all(torch.equal(one, other) for one, other in zip(silent, told, strict=True))


class Counts(Classifier):
    def __init__(self):
        super().__init__(began_with_zeros)
        self.visits = np.zeros(1)

    def training_step(self, batch, batch_idx):
        self.visits += 1
        return super().training_step(batch, batch_idx)


def test_arrays_that_a_step_writes_into_are_as_they_would_have_been():
    seed_all()
    module, guard = Counts(), NaNGuard(strict=True)
    tiny_trainer(guard, max_epochs=6).fit(module, loader(classes()))
    assert guard.incidents
    assert module.visits == [240.0]
