"""What the checkup tells of losses that are likelihoods of torch's distributions."""

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import distributions, nn
from torch.nn.functional import softplus
from torch.utils.data import DataLoader

import nan_callbacks

SERIES, STEPS = 8, 6


class Step(LightningModule):
    """Parameters of a distribution, and a loss of them."""

    def __init__(self, loss):
        super().__init__()
        self.net, self.loss = nn.Linear(5, 3), loss

    def training_step(self, batch, batch_idx):
        return self.loss(self.net(batch["x"]), batch["target"])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-3)


def told(loss, *shape):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    rows = [
        {"x": torch.randn(5, generator=generator), "target": torch.randn(*shape, generator=generator)}
        for _ in range(8 * SERIES)
    ]
    report = nan_callbacks.checkup(Step(loss), DataLoader(rows, SERIES), strict=True)
    assert report.notes == ()
    return [each.code for each in report if each.code == "DATA508"]


def scale(out):
    return softplus(out[:, 1]) + 0.1


OVER_SERIES = {
    "low rank": lambda out: distributions.LowRankMultivariateNormal(out[:, 0], out[:, 2:], scale(out)),
    "covariance": lambda out: distributions.MultivariateNormal(out[:, 0], torch.diag(scale(out))),
    "independent": lambda out: distributions.Independent(distributions.Normal(out[:, 0], scale(out)), 1),
    "normal": lambda out: distributions.Normal(out[:, 0], scale(out)),
    "laplace": lambda out: distributions.Laplace(out[:, 0], scale(out)),
}


@pytest.mark.parametrize("make", OVER_SERIES)
def test_a_distribution_over_all_series_is_healthy(make):
    assert told(lambda out, y: -OVER_SERIES[make](out).log_prob(y.T).mean(), STEPS) == []


@pytest.mark.parametrize("make", ["normal", "laplace"])
def test_every_row_beside_the_distribution_of_every_other_is_told(make):
    assert told(lambda out, y: -OVER_SERIES[make](out).log_prob(y).mean(), 1) == ["DATA508"]


@pytest.mark.parametrize("loss", [lambda out, y: (y.T - out[:, 0]) ** 2, lambda out, y: (out[:, 0] - y.T) ** 2])
def test_a_difference_of_ones_own_is_told_as_before(loss):
    assert told(lambda out, y: loss(out, y).mean(), STEPS) == ["DATA508"]
