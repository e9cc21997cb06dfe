"""An index out of range: of a label, or of what the model looks into its own inputs by."""

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from nan_callbacks.diagnosis.diagnosis import Confidence
from nan_callbacks.lightning import NaNGuard
from nan_callbacks.torch.picking import picking_parts
from nan_callbacks.torch.recorder import Recorder
from tests.lightning_adapter.runs import seed_all, tiny_trainer

AT, STEPS, ROWS, ATOMS = 12, 16, 6, 9


def cause_of(module, batches):
    seed_all()
    guard = NaNGuard(strict=True, checkup=False)
    with pytest.raises((RuntimeError, IndexError)):
        tiny_trainer(guard).fit(module, DataLoader(batches, batch_size=None))
    return guard.incidents[0].diagnosis


class Plain(LightningModule):
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def moved(atoms, bonds):
    start, end = (each[..., None].expand(-1, -1, atoms.shape[-1]) for each in bonds.unbind(-1))
    return torch.zeros_like(atoms).scatter_add(1, end, atoms.gather(1, start))


class Molecules(Plain):
    def __init__(self, loss, *, raw):
        super().__init__()
        self.loss, self.raw = loss, raw
        self.first, self.second = nn.Linear(3, 4), nn.Linear(3 if raw else 4, 1)

    def training_step(self, batch, batch_idx):
        atoms, bonds, wanted = batch
        atoms = moved(atoms if self.raw else torch.relu(self.first(atoms)), bonds)
        return self.loss(self.second(atoms).mean(1), wanted)


def molecules():
    generator = torch.Generator().manual_seed(7)
    made = []
    for step in range(STEPS):
        atoms = torch.randn(ROWS, ATOMS, 3, generator=generator)
        bonds = torch.randint(1, ATOMS, (ROWS, 5, 2), generator=generator)
        if step == AT:
            bonds[2, 3, 1] = ATOMS
        made.append((atoms, bonds, torch.randn(ROWS, 1, generator=generator)))
    return made


@pytest.mark.parametrize("loss", [F.mse_loss, lambda made, wanted: (made - wanted).square().mean()])
@pytest.mark.parametrize("raw", [True, False])
def test_a_bond_to_an_atom_that_is_not_there_is_no_label(loss, raw):
    found = cause_of(Molecules(loss, raw=raw), molecules())
    assert (found.cause.code, found.cause.confidence) == ("DATA511", Confidence.CONFIRMED), found.describe()
    assert found.guilty_rows == (2,)
    assert "batch[1] reaches from 1 to 9; recent batches: 1 to 8" in found.describe()


class Classes(Plain):
    """Cross entropy by hand: the label picks one of the scores."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 4)

    def training_step(self, batch, batch_idx):
        return -F.log_softmax(self.net(batch[0]), -1).gather(1, batch[1]).mean()


def test_a_label_that_picks_a_score_is_a_label():
    generator = torch.Generator().manual_seed(7)
    batches = [
        (torch.randn(8, 3, generator=generator), torch.randint(0, 4, (8, 1), generator=generator)) for _ in "x" * STEPS
    ]
    batches[AT][1][5] = 4
    found = cause_of(Classes(), batches)
    assert (found.cause.code, found.cause.confidence) == ("DATA505", Confidence.CONFIRMED), found.describe()


class Orders(Plain):
    """Labels that the step computes from what is no part of a pair, beside an index that may grow."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 4)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch["x"][batch["rows"]]), (batch["price"] / 10).long())


def test_an_index_that_has_grown_is_not_to_blame_for_a_label():
    generator = torch.Generator().manual_seed(7)
    batches = []
    for _ in range(STEPS):
        rows = torch.randint(0, 6, (8,), generator=generator)
        prices = 39 * torch.rand(8, generator=generator)
        batches.append({"x": torch.randn(8, 3, generator=generator), "rows": rows, "price": prices})
    batches[AT]["rows"][5], batches[AT]["price"][5] = 7, 45.0
    found = cause_of(Orders(), batches)
    assert found.cause.code == "DATA505", found.describe()


class Shelf(Plain):
    """Takes from its inputs by an index that it computes, and compares scores with whole labels."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 4)

    def training_step(self, batch, batch_idx):
        rows = batch[0][:, :1].abs().round().long().expand(-1, 3)
        return F.cross_entropy(self.net(batch[0].gather(0, rows)), batch[1])


def test_where_all_labels_are_as_ever_none_was_looked_up_in_vain():
    generator = torch.Generator().manual_seed(7)
    batches = [
        (torch.randn(8, 3, generator=generator), torch.randint(0, 4, (8,), generator=generator)) for _ in "x" * STEPS
    ]
    batches[AT][0][5, 0] = 9.0
    codes = [verdict.code for verdict in cause_of(Shelf(), batches).verdicts]
    assert "DATA505" not in codes
    assert "DATA511" in codes


FEATURES, LABELS, WEIGHT = torch.ones(4, 3), torch.tensor([0, 1, 2, 0]), nn.Parameter(torch.ones(5, 3))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (lambda x, i: F.linear(x, WEIGHT)[i], set()),
        (lambda x, i: F.linear(F.linear(x, WEIGHT)[i], nn.Parameter(torch.ones(2, 5))), {"batch['i']"}),
        (lambda x, i: F.linear(x[i], WEIGHT), {"batch['i']"}),
        (lambda x, i: F.linear(x[i.view(-1, 1) + 1 - 1], WEIGHT), {"batch['i']"}),
        (lambda x, i: F.linear(x, WEIGHT).gather(1, i.view(-1, 1)) * x[:, 0][i], set()),
        (lambda x, i: F.linear(x, WEIGHT) * torch.zeros(4, 5).scatter(1, i.view(-1, 1), x[:, :1]), set()),
        (lambda x, i: x[i.argsort()], set()),
        (lambda x, i: i[x[:, 0].long()], set()),
        (lambda x, i: F.linear(torch.eye(3)[i], WEIGHT), set()),
        (lambda x, i: F.linear(x[i == 0], WEIGHT), set()),
        (lambda x, i: F.embedding(i, WEIGHT), set()),
    ],
    ids=[
        "scores",
        "hidden",
        "inputs",
        "shifted",
        "weights",
        "soft labels",
        "order",
        "computed",
        "one of n",
        "mask",
        "table",
    ],
)
def test_what_picks_for_a_layer(step, expected):
    recorder = Recorder(nn.Identity(), test_what_picks_for_a_layer.__code__)
    batch = {"x": FEATURES, "i": LABELS}
    with recorder:
        step(FEATURES, LABELS)
    assert picking_parts(recorder, batch) == expected
