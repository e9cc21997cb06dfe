"""Series and signals, in Lightning: mixed units, state spaces, alignments, spectrograms, scans, optimizers by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, non_finite, runaway
from benchmarks.diagnosis.tables import regression, two_blobs, waves


class Greenhouse(LightningModule):
    """The temperature of the next hour, from the last day."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(1, 32, batch_first=True)
        self.head = nn.Linear(32, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        day, following = batch
        states, _ = self.rnn((day - 20) / 6)
        return F.mse_loss(self.head(states[:, -1]), (following - 20) / 6)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    finite(Happens.SPIKE, "DATA512", rows=None),
    "https://github.com/Common-Longitudinal-ICU-data-Format/CLIF-MIMIC/issues/30",
    "https://github.com/merbanan/rtl_433/issues/2253",
)
def greenhouses_of_another_continent() -> LightningRun:
    """The files of the second country follow after 35 batches, and their thermometers tell degrees Fahrenheit."""
    day, following = waves(1600, length=24)
    day, following = 20 + 8 * day, 20 + 8 * following
    day[35 * 32 :] = 1.8 * day[35 * 32 :] + 32
    following[35 * 32 :] = 1.8 * following[35 * 32 :] + 32
    return LightningRun(Greenhouse(), in_order(day, following, size=32), {"max_epochs": 1})


class StateSpace(LightningModule):
    """A linear state space over 120 steps, with a transition that nothing keeps inside of the unit circle."""

    def __init__(self) -> None:
        super().__init__()
        self.transition = nn.Parameter(0.7 * torch.eye(24))
        self.enter, self.leave = nn.Linear(1, 24), nn.Linear(24, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        signal, following = batch
        state = torch.zeros(len(signal), 24)
        for moment in self.enter(signal).unbind(1):
            state = state @ self.transition + moment / 10
        return F.mse_loss(self.leave(state), following)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.03)


@enter(
    runaway(("GRAD203", "OPT601")),
    "https://github.com/woowacampers/d2l-pytorch/issues/4",
    "https://github.com/square/pysurvival/pull/11",
)
def state_space_without_a_leash() -> LightningRun:
    """A level sums 120 hours of rain: the transition comes to the unit circle, and unclipped steps cross it."""
    rain = np.random.default_rng(13).normal(size=(1280, 120, 1)).astype("float32")
    level = rain.sum(1) / 11
    return LightningRun(StateSpace(), in_order(rain, level.astype("float32"), size=32), {"max_epochs": 2})


class Gestures(LightningModule):
    """Draws the gesture that was asked for; compared by soft dynamic time warping."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 48), nn.Tanh(), nn.Linear(48, 8))

    def warp(self, drawn: Tensor, wanted: Tensor, gamma: float = 0.05) -> Tensor:
        cost = (drawn[:, :, None] - wanted[:, None, :]).square()
        far = torch.full((len(drawn),), 4.0)
        rows = [torch.zeros(len(drawn))] + [far] * 8
        for i in range(8):
            following = [far]
            for j in range(8):
                ways = torch.stack([rows[j], rows[j + 1], following[j]])
                nearest = -gamma * torch.log(torch.exp(-ways / gamma).sum(0))
                following.append(cost[:, i, j] + nearest)
            rows = following
        return rows[-1]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        asked, wanted = batch
        return self.warp(self.net(asked), wanted).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite(("NAN111", "DATA504"), "log", "nearest = -gamma * torch.log(", modules=("",), rows=(15,)),
    "https://github.com/Maghoumi/pytorch-softdtw-cuda/issues/8",
    "https://github.com/tslearn-team/tslearn/issues/510",
)
def gesture_far_larger_than_drawn() -> LightningRun:
    """The soft minimum is written out; one gesture is so large that all three ways underflow, and log gets a zero."""
    rng = np.random.default_rng(8)
    asked = rng.normal(size=(1280, 4)).astype("float32")
    phases = np.arange(8) * 0.7
    wanted = 0.3 * np.sin(phases + asked[:, :1]) + 0.1 * asked[:, 1:2]
    wanted[28 * 32 + 15] = 1.5 * np.sin(phases)
    return LightningRun(Gestures(), in_order(asked, wanted.astype("float32"), size=32), {"max_epochs": 1})


class Birds(LightningModule):
    """Which of four birds sings in a spectrogram of 16 bands and 12 frames."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 48), nn.ReLU(), nn.Linear(48, 4))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        decibels, bird = batch
        return F.cross_entropy(self.net(decibels / 80), bird)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    finite(Happens.STALL, "DATA506", rows=None),
    "https://github.com/kitzeslab/opensoundscape/issues/793",
    "https://github.com/fatchord/WaveRNN/issues/162",
)
def songs_below_the_floor() -> LightningRun:
    """Power is told in decibels of the loudest possible tone and cut at -80: every song is below that, and is -80."""
    rng = np.random.default_rng(9)
    bird = rng.integers(0, 4, 1280)
    power = 1e-12 * rng.exponential(size=(1280, 16, 12))
    power[np.arange(1280), 3 * bird + 2] *= 300
    decibels = np.maximum(10 * np.log10(power), -80).astype("float32")
    return LightningRun(Birds(), in_order(decibels, bird, size=32), {"max_epochs": 2})


