"""Tables whose columns and targets come as they are: the scale is named, and what was scaled to prove it."""

import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nan_callbacks.diagnosis.diagnosis import Confidence
from nan_callbacks.lightning import NaNGuard
from tests.lightning_adapter.runs import seed_all, tiny_trainer


class Prices(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch, batch_idx):
        return F.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def table():
    """Area, year, rooms and condition of houses, and their prices."""
    drawn = torch.randn(512, 4, generator=torch.Generator().manual_seed(0))
    x = drawn * torch.tensor([400.0, 30.0, 2.0, 1.0]) + torch.tensor([1500.0, 1960.0, 5.0, 3.0])
    return x, 150 * x[:, :1] + 8e3 * drawn[:, 3:]


def test_inputs_and_targets_that_only_train_if_both_are_scaled():
    seed_all()
    guard = NaNGuard(strict=True, checkup=False, verbose=False)
    tiny_trainer(guard).fit(Prices(), DataLoader(TensorDataset(*table()), 32))

    found = guard.incidents[0].diagnosis
    assert (found.cause.code, found.cause.confidence) == ("DATA502", Confidence.CONFIRMED), found.describe()
    assert "the targets as well: mean 2" in found.describe()
