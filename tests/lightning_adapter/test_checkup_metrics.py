"""What the checkup tells of metrics: nothing, unless the loss is made of them."""

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Metric, R2Score
from torchmetrics.functional import r2_score

import nan_callbacks

DIVISION = "NAN112"


class Unexplained(Metric):
    """A user's own: the share of the variance that is left."""

    def __init__(self):
        super().__init__()
        self.add_state("share", torch.tensor(0.0))

    def update(self, predicted, target):
        self.share = (predicted - target).pow(2).sum() / (target - target.mean()).pow(2).sum()

    def compute(self):
        return self.share


class Regression(LightningModule):
    """A step that measures itself, and may learn from the measure."""

    def __init__(self, metric, *, learns_from_it):
        super().__init__()
        self.net = nn.Linear(5, 1)
        self.metric, self.learns_from_it = metric, learns_from_it

    def training_step(self, batch, batch_idx):
        x, y = batch
        predicted = self.net(x)
        measured = self.metric(predicted, y)
        return 1 - measured if self.learns_from_it else (predicted - y).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-3)


def divisions_told(metric, *, learns_from_it):
    torch.manual_seed(0)
    x = torch.randn(64, 5)
    rows = TensorDataset(x, x.sum(1, keepdim=True) + 0.3 * torch.randn(64, 1))
    model = Regression(metric, learns_from_it=learns_from_it)
    report = nan_callbacks.checkup(model, DataLoader(rows, 16), strict=True)
    assert report.notes == ()
    return [each.code for each in report if each.code == DIVISION]


@pytest.mark.parametrize("metric", [R2Score, lambda: r2_score, Unexplained], ids=["module", "function", "own"])
def test_a_division_inside_of_a_metric_is_no_weak_point_of_the_training(metric):
    assert divisions_told(metric(), learns_from_it=False) == []


def test_it_is_one_once_the_loss_is_the_metric():
    assert divisions_told(r2_score, learns_from_it=True) == [DIVISION]
