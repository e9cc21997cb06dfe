"""Sciences, in Lightning: rotations, medicine, hierarchies, survival, equations, acoustics."""

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


class Between(nn.Module):
    """Spherical interpolation between two rotations."""

    def forward(self, first: Tensor, last: Tensor, share: Tensor) -> Tensor:
        angle = torch.acos((first * last).sum(-1, keepdim=True).clamp(-1, 1))
        return (torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * last) / torch.sin(angle)


class Motion(LightningModule):
    """Corrects the pose between two key frames."""

    def __init__(self) -> None:
        super().__init__()
        self.between = Between()
        self.correct = nn.Sequential(nn.Linear(13, 48), nn.GELU(), nn.Linear(48, 4))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        first, last, share, pose = batch
        guess = self.between(first, last, share)
        correction = self.correct(torch.cat([first, last, share, guess], dim=1))
        return F.mse_loss(guess + correction, pose)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN112", "divide", "torch.sin(share * angle) * last) / torch.sin", modules=("between",), rows=(14,)),
    "https://github.com/dfki-ric/pytransform3d/issues/45",
    "https://github.com/gbionics/liecasadi/issues/12",
)
def joint_that_is_held_between_two_frames() -> LightningRun:
    """A joint has the same rotation in both key frames: the sine of the angle between them is 0, above and below."""
    rng = np.random.default_rng(1)
    first = rng.normal(size=(1280, 4))
    last = first + 0.7 * rng.normal(size=(1280, 4))
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    last /= np.linalg.norm(last, axis=1, keepdims=True)
    first[26 * 32 + 14] = last[26 * 32 + 14] = (0.0, 0.0, 0.0, 1.0)
    share = rng.uniform(0.1, 0.9, (1280, 1))
    pose = (1 - share) * first + share * last + 0.1 * np.tanh(first[:, ::-1])
    data = (array.astype("float32") for array in (first, last, share, pose))
    return LightningRun(Motion(), in_order(*data, size=32), {"max_epochs": 1})


class Uptake(nn.Module):
    """What is in the blood some hours after a tablet that takes a while to dissolve."""

    def __init__(self) -> None:
        super().__init__()
        self.log_speed = nn.Parameter(torch.tensor(0.6))

    def forward(self, hours: Tensor, delay: Tensor) -> Tensor:
        risen = 1 - torch.exp(-self.log_speed.exp() * (hours - delay))
        return torch.where(hours > delay, risen, torch.zeros_like(risen))


class Tablets(LightningModule):
    """Concentrations of a drug, by patient."""

    def __init__(self) -> None:
        super().__init__()
        self.uptake = Uptake()
        self.size = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        patient, hours, delay, measured = batch
        return F.mse_loss(self.size(patient).exp() * self.uptake(hours, delay), measured)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite(("NAN113", "NAN110"), "exp", "risen = 1 - torch.exp(", phase=None, modules=("uptake",), rows=(19,)),
    "https://github.com/pytorch/pytorch/issues/156212",
    "https://github.com/tensorflow/tensorflow/issues/2540",
)
def blood_drawn_before_the_tablet_dissolved() -> LightningRun:
    """`where` puts a 0 before the delay is over, but the exponential of 52 hours before overflows behind it."""
    patient, y = regression(1280)
    rng = np.random.default_rng(2)
    hours, delay = rng.uniform(0, 30, (1280, 1)), rng.uniform(0.5, 30, (1280, 1))
    hours[27 * 32 + 19], delay[27 * 32 + 19] = 2.0, 54.0
    measured = np.exp(0.4 * y) * np.where(hours > delay, 1 - np.exp(-2.2 * (hours - delay)), 0)
    data = (array.astype("float32") for array in (hours, delay, measured))
    return LightningRun(Tablets(), in_order(patient, *data, size=32), {"max_epochs": 1})


class Hyperboloid(nn.Module):
    """Distance on the hyperboloid of Lorentz."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        height = torch.sqrt(1 + a.square().sum(-1)) * torch.sqrt(1 + b.square().sum(-1))
        return torch.acosh(height - (a * b).sum(-1))


class Taxonomy(LightningModule):
    """Species close to their genus, far from the others."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 3))
        self.distance = Hyperboloid()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        one, other, same = batch
        distance = self.distance(self.embed(one), self.embed(other))
        return (same * distance + (1 - same) * F.relu(1.5 - distance)).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite(
        ("NAN114", "NAN113"),
        ("acosh", "arccosh"),
        "return torch.acosh(height",
        phase=None,
        modules=("distance",),
        rows=(8,),
    ),
    "https://github.com/geomstats/geomstats/pull/273",
    "https://github.com/geoopt/geoopt/pull/121",
)
def species_under_two_names() -> LightningRun:
    """One pair is one animal under two names: acosh at 1, or at what rounding makes of 1, where it is vertical."""
    images, labels = digits(1280)
    other = np.roll(np.arange(1280), 1)
    twin = 30 * 32 + 8
    other[twin] = twin
    same = (labels == labels[other]).astype("float32")
    return LightningRun(Taxonomy(), in_order(images, images[other], same, size=32), {"max_epochs": 1})


