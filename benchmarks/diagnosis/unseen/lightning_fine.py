"""Trainings that look risky and are not: negative losses, duels, undefined metrics, large batches, steep starts."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import LightningRun, enter, healthy
from benchmarks.diagnosis.tables import digits, regression


class Pendulum(LightningModule):
    """Damping and stiffness of an oscillator, by integrating it and comparing with what was seen."""

    def __init__(self) -> None:
        super().__init__()
        self.log_stiffness, self.damping = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.tensor(0.0))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        place, speed, seen = batch[0][:, 0], batch[0][:, 1], batch[1]
        path = []
        for _ in range(30):
            speed = speed - 0.1 * (self.log_stiffness.exp() * place + self.damping * speed)
            place = place + 0.1 * speed
            path.append(place)
        return 100 * F.mse_loss(torch.stack(path, 1), seen)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.03)


@enter(
    healthy(),
    "https://github.com/rtqichen/torchdiffeq/issues/184",
)
def pendulum_with_a_wrong_start() -> LightningRun:
    """Parameters of a simulation start far off: steep gradients over 30 steps, which shrink as it fits."""
    rng = np.random.default_rng(501)
    start = rng.normal(size=(16 * 140, 2)).astype("float32")
    place, speed, path = start[:, 0], start[:, 1], []
    for _ in range(30):
        speed = speed - 0.1 * (1.6 * place + 0.3 * speed)
        place = place + 0.1 * speed
        path.append(place)
    seen = np.stack(path, 1) + 0.02 * rng.normal(size=(len(start), 30))
    run = {"max_epochs": 1, "gradient_clip_val": 500.0}
    return LightningRun(Pendulum(), in_order(start, seen.astype("float32"), size=16), run)


class Spread(LightningModule):
    """Mean and deviation of a target; the deviation has a floor."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        mean, raw = self.net(batch[0]).chunk(2, -1)
        return F.gaussian_nll_loss(mean, batch[1], F.softplus(raw) ** 2 + 1e-5)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    healthy(),
    "https://github.com/chainer/chainer/issues/5440",
    "https://github.com/cornellius-gp/gpytorch/issues/1264",
    "https://github.com/baegwangbin/surface_normal_uncertainty/issues/7",
)
def density_above_one() -> LightningRun:
    """A Gaussian likelihood with small deviations: the loss crosses zero and goes on falling, as it should."""
    rng = np.random.default_rng(502)
    x = rng.normal(size=(32 * 200, 4)).astype("float32")
    y = (0.5 * x[:, :1] - 0.2 * x[:, 1:2] + 0.02 * rng.normal(size=(len(x), 1))).astype("float32")
    return LightningRun(Spread(), in_order(x, y, size=32), {"max_epochs": 1})


class Duel(LightningModule):
    """A generator of points on a ring against a discriminator."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
        self.judge = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        (real,) = batch
        of_generator, of_judge = self.optimizers()  # type: ignore[misc]
        fake = self.generator(torch.randn(len(real), 4))
        caught = F.softplus(-self.judge(real)).mean() + F.softplus(self.judge(fake.detach())).mean()
        of_judge.zero_grad()
        self.manual_backward(caught)
        of_judge.step()
        fooled = F.softplus(-self.judge(fake)).mean()
        of_generator.zero_grad()
        self.manual_backward(fooled)
        of_generator.step()
        self.log("loss", fooled)

    def configure_optimizers(self) -> Any:
        parts = (self.generator, 2e-3), (self.judge, 4e-3)
        return [torch.optim.Adam(part.parameters(), lr=rate, betas=(0.5, 0.999)) for part, rate in parts]


@enter(
    healthy(),
    "https://github.com/david-gpu/srez/issues/17",
    "https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix/issues/335",
    "https://github.com/RoyalVane/CLAN/issues/13",
)
def duel_over_a_ring() -> LightningRun:
    """Generator and discriminator chase each other: neither loss settles, and that is how it is."""
    angle = np.random.default_rng(503).uniform(0, 2 * np.pi, 48 * 200)
    ring = 2 * np.stack([np.cos(angle), np.sin(angle)], 1)
    return LightningRun(Duel(), in_order(ring.astype("float32"), size=48), {"max_epochs": 1})


class Alarms(LightningModule):
    """Rare alarms; precision and recall of each batch are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        signals, alarm = batch
        score = self.net(signals)
        hit = ((score > 0) * alarm).sum()
        self.log("precision", hit / (score > 0).sum())
        self.log("recall", hit / alarm.sum())
        return F.binary_cross_entropy_with_logits(score, alarm, pos_weight=torch.tensor(8.0))

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


@enter(
    healthy(),
    "https://github.com/joaopalotti/trectools/pull/25",
    "https://github.com/scikit-learn/scikit-learn/issues/29521",
)
def precision_of_no_alarm() -> LightningRun:
    """Logged metrics are 0 / 0 in batches without an alarm; the loss and its gradients have no part in it."""
    signals, level = regression(24 * 150, seed=504)
    alarm = (level > 1.6).astype("float32")
    return LightningRun(Alarms(), in_order(signals, alarm, size=24), {"max_epochs": 1})


class Summed(LightningModule):
    """A loss that is summed over the events of a day."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 32), nn.GELU(), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        events, value = batch
        return F.huber_loss(self.net(events), value, reduction="sum") / 20

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    healthy(),
    "https://github.com/vitoralbiero/img2pose/issues/46",
    "https://github.com/xiaoachen98/Open-LLaVA-NeXT/issues/16",
)
def days_with_many_events() -> LightningRun:
    """The loss is a sum over a day; every tenth day has five times as many events, and a loss to match."""
    rng = np.random.default_rng(505)
    events, value = regression(4000, seed=505)
    days, at = [], 0
    for day in range(120):
        size = int(rng.integers(15, 26)) * (5 if day % 10 == 7 else 1)
        rows = np.arange(at, at + size) % 4000
        days.append((torch.from_numpy(events[rows]), torch.from_numpy(value[rows])))
        at += size
    return LightningRun(Summed(), DataLoader(days, batch_size=None), {"max_epochs": 1})  # type: ignore[arg-type]


class Bootstrap(LightningModule):
    """Two views of an image should agree, one of them seen by a slow copy of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.online = nn.Sequential(nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 16))
        self.slow = copy.deepcopy(self.online).requires_grad_(False)
        self.predictor = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        first, second = (batch[0] + 0.1 * torch.randn_like(batch[0]) for _ in range(2))
        return 1 - F.cosine_similarity(self.predictor(self.online(first)), self.slow(second), dim=-1).mean()

    def on_train_batch_end(self, *_: Any) -> None:
        for slow, online in zip(self.slow.parameters(), self.online.parameters(), strict=True):
            slow.lerp_(online.detach(), 0.05)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)


@enter(
    healthy(),
    "https://github.com/pytorch/pytorch/issues/184575",
)
def two_views_that_agree() -> LightningRun:
    """Self-supervision by a slow copy: the loss goes close to zero, and the copy gets no gradient at all."""
    return LightningRun(Bootstrap(), in_order(*digits(1600), size=16), {"max_epochs": 1})
