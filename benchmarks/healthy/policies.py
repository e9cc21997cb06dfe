"""Reinforcement learning: losses around zero whose size says nothing, and targets that move."""

from collections import deque
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.distributions import Categorical, Normal
from torch.nn import functional as F
from torch.optim import Optimizer

from benchmarks.healthy.registry import Parts, healthy_run
from benchmarks.healthy.supervised import mlp, shuffled


class Reinforce(LightningModule):
    """REINFORCE with a running baseline on a contextual bandit with five arms."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = mlp(4, 32, 5)
        self.register_buffer("arms", torch.randn(4, 5))
        self.register_buffer("baseline", torch.zeros(()))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        (contexts,) = batch
        law = Categorical(logits=self.policy(contexts))
        actions = law.sample()
        rewards = (contexts @ self.arms).gather(1, actions[:, None]).squeeze(1) + torch.randn(len(actions))
        loss = -(law.log_prob(actions) * (rewards - self.baseline)).mean()
        self.baseline = torch.lerp(self.baseline, rewards.mean(), 0.05)
        self.log("reward", rewards.mean())
        return loss

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@healthy_run("REINFORCE: the policy loss changes its sign from batch to batch")
def reinforce(seed: int) -> Parts:
    return Reinforce(), shuffled(torch.randn(4000, 4), batch_size=16, seed=seed), {"max_steps": 1200}


class Ppo(LightningModule):
    """PPO that holds a point mass at the origin: 32 environments, 16 steps, 4 updates to each rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.actor, self.value = mlp(2, 32, 1, activation=nn.Tanh), mlp(2, 32, 1, activation=nn.Tanh)
        self.log_scale = nn.Parameter(torch.zeros(1))

    @torch.no_grad()
    def rollout(self, starts: Tensor) -> None:
        """Keep states, actions, their log-probabilities and discounted returns of fresh trajectories."""
        state, kept = starts, []
        for _ in range(16):
            law = Normal(self.actor(state), self.log_scale.exp())
            action = law.sample()
            cost = state[:, :1] ** 2 + 0.1 * action.clamp(-2, 2) ** 2
            kept.append((state, action, law.log_prob(action), -cost))
            speed = 0.9 * state[:, 1:] + 0.3 * action.clamp(-2, 2)
            state = torch.cat([state[:, :1] + 0.3 * speed, speed], dim=1)
        future, returns = self.value(state), []
        for *_, reward in reversed(kept):
            future = reward + 0.9 * future
            returns.append(future)
        columns = [torch.cat([row[i] for row in kept]) for i in range(3)]
        self.kept = [*columns, torch.cat(returns[::-1])]

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if batch_idx % 4 == 0:
            self.rollout(batch[0])
        rows = torch.randint(0, len(self.kept[0]), (128,))
        states, actions, old, returns = (column[rows] for column in self.kept)
        law, values = Normal(self.actor(states), self.log_scale.exp()), self.value(states)
        gains = (returns - values).detach()
        gains = (gains - gains.mean()) / (gains.std() + 1e-6)
        ratio = (law.log_prob(actions) - old).exp()
        policy = -torch.minimum(ratio * gains, ratio.clamp(0.8, 1.2) * gains).mean()
        loss = policy + 0.01 * F.mse_loss(values, returns) - 0.01 * law.entropy().mean()
        self.log("return", returns.mean())
        return loss

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@healthy_run("PPO: a loss near zero, of either sign, with fresh data every fourth step")
def ppo(seed: int) -> Parts:
    starts = torch.randn(32 * 60, 2)
    return Ppo(), shuffled(starts, batch_size=32, seed=seed), {"max_steps": 1000, "gradient_clip_val": 0.5}


class Dqn(LightningModule):
    """Q-learning on a corridor of 12 cells; the target network is copied every 100 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.online, self.target = mlp(12, 48, 2), mlp(12, 48, 2).requires_grad_(False)
        self.memory: deque[tuple[Tensor, ...]] = deque(maxlen=60)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.global_step % 100 == 0:
            self.target.load_state_dict(self.online.state_dict())
        cells = batch[0]
        moves = torch.randint(0, 2, cells.shape)
        arrived = (cells + 2 * moves - 1).clamp(0, 11)
        self.memory.append((cells, moves, arrived, 5.0 * (arrived == 11)))
        cells, moves, arrived, rewards = self.memory[int(torch.randint(0, len(self.memory), ()))]
        onwards = self.target(F.one_hot(arrived, 12).float()).amax(1)
        values = self.online(F.one_hot(cells, 12).float()).gather(1, moves[:, None]).squeeze(1)
        loss = F.mse_loss(values, rewards + 0.9 * onwards)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@healthy_run("DQN: every copy of the target network makes the loss jump from almost nothing")
def dqn_target_copies(seed: int) -> Parts:
    return Dqn(), shuffled(torch.randint(0, 12, (2000,)), batch_size=32, seed=seed), {"max_steps": 1200}
