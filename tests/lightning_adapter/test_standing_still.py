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


class Pair(LightningModule):
    """A painter and its judge, each with an optimizer."""

    def __init__(self, holds, kinds):
        super().__init__()
        self.automatic_optimization = False
        self.painter, self.judge = nn.Linear(6, 6), nn.Linear(6, 1)
        self.holds, self.kinds = holds, kinds

    def training_step(self, batch, batch_idx):
        for optimizer, side in zip(self.optimizers(), (1.0, -1.0), strict=True):
            optimizer.zero_grad()
            painted = self.painter(batch[0])
            self.manual_backward(F.l1_loss(painted, -batch[0]) + F.softplus(side * self.judge(painted)).mean())
            optimizer.step()

    def configure_optimizers(self):
        held = zip(self.kinds, self.holds, strict=True)
        return [kind(getattr(self, name).parameters(), lr=1e-5) for kind, name in held]


ADAM, SGD = torch.optim.Adam, torch.optim.SGD


@pytest.mark.parametrize(
    ("holds", "kinds", "accused"),
    [
        (("judge", "judge"), (ADAM, ADAM), True),
        (("painter", "judge"), (ADAM, ADAM), False),
        (("judge", "judge"), (ADAM, SGD), False),
    ],
    ids=["one twice", "each", "one by two kinds in turn"],
)
def test_a_net_whose_optimizer_holds_another_one(holds, kinds, accused):
    seed_all()
    guard = NaNGuard(strict=True, checkup=False)
    tiny_trainer(guard).fit(Pair(holds, kinds), loader(classes()))
    found = guard.diagnose()
    assert ("OPT608" in [verdict.code for verdict in found.verdicts]) == accused, found.describe()
    assert ("no optimizer holds any of painter" in found.describe()) == accused


class Mixture(Classifier):
    """Three hills with one height, place and width each, from a layer that begins with zeros."""

    def __init__(self):
        super().__init__(lambda module: module.parameters())
        self.head = nn.Linear(16, 9)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def training_step(self, batch, batch_idx):
        share, place, width = self.head(self.body(batch[0])).chunk(3, dim=-1)
        hills = torch.distributions.Normal(place, F.softplus(width) + 0.05).log_prob(batch[1][:, None] % 2 * 2.0 - 1)
        return -torch.logsumexp(share.log_softmax(-1) + hills, -1).mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.02)


def test_hills_that_began_alike():
    generator = torch.Generator().manual_seed(5)
    batches = [
        (torch.randn(12, 6, generator=generator), torch.randint(0, 4, (12,), generator=generator)) for _ in "x" * 160
    ]
    seed_all()
    guard = NaNGuard(strict=True, checkup=False)
    tiny_trainer(guard).fit(Mixture(), loader(batches))
    found = guard.diagnose()
    assert "many units of head.weight have the very same weights" in found.describe()
    assert found.cause.code == "ACT305"


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
