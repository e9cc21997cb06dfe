"""Batches that are data classes: graphs, packed molecules, whatever their authors compute when one is made."""

from dataclasses import InitVar, dataclass, field

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nan_callbacks.lightning import NaNGuard
from nan_callbacks.torch.lab_batch import map_tensors, tensors_of
from nan_callbacks.torch.replay import select_rows
from tests.lightning_adapter.runs import seed_all, tiny_trainer


@dataclass(eq=False)
class Packed:
    """Keeps what it makes of the rows, not the rows."""

    rows: InitVar[list]
    x: Tensor = field(init=False)
    count: int = field(init=False, default=0)
    never_set: Tensor = field(init=False)

    def __post_init__(self, rows):
        self.x, self.count = torch.stack(rows), len(rows)

    def to(self, device):
        self.x = self.x.to(device)
        return self


@dataclass(frozen=True)
class Frozen:
    x: Tensor
    half: Tensor = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "half", self.x / 2)


BATCHES = {"packed": lambda: Packed(list(torch.arange(8.0).reshape(4, 2))), "frozen": lambda: Frozen(torch.ones(4, 2))}


@pytest.mark.parametrize("kind", BATCHES)
def test_every_tensor_is_reached_and_the_original_left_alone(kind):
    batch = BATCHES[kind]()
    doubled = map_tensors(batch, lambda name, tensor: tensor * 2)
    assert type(doubled) is type(batch)
    for (name, before), (_, after) in zip(tensors_of(batch), tensors_of(doubled), strict=True):
        assert torch.equal(after, 2 * before), name
    assert next(name for name, _ in tensors_of(batch)) == "batch.x"


@pytest.mark.parametrize("kind", BATCHES)
def test_rows_are_selected_in_fields_that_the_constructor_does_not_take(kind):
    batch = BATCHES[kind]()
    assert torch.equal(select_rows(batch, [1, 3]).x, batch.x[[1, 3]])
    assert len(batch.x) == 4


class OfPacked(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        return self.net(batch.x).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_a_guard_stays_on_its_post_and_names_the_row(tmp_path):
    seed_all()
    rows = list(torch.randn(60, 3))
    rows[42] = torch.full((3,), torch.nan)
    guard = NaNGuard(strict=True, save_batch=tmp_path)
    tiny_trainer(guard).fit(OfPacked(), DataLoader(rows, 4, collate_fn=Packed))
    (incident,) = guard.incidents
    assert (incident.diagnosis.cause.code, incident.diagnosis.guilty_rows) == ("DATA501", (2,))
