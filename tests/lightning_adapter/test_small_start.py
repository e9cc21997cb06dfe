"""Weights that begin tiny grow manyfold before the loss has anything to show for it: that is how such a run begins."""

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector
from torch.utils.data import DataLoader, TensorDataset

from nan_callbacks.lightning import NaNGuard
from tests.lightning_adapter.runs import tiny_trainer

STEPS = 64


class Side(LightningModule):
    def __init__(self, rng):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
        for parameter in self.net.parameters():
            drawn = 1e-3 * rng.normal(size=tuple(parameter.shape)[::-1])
            parameter.data = torch.tensor(np.ascontiguousarray(drawn.T), dtype=torch.float32)

    def training_step(self, batch, batch_idx):
        return F.binary_cross_entropy_with_logits(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.05)


def test_a_run_on_single_samples_from_tiny_weights_is_left_alone():
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(STEPS, 8)), dtype=torch.float32)
    y = (x[:, :2].sum(1, keepdim=True) > 0).float()
    module, guard = Side(rng), NaNGuard(strict=True, checkup=False)
    before = parameters_to_vector(module.net.parameters()).norm().item()
    tiny_trainer(guard).fit(module, DataLoader(TensorDataset(x, y)))
    assert guard.incidents == ()
    after = parameters_to_vector(module.net.parameters()).norm().item()
    assert after > 4.0 * before, "the weights must have grown for the test to mean anything"
