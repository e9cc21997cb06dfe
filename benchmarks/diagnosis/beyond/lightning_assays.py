"""Gradients by hand, transport, claims, sparse codes, optimizers of one's own: small models of measured things."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, healthy, non_finite, runaway
from benchmarks.diagnosis.tables import digits, regression


def loader(*columns: np.ndarray, size: int = 32) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*(torch.as_tensor(column) for column in columns)), batch_size=size)


# -- an activation with its own gradient -----------------------------------------------------------------------------


class ThriftyMish(torch.autograd.Function):
    """x · tanh(softplus(x)) that keeps nothing but its operand for the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.tanh(F.softplus(x))

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        power = x.exp()
        omega = 4 * (x + 1) + 4 * power**2 + power**3 + power * (4 * x + 6)
        delta = 2 * power + power**2 + 2
        return outer[0] * power * omega / delta**2


class Mish(nn.Module):
    """The activation as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return ThriftyMish.apply(x)


class Friedman(LightningModule):
    """Regression on ten inputs."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 32), activation, nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.smooth_l1_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite(
        ("NAN115", "NAN110"),
        None,
        (
            "power = x.exp()",
            "omega = 4 * (x + 1) + 4 * power**2 + power**3",
            "return outer[0] * power * omega / delta**2",
            "return ThriftyMish.apply(x)",
        ),
        phase="backward",
        rows=(26,),
    ),
    "https://github.com/AlexeyAB/darknet/issues/3994",
    "https://github.com/AlexeyAB/darknet/issues/5922",
    "https://github.com/explosion/thinc/pull/578",
)
def thrifty_mish() -> LightningRun:
    """A memory-saving activation whose gradient by hand cubes an exponential: one loud row makes it Inf / Inf."""
    x, y = regression(1280, seed=7701)
    x[30 * 32 + 26] *= 40
    return LightningRun(Friedman(Mish()), loader(x, y), {"max_epochs": 1})


# -- spectra ---------------------------------------------------------------------------------------------------------


class Denoise(LightningModule):
    """A mask for spectra; the loss compares magnitudes of the masked spectrum with those of the clean one."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 33), nn.Sigmoid())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        noisy, clean = batch
        spectrum = torch.fft.rfft(noisy) * self.mask(noisy)
        loudness = torch.hypot(spectrum.real, spectrum.imag)
        return F.l1_loss(loudness, torch.fft.rfft(clean).abs())

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite(
        "NAN113",
        "hypot",
        "loudness = torch.hypot(spectrum.real, spectrum.imag)",
        modules=("",),
        phase="backward",
        rows=(16,),
    ),
    "https://github.com/pytorch/audio/issues/993",
    "https://github.com/speechbrain/speechbrain/issues/181",
    "https://github.com/KinWaiCheuk/nnAudio/issues/138",
)
def hypotenuse_of_a_muted_clip() -> LightningRun:
    """Magnitudes by hypot, whose slope at the origin is 0 / 0; one clip is digital silence."""
    rng = np.random.default_rng(7702)
    time = np.arange(64) / 64
    tone = rng.integers(3, 20, (32 * 40, 1))
    clean = np.sin(6.28 * tone * time + rng.uniform(0, 6.28, tone.shape))
    noisy = clean + 0.5 * rng.normal(size=clean.shape)
    noisy[28 * 32 + 16] = clean[28 * 32 + 16] = 0
    return LightningRun(Denoise(), loader(noisy.astype("float32"), clean.astype("float32")), {"max_epochs": 1})


# -- transport -------------------------------------------------------------------------------------------------------


class Transport(LightningModule):
    """Cells are assigned to eight types by entropic transport; the centres of the types are learnt."""

    def __init__(self, logarithms: bool) -> None:
        super().__init__()
        self.logarithms = logarithms
        self.encoder, self.centres = nn.Linear(12, 4), nn.Parameter(0.5 * torch.randn(8, 4))

    def plan(self, cost: Tensor) -> Tensor:
        kernel = torch.exp(-cost / 0.1)
        right = torch.ones(8) / 8
        for _ in range(10):
            left = (1 / len(cost)) / (kernel @ right)
            right = (1 / 8) / (kernel.T @ left)
        return left[:, None] * kernel * right

    def plan_in_logarithms(self, cost: Tensor) -> Tensor:
        score = -cost / 0.1
        left, right = torch.zeros(len(cost), 1), torch.zeros(1, 8)
        for _ in range(10):
            left = -(score + right).logsumexp(1, keepdim=True) - float(np.log(len(cost)))
            right = -(score + left).logsumexp(0, keepdim=True) - float(np.log(8))
        return (score + left + right).exp()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (cells,) = batch
        cost = (self.encoder(cells)[:, None] - self.centres).square().sum(2)
        plan = self.plan_in_logarithms(cost) if self.logarithms else self.plan(cost)
        return (plan * cost).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def cells(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.4 * rng.normal(size=(8, 12))[rng.integers(0, 8, 32 * 45)] + 0.1 * rng.normal(size=(32 * 45, 12))).astype(
        "float32"
    )


@enter(
    non_finite(
        ("NAN112", "DATA503"),
        ("div", "divide", "truediv", "reciprocal"),
        "left = (1 / len(cost)) / (kernel @ right)",
        modules=("",),
        rows=(12,),
    ),
    "https://github.com/rajewsky-lab/novosparc/issues/50",
    "https://github.com/PythonOT/POT/issues/54",
    "https://github.com/ott-jax/ott/pull/578",
)
def cell_that_no_type_can_reach() -> LightningRun:
    """Transport by its kernel exp(-cost / 0.1): the row of a far cell is all zeros, and its scale a division by it."""
    measured = cells(7703)
    measured[32 * 32 + 12] *= 40
    return LightningRun(Transport(False), loader(measured), {"max_epochs": 1})


@enter(healthy(), "https://github.com/fwilliams/point-cloud-utils/issues/70")
def transport_in_logarithms() -> LightningRun:
    """The same transport in logarithms: it does not matter that kernels would be zero."""
    return LightningRun(Transport(True), loader(cells(7704)), {"max_epochs": 2})


# -- claims ----------------------------------------------------------------------------------------------------------


class Claims(LightningModule):
    """Amounts of claims under the deviance of a gamma distribution, with a logarithmic link."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        policy, amount = batch
        mean = self.net(policy).clamp(-10, 10).exp()
        return 2 * (amount / mean - 1 - torch.log(amount / mean)).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite(
        ("NAN111", "DATA505", "DATA503", "DATA504"),
        "log",
        "return 2 * (amount / mean - 1 - torch.log(amount / mean)).mean()",
        modules=("",),
        rows=(2,),
    ),
    "https://github.com/Evovest/EvoTrees.jl/issues/354",
    "https://github.com/lightgbm-org/LightGBM/issues/2133",
    "https://github.com/dmlc/xgboost/issues/6723",
)
def claim_that_was_withdrawn() -> LightningRun:
    """A gamma deviance is not defined at zero; one claim was withdrawn and stands in the table with 0."""
    rng = np.random.default_rng(7705)
    policy = rng.normal(size=(32 * 45, 6)).astype("float32")
    amount = rng.gamma(2.0, 0.5 * np.exp(0.5 * policy[:, :1])).astype("float32") + 0.01
    amount[35 * 32 + 2] = 0
    return LightningRun(Claims(), loader(policy, amount), {"max_epochs": 1})


