"""Models that the tests of `replay` name on the command line."""

import torch
from pytorch_lightning import LightningModule
from torch import nn


class Root(LightningModule):
    """The square root has an infinite slope at zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(3, 2).to(torch.bfloat16)

    def training_step(self, batch, batch_idx):
        return self.net(batch["x"]).float().square().sum(1).sqrt().mean() + self.net.bias.float().square().sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Other(Root):
    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Linear(1, 1)


def linear() -> nn.Module:
    return nn.Linear(3, 2)


def loss(module, batch):
    return torch.log(module(batch).relu()).mean()


NOT_A_MODEL = 3
