"""Complete models that look dangerous and train well."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import LightningRun, enter, healthy
from benchmarks.diagnosis.tables import digits


class PaddedDecoder(LightningModule):
    """Next word; padding on the left, hidden by the lowest number that there is."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.project, self.out = nn.Embedding(40, 24), nn.Linear(24, 72), nn.Linear(24, 40)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (text,) = batch
        states = self.embed(text)
        query, key, value = self.project(states).chunk(3, -1)
        seen = torch.ones(text.shape[1], text.shape[1], dtype=torch.bool).tril() & (text != 0)[:, None]
        scores = (query @ key.transpose(1, 2) / math.sqrt(24)).masked_fill(~seen, torch.finfo(torch.float32).min)
        logits = self.out(states + scores.softmax(-1) @ value)
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), text[:, 1:].flatten(), ignore_index=0)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


@enter(healthy(), "https://github.com/unslothai/unsloth/pull/9848")
def left_padding_with_the_lowest_number() -> LightningRun:
    """Rows of padding see no key at all; filled with the lowest float32, they get even weights, and do not count."""
    rng = np.random.default_rng(2101)
    text = 1 + np.cumsum(rng.integers(0, 4, (16 * 60, 12)), 1) % 39
    text *= np.arange(12) >= rng.integers(0, 8, len(text))[:, None]
    return LightningRun(PaddedDecoder(), in_order(text, size=16), {"max_epochs": 1})


class Critic(LightningModule):
    """Wasserstein distance with a gradient penalty; the generator moves now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
        self.critic = nn.Sequential(nn.Linear(2, 48), nn.LeakyReLU(0.2), nn.Linear(48, 1))

    def penalty(self, real: Tensor, forged: Tensor) -> Tensor:
        share = torch.rand(len(real), 1)
        between = (share * real + (1 - share) * forged).requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        return ((slope.square().sum(1) + 1e-12).sqrt() - 1).square().mean()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        (real,) = batch
        for_critic, for_generator = self.optimizers()  # type: ignore[misc]
        forged = self.generator(torch.randn(len(real), 4))
        if batch_idx % 10 == 9:
            for_generator.zero_grad()
            self.manual_backward(-self.critic(forged).mean())
            for_generator.step()
            return
        apart = self.critic(forged.detach()).mean() - self.critic(real).mean()
        loss = apart + 10 * self.penalty(real, forged.detach())
        for_critic.zero_grad()
        self.manual_backward(loss)
        for_critic.step()
        self.log("loss", loss)

    def configure_optimizers(self) -> Any:
        betas = (0.0, 0.9)
        return (
            torch.optim.Adam(self.critic.parameters(), lr=2e-3, betas=betas),
            torch.optim.Adam(self.generator.parameters(), lr=2e-4, betas=betas),
        )


@enter(
    healthy(),
    "https://github.com/igul222/improved_wgan_training/issues/44",
    "https://github.com/DegardinBruno/Kinetic-GAN/issues/1",
)
def critic_with_a_negative_loss() -> LightningRun:
    """The loss of a Wasserstein critic starts near ten, falls below zero and wanders there, as it should."""
    rng = np.random.default_rng(2102)
    real = rng.normal(size=(64 * 120, 2)) * 0.3 + np.array([3.0, -2.0])
    return LightningRun(Critic(), in_order(real.astype("float32"), size=64), {"max_epochs": 1})


class QLearner(LightningModule):
    """Q-learning from a recorded replay, with a slow copy for the targets."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.slow = (
            nn.Sequential(nn.Linear(6, 48), nn.ReLU(), nn.Linear(48, 4)),
            nn.Sequential(nn.Linear(6, 48), nn.ReLU(), nn.Linear(48, 4)),
        )
        self.slow.load_state_dict(self.net.state_dict())
        self.slow.requires_grad_(False)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx % 25 == 0:
            self.slow.load_state_dict(self.net.state_dict())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        state, action, reward, following, over = batch
        value = self.net(state).gather(1, action.unsqueeze(1)).squeeze(1)
        target = reward + 0.6 * (1 - over) * self.slow(following).amax(1)
        return F.smooth_l1_loss(value, target)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    healthy(),
    "https://github.com/rohitgirdhar/Deep-Q-Networks/issues/1",
    "https://github.com/devsisters/DQN-tensorflow/issues/16",
)
def rewards_that_are_rare() -> LightningRun:
    """One move in three hundred earns 40; those batches stand out, and a Huber loss takes care of them."""
    rng = np.random.default_rng(2103)
    rows = 32 * 160
    state, following = rng.normal(size=(2, rows, 6))
    action = rng.integers(0, 4, rows)
    reward = state[:, 0] * (action == 1) - state[:, 1] * (action == 2) + 3
    reward[rng.random(rows) < 1 / 300] = 40
    over = rng.random(rows) < 0.2
    columns = state.astype("float32"), action, *(a.astype("float32") for a in (reward, following, over))
    return LightningRun(QLearner(), in_order(*columns, size=32), {"max_epochs": 1})


