"""Batches that a loss is not defined for, and steps that train nothing: told as what they are."""

import copy

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from nan_callbacks.diagnosis.diagnosis import Confidence
from nan_callbacks.lightning import NaNGuard
from tests.lightning_adapter.runs import seed_all, tiny_trainer

AT, STEPS, WORDS = 12, 16, 10


def examined(module, batches):
    seed_all()
    guard = NaNGuard(strict=True, checkup=False)
    tiny_trainer(guard).fit(module, DataLoader(batches, batch_size=None))
    (incident,) = guard.incidents
    return incident.diagnosis


class Plain(LightningModule):
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


# -- nothing to average ----------------------------------------------------------------------------------------------


class Tagger(Plain):
    def __init__(self, loss):
        super().__init__()
        self.net, self.loss = nn.Sequential(nn.Embedding(WORDS, 8), nn.Linear(8, WORDS)), loss

    def training_step(self, batch, batch_idx):
        return self.loss(self.net(batch[0]).flatten(0, 1), batch[1].flatten())


def by_hand(scores, labels):
    costs = F.cross_entropy(scores, labels.clamp(min=0), reduction="none")
    return costs[labels != -100].mean()


def sentences(mark, *, others):
    """Batches of which one has no target that counts, and whose others have some that do not."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for step in range(STEPS):
        words = torch.randint(0, WORDS, (4, 6), generator=generator)
        hidden = torch.rand(words.shape, generator=generator) < 0.5
        made.append((words, torch.where(hidden & others | torch.tensor(step == AT), mark, words)))
    return made


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize(
    ("mark", "loss"), [(-100, F.cross_entropy), (255, nn.CrossEntropyLoss(ignore_index=255)), (-100, by_hand)]
)
def test_a_batch_of_which_every_target_is_left_out(mark, loss, others):
    found = examined(Tagger(loss), sentences(mark, others=others))
    assert (found.cause.code, found.cause.confidence) == ("NAN112", Confidence.CONFIRMED), found.describe()
    assert f"all 24 {'values' if loss is by_hand else 'targets'} of" in found.describe()
    assert f" are {mark}" in found.describe()
    assert "DATA505" not in [verdict.code for verdict in found.verdicts]


def test_classes_without_any_weight_are_averaged_as_little():
    loss = nn.CrossEntropyLoss(weight=torch.tensor([0.0] + [1.0] * (WORDS - 1)))
    batches = [(words, torch.where(torch.tensor(step == AT), 0, words)) for step, (words, _) in
               enumerate(sentences(0, others=False))]  # fmt: skip
    found = examined(Tagger(loss), batches)
    assert (found.cause.code, found.cause.confidence) == ("NAN112", Confidence.CONFIRMED), found.describe()
    assert "or a class of weight 0" in found.describe()


# -- targets longer than their inputs --------------------------------------------------------------------------------


class Listener(Plain):
    def __init__(self, as_lists):
        super().__init__()
        self.net, self.as_lists = nn.Linear(5, WORDS), as_lists

    def training_step(self, batch, batch_idx):
        sounds, tokens, heard, spoken = batch
        scores = F.log_softmax(self.net(sounds), -1).transpose(0, 1)
        if self.as_lists:
            flat = torch.cat([row[:length] for row, length in zip(tokens, spoken, strict=True)])
            return F.ctc_loss(scores, flat, heard.tolist(), spoken.tolist())
        return F.ctc_loss(scores, tokens, heard, spoken)


def recordings(*, repeated):
    generator = torch.Generator().manual_seed(4)
    made = []
    for step in range(STEPS):
        sounds, tokens = torch.randn(6, 12, 5, generator=generator), torch.arange(1, 9).repeat(6, 1)
        heard, spoken = torch.full((6,), 12), torch.randint(3, 6, (6,), generator=generator)
        if step == AT:
            spoken[2] = 8
            tokens[2] = 7 if repeated else tokens[2]
            heard[2] = 12 if repeated else 6
        made.append((sounds, tokens, heard, spoken))
    return made


@pytest.mark.parametrize("as_lists", [False, True])
@pytest.mark.parametrize("repeated", [False, True])
def test_a_target_that_is_longer_than_its_input(repeated, as_lists):
    found = examined(Listener(as_lists), recordings(repeated=repeated))
    assert (found.cause.code, found.cause.confidence) == ("DATA505", Confidence.CONFIRMED), found.describe()
    assert "the target of sample 2 is longer than its input" in found.describe()
    told = "8 tokens, 7 of them like the one before, for an input of 12" if repeated else "8 tokens for an input of 6"
    assert f"Sample 2 has a target of {told} steps" in found.describe()
    assert "zero_infinity=True" in found.describe()


# -- outputs that are no probabilities --------------------------------------------------------------------------------


class Scores(Plain):
    """Ends in a rectifier, or adds up what is one but for rounding."""

    def __init__(self, excess):
        super().__init__()
        self.net, self.excess = nn.Linear(5, 1), excess

    def training_step(self, batch, batch_idx):
        inputs, labels = batch
        made = torch.sigmoid(self.net(inputs)) + torch.where(
            inputs[:, :1] > 9.0, self.excess, -self.net.weight.sum() * 0
        )
        return F.binary_cross_entropy(made.relu(), labels)


@pytest.mark.parametrize(("excess", "expected"), [(0.01, True), (1e-6, False)])
def test_outputs_that_a_loss_refuses_are_no_probabilities(excess, expected):
    generator = torch.Generator().manual_seed(4)
    batches = [(torch.randn(6, 5, generator=generator), torch.ones(6, 1)) for _ in range(STEPS)]
    batches[AT][0][3] = 50.0
    seed_all()
    module, guard = Scores(excess), NaNGuard(strict=True, checkup=False)
    nn.init.constant_(module.net.weight, 1.0)
    with pytest.raises(RuntimeError):
        tiny_trainer(guard).fit(module, DataLoader(batches, batch_size=None))
    found = guard.incidents[0].diagnosis
    assert (found.cause is not None and found.cause.code == "LOSS404") == expected, found.describe()
    assert ("what the model ends in does not keep them between 0 and 1" in found.describe()) == expected


# -- indices into what a layer has made ------------------------------------------------------------------------------


class Messages(nn.Module):
    def __init__(self):
        super().__init__()
        self.send = nn.Linear(3, 4)

    def forward(self, nodes, edges):
        return self.send(nodes)[edges].mean()


class Graph(Plain):
    def __init__(self):
        super().__init__()
        self.messages = Messages()

    def training_step(self, batch, batch_idx):
        return (self.messages(batch["nodes"], batch["edges"]) - 1.0).square()


def test_an_edge_to_a_node_that_is_not_there():
    batches = [{"nodes": torch.ones(8, 3), "edges": torch.arange(8)} for _ in range(STEPS)]
    batches[AT]["edges"][5] = 8
    seed_all()
    guard = NaNGuard(strict=True, checkup=False)
    with pytest.raises(IndexError):
        tiny_trainer(guard).fit(Graph(), DataLoader(batches, batch_size=None))
    cause = guard.incidents[0].diagnosis.cause
    assert (cause.code, cause.confidence) == ("DATA511", Confidence.CONFIRMED)


# -- nothing that is trained -----------------------------------------------------------------------------------------


class Untouched(Plain):
    """Of one layer; what an optimizer holds is chosen by a test."""

    def __init__(self, how):
        super().__init__()
        self.net, self.how, self.kept = nn.Linear(6, 4), how, [nn.Linear(4, 4)]
        if how != "of a copy":
            self.net.requires_grad_(False)

    def training_step(self, batch, batch_idx):
        scores = self.net(batch[0])
        return F.cross_entropy(scores if self.how == "of a copy" else self.kept[0](scores), batch[1])

    def configure_optimizers(self):
        held = {"of a copy": copy.deepcopy(self.net), "in a list": self.net, "in a list that is trained": self.kept[0]}
        return torch.optim.Adam(held[self.how].parameters(), lr=1e-9)


@pytest.mark.parametrize(("how", "told"), [("of a copy", 1), ("in a list", 1), ("in a list that is trained", 0)])
def test_a_run_of_which_nothing_is_trained_is_told_of_unasked(how, told):
    """And none in which the optimizer moves what the module does not know of, be it ever so little."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(0, 4, (40, 12), generator=generator)
    batches = [(torch.randn(12, 6, generator=generator), each) for each in labels]
    seed_all()
    guard = NaNGuard(strict=True, checkup=False)
    tiny_trainer(guard, max_epochs=6).fit(Untouched(how), DataLoader(batches, batch_size=None))
    found = [(each.code, each.diagnosis.cause.code) for each in guard.incidents]
    assert found == [("LOSS406", "OPT608")] * told