class Machines(LightningModule):
    """How long machines last, lognormally; many are still running."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Linear(10, 1)
        self.log_spread = nn.Parameter(torch.tensor(0.0))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, log_years, broken = batch
        z = (log_years - self.mean(x)) * torch.exp(-self.log_spread)
        alive = torch.log(1 - torch.special.ndtr(z))
        return -(broken * (-0.5 * z.square() - self.log_spread) + (1 - broken) * alive).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)


@enter(
    non_finite("NAN111", "log", "alive = torch.log(1 - torch.special.ndtr(z))", modules=("",), rows=(11,)),
    "https://github.com/pytorch/pytorch/issues/32632",
    "https://github.com/FBruzzesi/polars-stats/pull/37",
)
def machine_that_does_not_break() -> LightningRun:
    """A machine has run three times as long as the model, sure by now, gives it: its chance to be alive rounds to 0."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(1280, 10)).astype("float32")
    expected = 1.0 + 0.5 * x[:, :1] - 0.4 * x[:, 1:2]
    log_years = expected + 0.05 * rng.normal(size=(1280, 1))
    broken = (rng.random((1280, 1)) < 0.7).astype("float32")
    log_years[broken == 0] -= 0.2
    late = 70 * 16 + 11
    log_years[late], broken[late] = expected[late] + 1.2, 0
    return LightningRun(Machines(), in_order(x, log_years.astype("float32"), broken, size=16), {"max_epochs": 1})


class Equation(LightningModule):
    """A solution of u' = 3 cos(3 t), with some measurements."""

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(1, 24), activation()]
        for _ in range(9):
            layers += [nn.Linear(24, 24), activation()]
        self.net = nn.Sequential(*layers, nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        time, measured = batch
        time = time.requires_grad_()
        u = self.net(time)
        (slope,) = torch.autograd.grad(u.sum(), time, create_graph=True)
        residual = slope - 3 * torch.cos(3 * time)
        return (residual / 3).square().mean() + F.mse_loss(u, measured)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    finite(Happens.STALL, "GRAD202"),
    "https://github.com/SciML/NeuralPDE.jl/pull/603",
    "https://github.com/SciML/SciMLBenchmarks.jl/pull/473",
)
def equation_behind_ten_sigmoids() -> LightningRun:
    """A physics-informed net of ten layers of sigmoids: its output hardly depends on time, and no slope comes back."""
    time = np.random.default_rng(4).uniform(-1, 1, (1280, 1))
    measured = np.sin(3 * time)
    data = in_order(time.astype("float32"), measured.astype("float32"), size=32)
    return LightningRun(Equation(nn.Sigmoid), data, {"max_epochs": 3})


class RootMeanSquare(torch.autograd.Function):
    """Loudness of each stretch of sound, with a gradient by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        loudness = x.square().mean(-1).sqrt()
        ctx.save_for_backward(x, loudness)
        return loudness

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, loudness = ctx.saved_tensors
        return grad[..., None] * x / (x.shape[-1] * loudness[..., None])


class Steps(LightningModule):
    """Who walks there, from the loudness of eight stretches."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(64))
        self.net = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 10))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        sound, person = batch
        loudness = RootMeanSquare.apply((self.gain * sound).view(-1, 8, 8))
        return F.cross_entropy(self.net(loudness), person)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite(
        "NAN115",
        None,
        ("loudness = RootMeanSquare.apply(", "return grad[..., None] * x / (x.shape"),
        kind="operation",
        phase="backward",
        modules=("",),
        rows=(17, 22),
    ),
    "https://github.com/tenstorrent/tt-metal/issues/55585",
    "https://github.com/pytorch/pytorch/issues/2421",
)
def loudness_of_a_held_breath() -> LightningRun:
    """A hand-written gradient divides by the loudness; in two recordings a whole stretch is silent: 0 / 0."""
    sound, person = digits(1280)
    sound = sound - 0.45
    sound[25 * 32 + 17, 8:16] = 0
    sound[25 * 32 + 22, 40:48] = 0
    return LightningRun(Steps(), in_order(sound, person, size=32), {"max_epochs": 1})