# -- bumps around centres --------------------------------------------------------------------------------------------


class Bumps(LightningModule):
    """A network of radial bumps."""

    def __init__(self) -> None:
        super().__init__()
        self.centres, self.head = nn.Parameter(torch.randn(64, 10)), nn.Linear(64, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, targets = batch
        distance = (inputs[:, None] - self.centres).square().sum(2)
        return F.mse_loss(self.head(torch.exp(-0.1 * distance)), targets)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


@enter(
    finite(Happens.STALL, "DATA502"),
    "https://github.com/scikit-learn/scikit-learn/issues/18432",
    "https://github.com/hichamjanati/srf/issues/1",
)
def soils_beyond_every_bump() -> LightningRun:
    """Radial bumps of width one stand around zero; the table is in its raw units, and no row is near a bump."""
    x, y = regression(1280, seed=7706)
    raw = x * np.array([15, 200, 8, 40, 3, 90, 25, 12, 60, 5]) + np.array([40, 900, 30, 7, 15, 300, 80, 50, 200, 20])
    return LightningRun(Bumps(), loader(raw.astype("float32"), y), {"max_epochs": 3})


# -- sparse codes ----------------------------------------------------------------------------------------------------


class Unrolled(LightningModule):
    """Eight unrolled steps of soft thresholding with learnt matrices."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.enter, self.again = nn.Linear(64, 48, bias=False), nn.Linear(48, 48, bias=False)
        self.threshold, self.words = nn.Parameter(torch.tensor(0.05)), nn.Linear(48, 64, bias=False)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, _ = batch
        seen = self.enter(images)
        code = seen
        for _ in range(8):
            code = seen + self.again(code)
            code = code.sign() * F.relu(code.abs() - self.threshold)
        return (self.words(code) - images).square().sum(1).mean() + 0.01 * code.abs().sum(1).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.rate)


@enter(
    runaway(("OPT601", "OPT609")),
    "https://github.com/minhnhat93/lfa_sc/issues/2",
    "https://github.com/facebookresearch/detr/issues/285",
)
def sparse_codes_in_long_strides() -> LightningRun:
    """Unrolled sparse coding under plain gradient descent, with a rate ten times what it bears."""
    return LightningRun(Unrolled(0.1), loader(*digits(1280)), {"max_epochs": 2})


# -- an optimizer of one's own ---------------------------------------------------------------------------------------


class ByCurvature(torch.optim.Optimizer):
    """Steps are divided by a running mean of squared gradients, per weight: a poor man's natural gradient."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                curvature = state.setdefault("curvature", torch.zeros_like(weight))
                curvature.mul_(0.9).addcmul_(weight.grad, weight.grad, value=0.1)
                weight.sub_(group["lr"] * weight.grad / curvature.sqrt())
        return loss


class OwnOptimizer(Friedman):
    """The same regression under an optimizer without an epsilon."""

    def configure_optimizers(self) -> Any:
        return ByCurvature(self.parameters(), lr=1e-3)


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("OPT605",), phase="optimizer", rows=None),
    "https://github.com/kozistr/pytorch_optimizer/issues/120",
    "https://github.com/kozistr/pytorch_optimizer/pull/522",
    "https://github.com/shivram1987/AdaNorm/issues/1",
)
def column_that_is_zero_for_two_batches() -> LightningRun:
    """An optimizer of one's own divides by a running spread without an epsilon; one flag has not been set yet."""
    x, y = regression(1280, seed=7707)
    x[:64, 3] = 0
    return LightningRun(OwnOptimizer(nn.Tanh()), loader(x, y), {"max_epochs": 1})
