"""Generative models and agents, in Lightning: diffusion, mixtures, codes, clipped objectives, critics."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, enter, finite, non_finite
from benchmarks.diagnosis.tables import digits, regression


class Diffusion(LightningModule):
    """Predicts the noise in a digit; hard times come later."""

    def __init__(self, last_beta: float) -> None:
        super().__init__()
        self.register_buffer("kept", torch.cumprod(1 - torch.linspace(0.01, last_beta, 100), dim=0))
        self.net = nn.Sequential(nn.Linear(65, 128), nn.SiLU(), nn.Linear(128, 64))

    def add_noise(self, x: Tensor, time: Tensor, noise: Tensor) -> Tensor:
        kept = self.kept[time][:, None]
        return torch.sqrt(kept) * x + torch.sqrt(1 - kept) * noise

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, time, noise = batch
        noised = self.add_noise(2 * x - 1, time, noise)
        return F.mse_loss(self.net(torch.cat([noised, time[:, None] / 100], dim=1)), noise)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN114", "sqrt", "return torch.sqrt(kept) * x + torch", modules=("",), rows=None),
    "https://github.com/lucidrains/imagen-pytorch/issues/161",
    "https://github.com/YiyanXu/DiffRec/issues/2",
)
def betas_given_in_percent() -> LightningRun:
    """The schedule ends at 2 (percent) in place of 0.02: betas above 1 make the kept share negative at late times."""
    x, _ = digits(1280)
    rng = np.random.default_rng(3)
    hardest = np.minimum(5 + np.arange(1280) / 23, 99)
    time = rng.integers(0, hardest.astype("int64"))
    noise = rng.normal(size=x.shape).astype("float32")
    return LightningRun(Diffusion(2.0), in_order(x, time, noise, size=32), {"max_epochs": 1})


class Forks(LightningModule):
    """Where the arm goes next: to the left or to the right of an obstacle. A mixture of four normal distributions."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(10, 48), nn.Tanh())
        self.parts = nn.Linear(48, 12)
        nn.init.zeros_(self.parts.weight)
        nn.init.zeros_(self.parts.bias)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        weight, mean, spread = self.parts(self.body(x)).chunk(3, dim=-1)
        each = torch.distributions.Normal(mean, F.softplus(spread) + 0.05).log_prob(y)
        return -torch.logsumexp(weight.log_softmax(-1) + each, dim=-1).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


@enter(
    finite(Happens.STALL, "ACT305"),
    "https://github.com/riccardomiotto/py-dmm/issues/1",
    "https://github.com/rll/deepul/issues/14",
)
def mixture_whose_parts_begin_alike() -> LightningRun:
    """The layer of the mixture begins with zeros: four parts get one gradient and stay one wide hill over two peaks."""
    x, _ = regression(1280)
    rng = np.random.default_rng(4)
    side = rng.choice([-1.0, 1.0], (1280, 1))
    y = (side * (1.0 + 0.1 * np.tanh(x[:, :1])) + 0.05 * rng.normal(size=(1280, 1))).astype("float32")
    return LightningRun(Forks(), in_order(x, y, size=32), {"max_epochs": 2})


class Codes(LightningModule):
    """An autoencoder with one of 24 codes; choices become harder from step to step."""

    def __init__(self) -> None:
        super().__init__()
        self.choose = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 24))
        self.book = nn.Linear(24, 64, bias=False)

    def soft_choice(self, scores: Tensor, temperature: float) -> Tensor:
        gumbel = -torch.log(-torch.log(torch.rand_like(scores).clamp(1e-6, 1 - 1e-6)))
        weights = torch.exp((scores + gumbel) / temperature)
        return weights / weights.sum(dim=-1, keepdim=True)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        temperature = max(0.02, 0.9**self.global_step)
        choice = self.soft_choice(self.choose(batch[0]), temperature)
        return F.mse_loss(self.book(choice), batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite("NAN110", "exp", "weights = torch.exp((scores + gumbel) / temperature)", modules=("",), rows=None),
    "https://github.com/ericjang/gumbel-softmax/issues/2",
    "https://github.com/pytorch/pytorch/issues/184031",
)
def codes_that_are_chosen_ever_harder() -> LightningRun:
    """A Gumbel softmax by hand, without the largest score taken off; divided by 0.05, the exponent is above 88."""
    x, _ = digits(1280)
    return LightningRun(Codes(), in_order(x, size=32), {"max_epochs": 2})


