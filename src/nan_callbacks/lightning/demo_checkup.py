"""The demo's checkup in Lightning."""

from __future__ import annotations

import torch
from pytorch_lightning import LightningModule, seed_everything
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from nan_callbacks.checkup.notice import CheckupReport
from nan_callbacks.demo.before_the_start import SetUp
from nan_callbacks.lightning.checkup import checkup


class Wines(LightningModule):
    """Two tanh layers and three outputs.

    Args:
        weight_std: Standard deviation of all weights; None: torch's own.
    """

    def __init__(self, weight_std: float | None) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(13, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3))
        for layer in self.net:
            if weight_std is not None and isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=weight_std)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of one batch."""
        features, labels = batch
        return functional.cross_entropy(self.net(features), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def look_over(set_up: SetUp) -> CheckupReport:
    """The checkup's report; see :data:`nan_callbacks.demo.before_the_start.LookOver`."""
    seed_everything(0, verbose=False)
    data = TensorDataset(torch.from_numpy(set_up.features), torch.from_numpy(set_up.labels))
    return checkup(Wines(set_up.weight_std), DataLoader(data, batch_size=32, shuffle=True), strict=True)
