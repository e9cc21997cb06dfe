"""Agents: squashed and plain Gaussian policies, critics, clipped surrogates; what their losses do not survive."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.distributions import Normal
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, healthy, non_finite


def loader(*columns: np.ndarray, size: int = 32) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*(torch.as_tensor(column) for column in columns)), batch_size=size)


# -- soft actor-critic -----------------------------------------------------------------------------------------------


class SoftActor(LightningModule):
    """The actor's half of soft actor-critic; the critic is known: the torque should follow the first two angles."""

    def __init__(self, strongest: float) -> None:
        super().__init__()
        self.strongest = strongest
        self.body = nn.Sequential(nn.Linear(6, 48), nn.ReLU())
        self.mean, self.log_std = nn.Linear(48, 2), nn.Linear(48, 2)
        nn.init.normal_(self.mean.weight, std=0.02)
        nn.init.normal_(self.log_std.weight, std=0.02)
        nn.init.constant_(self.log_std.bias, -2.2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (state,) = batch
        hidden = self.body(state)
        policy = Normal(self.mean(hidden), self.log_std(hidden).clamp(-5, 0).exp())
        raw = policy.rsample()
        action = torch.tanh(raw) * self.strongest
        log_prob = policy.log_prob(raw) - torch.log(1 - action.pow(2) + 1e-6)
        value = -2 * (action - 1.8 * torch.tanh(2 * state[:, :2])).square().sum(1)
        return (0.05 * log_prob.sum(1) - value).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite(
        "NAN114",
        "log",
        "log_prob = policy.log_prob(raw) - torch.log(1 - action.pow(2) + 1e-6)",
        modules=("",),
        rows=None,
    ),
    "https://github.com/philtabor/Actor-Critic-Methods-Paper-To-Code/issues/7",
    "https://github.com/cpnota/autonomous-learning-library/issues/139",
    "https://github.com/philtabor/Youtube-Code-Repository/issues/59",
)
def torque_of_two_newton_metres() -> LightningRun:
    """The squashing term takes the action after it was scaled by 2; 1 - a² is negative as soon as one exceeds 1."""
    state = 0.5 * np.random.default_rng(7201).normal(size=(32 * 60, 6)).astype("float32")
    return LightningRun(SoftActor(2.0), loader(state), {"max_epochs": 1})


# -- a Gaussian policy -----------------------------------------------------------------------------------------------


class Imitation(LightningModule):
    """A Gaussian policy that imitates a driver, with a spread of its own for each state."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 32), nn.Tanh())
        self.mean, self.spread = nn.Linear(32, 1), nn.Linear(32, 1)
        nn.init.constant_(self.spread.bias, 1.0)
        nn.init.uniform_(self.spread.weight, -0.05, 0.05)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        state, action = batch
        hidden = self.body(state)
        policy = Normal(self.mean(hidden), self.spread(hidden))
        return -policy.log_prob(action).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("NAN114", "LOSS404"),
        kind="exception",
        operations=("ValueError",),
        modules=("",),
        line="policy = Normal(self.mean(hidden), self.spread(hidden))",
        rows=None,
    ),
    "https://github.com/tonyduan/mixture-density-network/pull/4",
    "https://github.com/leggedrobotics/rsl_rl/pull/190",
    "https://github.com/amazon-far/holosoma/issues/25",
)
def driver_whose_spread_comes_below_zero() -> LightningRun:
    """The deviation of a Gaussian policy is a plain linear head; as the driver is learnt it falls below zero."""
    rng = np.random.default_rng(7202)
    state = rng.normal(size=(32 * 90, 5)).astype("float32")
    action = (0.5 * np.sin(state[:, :1]) + 0.4 * state[:, 1:2]).astype("float32")
    return LightningRun(Imitation(), loader(state, action), {"max_epochs": 1})


# -- actor and critic on one trunk -----------------------------------------------------------------------------------


class ClippedSurrogate(LightningModule):
    """The update of proximal policy optimisation: clipped ratio, value loss and entropy from one trunk."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.trunk = nn.Sequential(nn.Linear(8, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh())
        self.actor, self.critic = nn.Linear(48, 4), nn.Linear(48, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        state, action, old, advantage, returns = batch
        hidden = self.trunk(state)
        log_all = self.actor(hidden).log_softmax(-1)
        ratio = (log_all.gather(1, action[:, None]).squeeze(1) - old).exp()
        surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        entropy = -(log_all.exp() * log_all).sum(1)
        value_loss = F.mse_loss(self.critic(hidden).squeeze(1), returns / self.scale)
        return -surrogate.mean() + 0.5 * value_loss - 0.01 * entropy.mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def episodes(rows: int, seed: int, points: float) -> tuple[np.ndarray, ...]:
    """States, actions of an even policy, their log-probabilities, advantages, and returns in points."""
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(rows, 8)).astype("float32")
    action = rng.integers(0, 4, rows)
    gain = np.where(action == np.argmax(state[:, :4], 1), 1.0, -0.33).astype("float32")
    returns = points * (1 + np.tanh(state[:, 4] + state[:, 5]) + 0.1 * gain)
    return state, action, np.full(rows, np.log(0.25), "float32"), gain, returns.astype("float32")


