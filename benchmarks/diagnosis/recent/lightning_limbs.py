"""Robotics, games and control: rotations, headings, policies and models of the world."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, enter, finite, healthy, non_finite, runaway

# -- geometry --------------------------------------------------------------------------------------------------------


def rotation(angle: Tensor) -> Tensor:
    """Rotations about the vertical axis."""
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([c, -s, zero, s, c, zero, zero, zero, one], -1).unflatten(-1, (3, 3))


class Odometry(LightningModule):
    """How far a robot has turned between two images, from their features."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 24, bias=False), nn.Tanh(), nn.Linear(24, 1, bias=False))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        before, after, turned = batch
        guess = rotation(self.net(after - before).squeeze(1))
        between = guess.transpose(1, 2) @ rotation(turned)
        trace = between.diagonal(dim1=1, dim2=2).sum(1)
        return torch.acos(((trace - 1) / 2).clamp(-1.0, 1.0)).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite(
        "NAN113",
        "acos",
        "return torch.acos(((trace - 1) / 2).clamp(-1.0, 1.0))",
        phase="backward",
        modules=("",),
        rows=(8, 19),
    ),
    "https://github.com/papagina/RotationContinuity/issues/1",
    "https://github.com/eigenvivek/nanodrr/pull/31",
)
def robot_that_did_not_turn() -> LightningRun:
    """Angle between two rotations; twice two images are the same, guess and truth agree, and acos ends at 1."""
    rng = np.random.default_rng(4202)
    before, after = rng.normal(size=(2, 24 * 45, 6))
    turned = np.tanh((after - before)[:, 0] / 2) + 0.2 * rng.normal(size=len(before))
    for row in (8, 19):
        after[27 * 24 + row] = before[27 * 24 + row]
        turned[27 * 24 + row] = 0
    columns = (column.astype("float32") for column in (before, after, turned))
    return LightningRun(Odometry(), in_order(*columns, size=24), {"max_epochs": 1})


class Odometer(LightningModule):
    """How fast a rover drives, from wheels whose calibration is learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.calibration = nn.Linear(4, 2, bias=False)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        wheels, speed = batch
        moved = self.calibration(wheels)
        return F.huber_loss(torch.hypot(moved[:, 0], moved[:, 1]), speed)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite(
        "NAN113", "hypot", "return F.huber_loss(torch.hypot(moved[:, 0]", phase="backward", modules=("",), rows=(2,)
    ),
    "https://github.com/pytorch/pytorch/issues/2421",
    "https://pytorch.org/docs/stable/generated/torch.hypot.html",
)
def rover_that_waits() -> LightningRun:
    """The speed is the length of what two axes have moved; for one second the rover waits, and 0 has no slope."""
    rng = np.random.default_rng(4203)
    wheels = rng.normal(size=(32 * 45, 4))
    wheels[35 * 32 + 2] = 0
    speed = np.linalg.norm(wheels @ rng.normal(size=(4, 2)), axis=1)
    return LightningRun(
        Odometer(), in_order(*(a.astype("float32") for a in (wheels, speed)), size=32), {"max_epochs": 1}
    )


# -- policies --------------------------------------------------------------------------------------------------------


class ActorCritic(LightningModule):
    """An agent for an arcade game; actor and critic share their first layers."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(10, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU())
        self.actor, self.critic = nn.Linear(48, 4), nn.Linear(48, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        screen, action, score = batch
        hidden = self.trunk(screen)
        value = self.critic(hidden).squeeze(1)
        advantage = score - value
        better = F.cross_entropy(self.actor(hidden), action, reduction="none") * F.normalize(advantage.detach(), dim=0)
        return better.mean() + 0.5 * advantage.square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.RMSprop(self.parameters(), lr=7e-4)


@enter(
    finite(Happens.STALL, "DATA509"),
    "https://github.com/google-deepmind/open_spiel/issues/742",
    "https://github.com/openai/sonic-on-ray/issues/4",
)
def score_of_an_arcade_game() -> LightningRun:
    """The critic is to predict the score as the screen shows it, tens of thousands of points, from zero."""
    rng = np.random.default_rng(4205)
    screen, action = rng.normal(size=(32 * 80, 10)), rng.integers(0, 4, 32 * 80)
    score = 30_000 + 9_000 * np.tanh(screen[:, 0]) + 4_000 * (action == 1)
    return LightningRun(
        ActorCritic(), in_order(screen.astype("float32"), action, score.astype("float32"), size=32), {"max_epochs": 1}
    )


# -- models of the world ---------------------------------------------------------------------------------------------


class Rollout(LightningModule):
    """Learns the dynamics of an arm by rolling it out over ninety moments, each a residual of the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.change = nn.Sequential(nn.Linear(6, 48), nn.ReLU(), nn.Linear(48, 4))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        state, torque, path = batch
        loss = state.new_zeros(())
        for moment in range(torque.shape[1]):
            state = state + 0.1 * self.change(torch.cat([state, torque[:, moment]], 1))
            loss = loss + F.mse_loss(state, path[:, moment])
        return loss / torque.shape[1]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.03)


@enter(
    runaway(("GRAD203", "OPT601")),
    "https://pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html",
)
def arm_rolled_out_for_ninety_moments() -> LightningRun:
    """Every moment multiplies the gradient a little, ninety of them without bound, and nothing clips it."""
    rng = np.random.default_rng(4206)
    state, torque = rng.normal(size=(16 * 40, 4)), rng.normal(size=(16 * 40, 90, 2))
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    path, now = [], state
    for moment in range(90):
        now = 0.9 * now @ turn + 0.3 * torque[:, moment] @ np.eye(2, 4)
        path.append(now)
    columns = (column.astype("float32") for column in (state, torque, np.stack(path, 1)))
    return LightningRun(Rollout(), in_order(*columns, size=16), {"max_epochs": 1})


class Clipped(Rollout):
    """The same with a clip and an optimiser that suits it."""

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(healthy(), "https://pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html")
def arm_that_is_clipped() -> LightningRun:
    """Twenty moments of an arm; gradients of the first steps are large, and all of them are clipped to 1."""
    rng = np.random.default_rng(4207)
    state, torque = rng.normal(size=(16 * 60, 4)), rng.normal(size=(16 * 60, 20, 2))
    path, now = [], state
    for moment in range(20):
        now = 0.95 * now + 0.3 * torque[:, moment] @ np.eye(2, 4)
        path.append(now)
    columns = (column.astype("float32") for column in (state, torque, np.stack(path, 1)))
    return LightningRun(Clipped(), in_order(*columns, size=16), {"max_epochs": 1, "gradient_clip_val": 1.0})