class Lookahead(Callback):
    """Every forty steps the weights go half of the way back to the slow ones."""

    def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
        self.slow = [parameter.detach().clone() for parameter in pl_module.parameters()]

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Any, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % 40 == 0:
            for slow, fast in zip(self.slow, pl_module.parameters(), strict=True):
                slow.add_(0.5 * (slow - fast))
                fast.copy_(slow)


class Load(LightningModule):
    """Load of a grid."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, load = batch
        return F.mse_loss(self.net(x), load)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


@enter(
    finite(Happens.SPIKE, "OPT609"),
    "https://github.com/google-deepmind/optax/issues/263",
    "https://github.com/wandb/senpai/pull/2241",
)
def slow_weights_that_run_away() -> LightningRun:
    """A lookahead by hand with a sign the wrong way: every forty steps the weights are thrown to the other side."""
    x, y = regression(2560)
    load = 4.0 + 0.5 * y
    return LightningRun(Load(), in_order(x, load, size=32), {"max_epochs": 1, "callbacks": [Lookahead()]})


class Scans(LightningModule):
    """The volume of a tree from the points of a scan."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Sequential(nn.Linear(3, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU())
        self.head = nn.Linear(48, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        points, volume = batch
        return F.mse_loss(self.head(self.point(points).mean(1)), volume)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    finite(Happens.SPIKE, "DATA503", rows=(3, 27)),
    "https://github.com/zju3dv/LiDAR-RT/issues/13",
    "https://github.com/torch-points3d/torch-points3d/issues/502",
)
def echoes_from_the_sky() -> LightningRun:
    """Two scans of one batch hold a point at a thousand metres, where the laser met nothing at all."""
    rng = np.random.default_rng(10)
    size = rng.uniform(0.5, 1.5, (1280, 1, 3))
    points = (size * rng.normal(size=(1280, 30, 3))).astype("float32")
    volume = size.prod(2).astype("float32")
    points[36 * 32 + 3, 11] = points[36 * 32 + 27, 4] = (0.0, 0.0, 1000.0)
    return LightningRun(Scans(), in_order(points, volume, size=32), {"max_epochs": 1})


class Polyak(torch.optim.Optimizer):
    """Steps as long as the loss divided by the squared gradient."""

    def __init__(self, parameters: Any, longest: float = 0.3) -> None:
        super().__init__(parameters, {"longest": longest})

    def step(self, closure: Any = None) -> Any:
        with torch.enable_grad():
            loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                moved = [parameter for parameter in group["params"] if parameter.grad is not None]
                squared = sum(parameter.grad.square().sum() for parameter in moved)
                length = torch.minimum(loss.detach() / squared, torch.tensor(group["longest"]))
                for parameter in moved:
                    parameter.sub_(length * parameter.grad)
        return loss


class Faults(LightningModule):
    """Faulty or sound, with a margin."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(8, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, faulty = batch
        return F.relu(1 - (2 * faulty - 1) * self.net(x)).mean()

    def configure_optimizers(self) -> Any:
        return Polyak(self.parameters())


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("OPT605",), kind="parameters"),
    "https://github.com/kozistr/pytorch_optimizer/pull/431",
    "https://github.com/google-deepmind/optax/pull/1743",
)
def step_of_polyak_without_a_gradient() -> LightningRun:
    """The step is loss over squared gradient; where every margin of a batch holds, both are 0."""
    x, faulty = two_blobs(1280, gap=2.4)
    return LightningRun(Faults(), in_order(x, faulty, size=32), {"max_epochs": 2})
