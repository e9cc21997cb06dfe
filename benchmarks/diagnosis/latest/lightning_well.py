"""Runs that look like the weekly questions and are well: bounded, clipped, masked or normalised as they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.program import LightningRun, enter, healthy
from benchmarks.diagnosis.tables import digits, waves


def batches(*columns: np.ndarray, size: int = 32) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*map(torch.from_numpy, columns)), batch_size=size)


class BoundedVAE(LightningModule):
    """A variational autoencoder with a bounded log-variance; the divergence is switched on little by little."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(64, 16), nn.Linear(8, 64)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        image = batch[0]
        mean, logvar = self.encoder(image).chunk(2, -1)
        logvar = logvar.clamp(-8, 4)
        code = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
        rebuilt = F.binary_cross_entropy_with_logits(self.decoder(code), image, reduction="none").sum(1).mean()
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1).mean()
        return rebuilt + min(1.0, self.global_step / 200) * divergence

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(healthy(), "https://github.com/vanderschaarlab/synthcity/issues/331")
def divergence_switched_on_slowly() -> LightningRun:
    """A VAE with a clamped log-variance and a warm-up of its divergence."""
    return LightningRun(BoundedVAE(), batches(digits(1280)[0]), {"max_epochs": 2})


class Bytes(LightningModule):
    """Bytes go into a batch normalisation first; the loss ignores what nobody labelled."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
        self.criterion = nn.CrossEntropyLoss(ignore_index=255)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.criterion(self.net(batch[0].float()), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


@enter(healthy(), "https://github.com/kenshohara/video-classification-3d-cnn-pytorch/issues/54")
def bytes_into_a_batch_norm() -> LightningRun:
    """Pixels from 0 to 255 behind a BatchNorm1d, some always black, and labels of 255 that the loss ignores."""
    images, labels = digits(1280)
    labels[::17] = 255
    return LightningRun(Bytes(), batches((255 * images).astype("uint8"), labels), {"max_epochs": 2})


class Clipped(LightningModule):
    """An LSTM over long sequences, clipped."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(1, 24, num_layers=2, batch_first=True), nn.Linear(24, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.huber_loss(self.head(self.lstm(batch[0])[0][:, -1]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


@enter(healthy(), "https://github.com/pytorch/pytorch/issues/2623")
def lstm_that_is_clipped() -> LightningRun:
    """A deep LSTM at a lively rate, with gradients clipped to length 1, as every answer recommends."""
    series, following = waves(1600, seed=1401)
    return LightningRun(Clipped(), batches(series, following), {"max_epochs": 1, "gradient_clip_val": 1.0})


class SafePercentages(LightningModule):
    """A percentage error over the days on which something was sold, and a root with an epsilon."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(7, 32), nn.ReLU(), nn.Linear(32, 1), nn.Softplus())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        week, sold = batch
        forecast, some = self.net(week), sold > 0
        share = torch.where(some, (forecast - sold).abs() / torch.where(some, sold, 1.0), 0.0)
        return share.sum() / some.sum().clamp(min=1) + 0.1 * torch.sqrt(F.mse_loss(forecast, sold) + 1e-8)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(healthy(), "https://github.com/alteryx/evalml/pull/1510")
def days_without_sales_are_left_out() -> LightningRun:
    """Many targets are zero, one batch has nothing else, and the percentage error leaves them out."""
    rng = np.random.default_rng(1402)
    week = rng.gamma(2.0, 0.5, (32 * 60, 7)).astype("float32")
    sold = week.mean(1, keepdims=True) * (rng.random((len(week), 1)) < 0.7)
    sold[40 * 32 : 41 * 32] = 0
    return LightningRun(SafePercentages(), batches(week, sold.astype("float32")), {"max_epochs": 1})