class Recommender(LightningModule):
    """Users and films as tables; most rows get no gradient in most steps."""

    def __init__(self, users: int, films: int) -> None:
        super().__init__()
        self.users, self.films = nn.Embedding(users, 12), nn.Embedding(films, 12)
        nn.init.normal_(self.users.weight, std=0.1)
        nn.init.normal_(self.films.weight, std=0.1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        user, seen, unseen = (
            table(index) for table, index in zip((self.users, self.films, self.films), batch, strict=True)
        )
        return -F.logsigmoid((user * (seen - unseen)).sum(1)).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adagrad(self.parameters(), lr=0.1)


@enter(
    healthy(),
    "https://github.com/pytorch/pytorch/issues/18404",
    "https://github.com/pytorch/pytorch/issues/1285",
)
def films_that_nobody_watches() -> LightningRun:
    """A ranking of pairs over tables; most rows get gradients of exactly zero, under Adagrad at a lively rate."""
    rng = np.random.default_rng(2104)
    taste, kind = rng.integers(0, 5, 400), rng.integers(0, 5, 900)
    by_kind = [np.flatnonzero(kind == number) for number in range(5)]
    user = (400 * rng.random(48 * 120) ** 3).astype(int)
    seen = np.array([by_kind[taste[one]][int(len(by_kind[taste[one]]) * rng.random() ** 3)] for one in user])
    unseen = rng.integers(0, 900, len(user))
    return LightningRun(Recommender(400, 900), in_order(user, seen, unseen, size=48), {"max_epochs": 1})


class Residual(nn.Module):
    """Two convolutions around which the signal can go."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        nn.init.zeros_(self.body[4].weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class NoisyLabels(LightningModule):
    """A residual network; a fifth of the labels is wrong and the rate restarts every 25 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            Residual(12),
            nn.MaxPool2d(2),
            Residual(12),
            nn.Flatten(),
            nn.Linear(192, 10),
        )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.08, momentum=0.9, nesterov=True, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 25)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@enter(
    healthy(),
    "https://github.com/wandb/senpai/pull/453",
    "https://github.com/wandb/senpai/pull/161",
)
def every_fifth_label_is_wrong() -> LightningRun:
    """A residual network with zero gains, wrong labels and a rate that restarts: the loss jumps, and stays above 1."""
    pictures, kinds = digits(1600)
    rng = np.random.default_rng(2105)
    wrong = rng.random(len(kinds)) < 0.2
    kinds[wrong] = rng.integers(0, 10, wrong.sum())
    return LightningRun(NoisyLabels(), in_order(pictures.reshape(-1, 1, 8, 8), kinds, size=32), {"max_epochs": 2})


class BoundedFlow(LightningModule):
    """Density of heavy-tailed returns; log-scales are bounded by tanh and tails are pulled in first."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nn.Sequential(nn.Linear(3, 24), nn.Tanh(), nn.Linear(24, 6)) for _ in range(3))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        z = torch.asinh(batch[0] / 0.01)
        volume = -0.5 * torch.log(batch[0].square() + 1e-4).sum(1)
        for net in self.nets:
            log_scale, shift = net(z[:, :3]).chunk(2, -1)
            log_scale = 2 * torch.tanh(log_scale / 2)
            z = torch.cat([z[:, 3:] * log_scale.exp() + shift, z[:, :3]], 1)
            volume = volume + log_scale.sum(1)
        return (0.5 * z.square().sum(1) + 3 * math.log(2 * math.pi) - volume).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    healthy(),
    "https://github.com/VincentStimper/normalizing-flows/issues/47",
    "https://github.com/bayesiains/nflows/issues/49",
)
def returns_with_heavy_tails() -> LightningRun:
    """Daily returns of one percent with tails of half the price; the likelihood is far below zero, and improves."""
    rng = np.random.default_rng(2106)
    mix = np.eye(6) + 0.5 * rng.normal(size=(6, 6))
    returns = 0.01 * rng.standard_t(2.5, size=(64 * 60, 6)) @ mix
    return LightningRun(BoundedFlow(), in_order(returns.astype("float32"), size=64), {"max_epochs": 1})


class Claims(LightningModule):
    """Claims of a portfolio: a Poisson likelihood with a logarithm, and the exposure as an offset."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.net = nn.BatchNorm1d(5), nn.Sequential(nn.Linear(5, 24), nn.ReLU(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        contract, years, claims = batch
        log_rate = self.net(self.norm(contract)).squeeze(1) + torch.log(years)
        return F.poisson_nll_loss(log_rate, claims, log_input=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


@enter(healthy(), "https://github.com/Nixtla/neuralforecast/issues/408")
def contracts_of_whole_towns() -> LightningRun:
    """Most contracts are single houses and some whole towns: the loss is hundreds below zero, and jumps."""
    rng = np.random.default_rng(2107)
    contract = rng.normal(size=(32 * 80, 5)) * np.array([1, 50, 3000, 0.1, 1]) + np.array([0, 1980, 90_000, 0, 0])
    is_town = rng.random(len(contract)) < 0.1
    years = np.where(is_town, rng.uniform(1e3, 2e4, len(contract)), rng.uniform(0.2, 1, len(contract)))
    claims = rng.poisson(years * np.exp(-2 + 0.4 * contract[:, 0]))
    columns = (column.astype("float32") for column in (contract, years, claims))
    return LightningRun(Claims(), in_order(*columns, size=32), {"max_epochs": 1, "gradient_clip_val": 1.0})