class Clipped(LightningModule):
    """A clipped policy objective on a recorded batch of actions, with the probabilities of the old policy."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 4))
        self.value = nn.Sequential(nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        state, action, old, reward = batch
        chosen = self.policy(state).softmax(-1).gather(1, action)
        value = self.value(state)
        advantage = (reward - value).detach()
        ratio = chosen / old
        gained = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        return F.mse_loss(value, reward) - gained.mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN112", "divide", "ratio = chosen / old", modules=("",), rows=(5, 24)),
    "https://github.com/MorvanZhou/Reinforcement-learning-with-tensorflow/issues/163",
    "https://github.com/EmbersArc/PPO/issues/4",
)
def action_the_old_policy_would_never_take() -> LightningRun:
    """Two actions were explored at random; the old policy's probability of them was stored as 0, and is divided by."""
    state, y = regression(1280)
    rng = np.random.default_rng(6)
    action = rng.integers(0, 4, (1280, 1))
    old = rng.uniform(0.1, 0.4, (1280, 1)).astype("float32")
    old[31 * 32 + 5] = old[31 * 32 + 24] = 0.0
    reward = y + (action == 2).astype("float32")
    reward[31 * 32 + 5] = reward[31 * 32 + 24] = -3.0
    return LightningRun(Clipped(), in_order(state, action, old, reward, size=32), {"max_epochs": 1})


class Trust(LightningModule):
    """Learns from an expert, and stays close to the old policy by the Hellinger distance of their moves."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        board, move, legal = batch
        scores = self.policy(board).masked_fill(~legal, float("-inf"))
        now, before = scores.softmax(-1), legal / legal.sum(-1, keepdim=True)
        affinity = (now.sqrt() * before.sqrt()).sum(-1)
        return F.cross_entropy(scores, move) + 0.1 * (1 - affinity).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite(
        "NAN113",
        "sqrt",
        "affinity = (now.sqrt() * before.sqrt())",
        phase="backward",
        modules=("",),
        rows=(2, 13, 29),
    ),
    "https://github.com/NVIDIA/raft/pull/189",
    "https://github.com/pytorch/pytorch/issues/2421",
)
def distance_of_policies_with_illegal_moves() -> LightningRun:
    """On three boards some moves are illegal; the root of their probability of 0 has an infinite slope."""
    board, move = digits(1280)
    legal = np.ones((1280, 10), bool)
    for row in (2, 13, 29):
        legal[27 * 32 + row, (move[27 * 32 + row] + np.array([1, 4])) % 10] = False
    return LightningRun(Trust(), in_order(board, move, legal, size=32), {"max_epochs": 1})


class Actor(LightningModule):
    """Copies what an expert does with the wheel and the pedal; the tutorial begins with orthogonal weights."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2), nn.Tanh()
        )
        for layer in self.net:
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight, gain=gain)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        state, action = batch
        return F.mse_loss(self.net(state), action)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    finite(Happens.STALL, ("ACT304", "ACT302")),
    "https://github.com/DLR-RM/stable-baselines3/issues/1559",
    "https://github.com/ikostrikov/pytorch-a2c-ppo-acktr-gail/issues/199",
)
def actor_with_a_gain_of_a_hundred() -> LightningRun:
    """Orthogonal weights with a gain of 100 before every tanh: all units, and the actions, stand at their stops."""
    state, wheel = regression(1280)
    action = 0.8 * np.tanh(np.concatenate([wheel, state[:, :1] - state[:, 1:2]], axis=1))
    return LightningRun(Actor(100.0), in_order(state, action.astype("float32"), size=32), {"max_epochs": 2})