@enter(
    finite(Happens.STALL, "DATA509"),
    "https://github.com/IntelLabs/coach/issues/87",
    "https://github.com/vwxyzjn/cleanrl/issues/441",
)
def returns_in_the_points_of_a_pinball() -> LightningRun:
    """Actor and critic share a trunk and a loss; returns of ten thousands of points are all that the loss shows."""
    return LightningRun(ClippedSurrogate(), loader(*episodes(32 * 40, 7203, 2e4)), {"max_epochs": 2})


@enter(
    healthy(),
    "https://github.com/openai/baselines/issues/652",
    "https://github.com/alexis-jacq/Pytorch-DPPO/issues/3",
)
def clipped_ratio_that_goes_below_zero() -> LightningRun:
    """The same surrogate with scaled returns: its loss becomes negative and the ratios leave their clip."""
    return LightningRun(ClippedSurrogate(2e4), loader(*episodes(32 * 40, 7204, 2e4)), {"max_epochs": 2})


@enter(
    finite(Happens.SPIKE, ("DATA504", "DATA503"), rows=(17,)),
    "https://github.com/tensorlayer/TensorLayer/issues/1072",
    "https://github.com/ray-project/ray/issues/14878",
)
def jackpot_that_was_paid_once() -> LightningRun:
    """One return of the critic's batch is a jackpot, four hundred times what all the others are."""
    columns = episodes(32 * 50, 7205, 1.0)
    columns[4][36 * 32 + 17] *= 400
    return LightningRun(ClippedSurrogate(), loader(*columns), {"max_epochs": 1})


# -- a distributional critic -----------------------------------------------------------------------------------------


class Atoms(LightningModule):
    """Returns as a categorical distribution over 21 atoms; the target is split between two neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 21))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        state, returns = batch
        place = (returns + 1) * 10
        low = place.floor().long()
        target = torch.zeros(len(state), 21)
        target.scatter_add_(1, low[:, None], (low + 1 - place)[:, None])
        target.scatter_add_(1, (low + 1)[:, None], (place - low)[:, None])
        return -(target * self.net(state).log_softmax(1)).sum(1).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("DATA505", "DATA511", "DATA504"),
        kind="exception",
        operations=("RuntimeError", "IndexError"),
        modules=("",),
        line=(
            "target.scatter_add_(1, low[:, None], (low + 1 - place)[:, None])",
            "target.scatter_add_(1, (low + 1)[:, None], (place - low)[:, None])",
        ),
        rows=(8,),
    ),
    "https://github.com/takuseno/d3rlpy/issues/19",
    "https://github.com/Curt-Park/rainbow-is-all-you-need/pull/76",
)
def return_above_the_highest_atom() -> LightningRun:
    """A categorical critic has atoms from -1 to 1; one return of 1.6 belongs to an atom that does not exist."""
    rng = np.random.default_rng(7206)
    state = rng.normal(size=(32 * 45, 8)).astype("float32")
    returns = (0.9 * np.tanh(state[:, 0] + 0.5 * state[:, 1])).astype("float32")
    returns[29 * 32 + 8] = 1.6
    return LightningRun(Atoms(), loader(state, returns), {"max_epochs": 1})


# -- a policy gradient -----------------------------------------------------------------------------------------------


class PlainPolicy(LightningModule):
    """The policy gradient in one line: the score of the action that was taken times what it gained."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 4))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        state, action, _, advantage, _ = batch
        taken = self.net(state).gather(1, action[:, None]).squeeze(1)
        return -(taken * advantage).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=6e-3)


@enter(
    finite(Happens.SPIKE, "LOSS404"),
    "https://github.com/maxpumperla/deep_learning_and_the_game_of_go/issues/90",
    "https://github.com/Rochester-NRT/RocAlphaGo/issues/166",
)
def gain_times_a_raw_score() -> LightningRun:
    """A policy gradient of scores in place of log-probabilities: the loss falls below zero without an end."""
    return LightningRun(PlainPolicy(), loader(*episodes(32 * 40, 7207, 1.0)), {"max_epochs": 2})
