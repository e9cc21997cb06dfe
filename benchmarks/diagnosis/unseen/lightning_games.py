"""Agents, generators, embeddings and labels by hand: several optimizers, gradients of gradients, own derivatives."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, non_finite
from benchmarks.diagnosis.tables import digits

# -- NAN111 ----------------------------------------------------------------------------------------------------------


class SquashedActor(nn.Module):
    """Draws actions between -1 and 1, and tells their log-probability."""

    def __init__(self, states: int, actions: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(states, 32), nn.ReLU(), nn.Linear(32, 2 * actions))

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.body(state).chunk(2, dim=-1)
        normal = torch.distributions.Normal(mean, log_std.clamp(-20, 2).exp())
        raw = normal.rsample()
        action = torch.tanh(raw)
        log_prob = normal.log_prob(raw) - torch.log(1 - action.square())
        return action, log_prob.sum(-1, keepdim=True)


class SoftActorCritic(LightningModule):
    """One-step soft actor-critic on recorded pushes, with an optimizer for each part."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.actor = SquashedActor(5, 2)
        self.critic = nn.Sequential(nn.Linear(7, 48), nn.ReLU(), nn.Linear(48, 1))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        state, action, reward = batch
        of_actor, of_critic = self.optimizers()  # type: ignore[misc]
        error = F.mse_loss(self.critic(torch.cat([state, action], -1)), reward)
        of_critic.zero_grad()
        self.manual_backward(error)
        of_critic.step()
        chosen, log_prob = self.actor(state)
        regret = (0.002 * log_prob - self.critic(torch.cat([state, chosen], -1))).mean()
        of_actor.zero_grad()
        self.manual_backward(regret)
        of_actor.step()
        self.log("loss", regret)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.actor.parameters(), lr=0.02), torch.optim.Adam(self.critic.parameters(), lr=0.01)


@enter(
    non_finite(
        "NAN111", "log", "log_prob = normal.log_prob(raw) - torch.log(1 - action", modules=("actor",), rows=None
    ),
    "https://github.com/philtabor/Actor-Critic-Methods-Paper-To-Code/issues/7",
    "https://github.com/rlworkgroup/garage/pull/2129",
    "https://github.com/ray-project/ray/issues/14878",
)
def push_as_hard_as_you_can() -> LightningRun:
    """The best push is the hardest one: tanh rounds to 1, and log(1 - tanh²) of the change of variables is -inf."""
    rng = np.random.default_rng(201)
    state = rng.normal(size=(32 * 200, 5)).astype("float32")
    action = rng.uniform(-1, 1, (len(state), 2)).astype("float32")
    reward = (10 * action.sum(1, keepdims=True) + 0.3 * state[:, :1]).astype("float32")
    return LightningRun(SoftActorCritic(), in_order(state, action, reward, size=32), {"max_epochs": 1})


# -- NAN113 ----------------------------------------------------------------------------------------------------------


class SetCritic(nn.Module):
    """Scores sets of points; a mask tells which of the ten places are taken."""

    def __init__(self) -> None:
        super().__init__()
        self.each, self.all = nn.Sequential(nn.Linear(2, 24), nn.ELU()), nn.Linear(24, 1)

    def forward(self, points: Tensor, taken: Tensor) -> Tensor:
        return self.all((self.each(points) * taken.unsqueeze(-1)).sum(1) / 10)


class PointGAN(LightningModule):
    """Wasserstein GAN of constellations, with a gradient penalty."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.critic = SetCritic()
        self.generator = nn.Sequential(nn.Linear(6, 32), nn.ELU(), nn.Linear(32, 20))

    def penalty(self, real: Tensor, fake: Tensor, taken: Tensor) -> Tensor:
        share = torch.rand(len(real), 1, 1)
        between = (share * real + (1 - share) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(between, taken).sum(), between, create_graph=True)
        steepness = slope.flatten(1).square().sum(1).sqrt()
        return (steepness - 1).square().mean()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        real, taken = batch
        of_critic, of_generator = self.optimizers()  # type: ignore[misc]
        fake = self.generator(torch.randn(len(real), 6)).view(-1, 10, 2)
        gap = self.critic(fake.detach(), taken).mean() - self.critic(real, taken).mean()
        loss = gap + 5 * self.penalty(real, fake.detach(), taken)
        of_critic.zero_grad()
        self.manual_backward(loss)
        of_critic.step()
        self.log("loss", loss)
        if batch_idx % 3 == 2:
            of_generator.zero_grad()
            self.manual_backward(-self.critic(fake, taken).mean())
            of_generator.step()

    def configure_optimizers(self) -> Any:
        parts = (self.critic, self.generator)
        return [torch.optim.Adam(part.parameters(), lr=1e-3, betas=(0.5, 0.9)) for part in parts]


@enter(
    non_finite(
        "NAN113",
        "sqrt",
        "steepness = slope.flatten(1).square().sum(1).sqrt()",
        phase="backward",
        modules=("",),
        rows=(11,),
    ),
    "https://github.com/keras-team/keras-io/issues/910",
    "https://github.com/pytorch/pytorch/issues/2534",
    "https://github.com/tdeboissiere/DeepLearningImplementations/issues/68",
)
def constellation_without_stars() -> LightningRun:
    """A gradient penalty takes the root of a squared gradient; of an empty constellation it is the root of 0."""
    rng = np.random.default_rng(202)
    real = (rng.normal(size=(55 * 24, 10, 2)) * 0.3 + rng.choice([-1, 1], (55 * 24, 1, 2))).astype("float32")
    taken = (np.arange(10)[None] < rng.integers(3, 11, (55 * 24, 1))).astype("float32")
    taken[29 * 24 + 11] = 0
    return LightningRun(PointGAN(), in_order(real, taken, size=24), {"max_epochs": 1})


class Gamma(nn.Module):
    """Gain and gamma of a display, both learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.exponent = nn.Parameter(torch.ones(64)), nn.Parameter(torch.tensor(1.25))

    def forward(self, image: Tensor) -> Tensor:
        return (self.gain * image).pow(self.exponent)


class Display(LightningModule):
    """Learns the curve of a display from pictures of it."""

    def __init__(self) -> None:
        super().__init__()
        self.curve = Gamma()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        image, seen = batch
        return (self.curve(image) - seen).pow(2).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


@enter(
    non_finite(
        "NAN113",
        ("power", "multiply"),
        "return (self.gain * image).pow(self.exponent)",
        phase="backward",
        modules=("curve",),
        rows=None,
    ),
    "https://github.com/tensorflow/tensorflow/issues/2295",
    "https://github.com/daemon/pytorch-pcen/issues/4",
)
def gamma_that_falls_below_one() -> LightningRun:
    """A learnt gamma passes 1 on its way down: from then on the slope at a black pixel has no end."""
    image, _ = digits(1600)
    return LightningRun(Display(), in_order(image, np.sqrt(image), size=16), {"max_epochs": 1})


# -- DATA511 ---------------------------------------------------------------------------------------------------------


class DeepQ(LightningModule):
    """Values of four moves, from recorded transitions, with a slow copy as the target."""

    def __init__(self) -> None:
        super().__init__()
        self.online, self.slow = (nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 4)) for _ in range(2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        state, move, reward, after = batch
        value = self.online(state).gather(1, move.unsqueeze(1)).squeeze(1)
        with torch.no_grad():
            goal = reward + 0.9 * self.slow(after).max(1).values
        return F.smooth_l1_loss(value, goal)

    def on_train_batch_end(self, *_: Any) -> None:
        for slow, online in zip(self.slow.parameters(), self.online.parameters(), strict=True):
            slow.data.lerp_(online.data, 0.05)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.online.parameters(), lr=2e-3)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("DATA511", "DATA505"),
        kind="exception",
        operations=("RuntimeError", "IndexError"),
        modules=("",),
        line="value = self.online(state).gather(1",
        rows=(17,),
    ),
    "https://github.com/DLR-RM/stable-baselines3/issues/1841",
    "https://github.com/PacktPublishing/Deep-Reinforcement-Learning-Hands-On/issues/77",
)
def move_that_another_robot_has() -> LightningRun:
    """The replay buffer was shared with a robot that has a fifth move; the network has outputs for four."""
    rng = np.random.default_rng(205)
    state = rng.normal(size=(60 * 24, 6)).astype("float32")
    move = rng.integers(0, 4, len(state))
    reward = np.cos(state[:, 0] + move).astype("float32")
    move[38 * 24 + 17] = 4
    return LightningRun(DeepQ(), in_order(state, move, reward, np.roll(state, -1, 0), size=24), {"max_epochs": 1})


# -- ACT303 ----------------------------------------------------------------------------------------------------------


class Critic(LightningModule):
    """Value of a state; every step costs one point, so that all returns are negative."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (8, 32, 32, 1)
        self.value = nn.Sequential()
        for inputs, outputs in pairwise(sizes):
            self.value.extend([nn.Linear(inputs, outputs), nn.ReLU()])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        state, gain = batch
        return F.mse_loss(self.value(state), gain)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    finite(Happens.STALL, ("ACT303", "DATA505")),  # widened once scored: the targets lie below what a rectifier reaches
    "https://github.com/openai/baselines/issues/331",
    "https://github.com/dennybritz/reinforcement-learning/pull/104",
)
def values_below_a_rectifier() -> LightningRun:
    """The last layer of a critic is rectified and every return is negative: it goes silent, and stays so."""
    rng = np.random.default_rng(206)
    state = rng.normal(size=(32 * 100, 8)).astype("float32")
    gain = -(6 + np.abs(state[:, :1] + state[:, 1:2]) + 0.1 * rng.normal(size=(len(state), 1))).astype("float32")
    return LightningRun(Critic(), in_order(state, gain, size=32), {"max_epochs": 1})
