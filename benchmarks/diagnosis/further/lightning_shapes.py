"""Geometry, graphs and physics: rotations, distances, curves, waves, transport and populations."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import LightningRun, enter, non_finite


class _Adam(LightningModule):
    """Adam at a rate of each model's own."""

    rate = 3e-3

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.rate)


def _run(module: LightningModule, *columns: np.ndarray, size: int) -> LightningRun:
    narrow = [column.astype("float32") if column.dtype == np.float64 else column for column in columns]
    return LightningRun(module, in_order(*narrow, size=size), {"max_epochs": 1})


class Marker(_Adam):
    """Corrects markers of a motion capture by one linear map; scored after the best rotation (Kabsch)."""

    def __init__(self) -> None:
        super().__init__()
        self.correct = nn.Linear(2, 2, bias=False)
        nn.init.eye_(self.correct.weight)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        seen, true = batch
        moved = self.correct(seen)
        left, _, right = torch.linalg.svd(moved.transpose(1, 2) @ true)
        return F.mse_loss(moved @ (left @ right), true)


@enter(
    non_finite(
        "NAN113",
        ("svd", "linalg_svd", "decomposition"),
        "left, _, right = torch.linalg.svd(moved",
        phase="backward",
        modules=("",),
        rows=(5,),
    ),
    "https://github.com/pytorch/pytorch/issues/49886",
    "https://github.com/pytorch/pytorch/pull/54002",
)
def markers_of_a_frame_that_was_lost() -> LightningRun:
    """The derivative of singular vectors divides by differences of singular values; a lost frame has 0 and 0."""
    rng = np.random.default_rng(7201)
    true = rng.normal(size=(16 * 45, 6, 2))
    turn = rng.uniform(-1, 1, len(true))
    rotation = np.stack([np.stack([np.cos(turn), -np.sin(turn)], 1), np.stack([np.sin(turn), np.cos(turn)], 1)], 1)
    seen = true @ rotation * [1.4, 0.7] + 0.05 * rng.normal(size=true.shape)
    seen[27 * 16 + 5] = 0
    return _run(Marker(), seen, true, size=16)


class Refraction(nn.Module):
    """Cosine of the angle behind a surface, by the law of Snell."""

    def forward(self, sine: Tensor, ratio: Tensor) -> Tensor:
        return torch.sqrt(1 - (ratio * sine).square())


class Lens(_Adam):
    """Light that leaves a lens, from the angle and from a few numbers about its glass."""

    def __init__(self) -> None:
        super().__init__()
        self.refraction = Refraction()
        self.net = nn.Sequential(nn.Linear(4, 20), nn.ReLU(), nn.Linear(20, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        ray, light = batch
        cosine = self.refraction(ray[:, :1], ray[:, 1:2])
        return F.mse_loss(self.net(torch.cat([ray[:, 1:], cosine], 1)).squeeze(1), light)


@enter(
    non_finite(
        "NAN114", "sqrt", "return torch.sqrt(1 - (ratio * sine).square())", modules=("refraction",), rows=(3, 14)
    ),
    "https://pytorch.org/docs/stable/generated/torch.sqrt.html",
    "https://github.com/pytorch/pytorch/issues/8069",
)
def light_that_does_not_leave_the_glass() -> LightningRun:
    """Behind a steep surface the law of Snell has no solution: the root is taken of a negative number for two rays."""
    rng = np.random.default_rng(7202)
    ray = np.stack([rng.uniform(0, 0.6, 20 * 50), rng.uniform(0.7, 1.5, 20 * 50), *rng.normal(size=(2, 20 * 50))], 1)
    light = 1 - (ray[:, 0] * ray[:, 1]) ** 2 + 0.2 * ray[:, 2]
    ray[36 * 20 + 3, :2] = ray[36 * 20 + 14, :2] = [0.8, 1.5]
    return _run(Lens(), ray, light, size=20)


class Beam(_Adam):
    """Gain of an antenna in a direction: a sinc function whose width is learned."""

    rate = 1e-2

    def __init__(self) -> None:
        super().__init__()
        self.width = nn.Parameter(torch.tensor(1.0))
        self.floor = nn.Linear(3, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        angle, weather, gain = batch
        phase = self.width * angle
        pattern = torch.where(phase == 0, 1.0, torch.sin(phase) / phase)
        return F.mse_loss(pattern + self.floor(weather).squeeze(1), gain)


@enter(
    non_finite(("NAN113", "NAN112"), "divide", "torch.sin(phase) / phase)", phase=None, modules=("",), rows=(7,)),
    "https://github.com/jax-ml/jax/pull/1722",
    "https://github.com/pytorch/pytorch/issues/68425",
)
def antenna_that_looks_straight_ahead() -> LightningRun:
    """The gain straight ahead is chosen by `where`, but the quotient 0/0 that was not chosen poisons the gradient."""
    rng = np.random.default_rng(7203)
    angle, weather = rng.uniform(0.2, 3, 24 * 40), rng.normal(size=(24 * 40, 3))
    gain = np.sin(2 * angle) / (2 * angle) + 0.1 * weather[:, 0]
    angle[25 * 24 + 7], gain[25 * 24 + 7] = 0, 1
    return _run(Beam(), angle, weather, gain, size=24)


class Membrane(_Adam):
    """A round membrane under load, by its differential equation; the network is told the distance from the centre."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (point,) = batch
        point = point.requires_grad_()
        radius = torch.sqrt(point.square().sum(1, keepdim=True))
        height = (1 - radius.square()) * self.net(radius)
        slope = torch.autograd.grad(height.sum(), point, create_graph=True)[0]
        curve = [torch.autograd.grad(slope[:, i].sum(), point, create_graph=True)[0][:, i] for i in range(2)]
        return (curve[0] + curve[1] + 1).square().mean()


@enter(
    non_finite(
        "NAN113",
        ("sqrt", "divide"),
        ("radius = torch.sqrt(point.square()", "slope = torch.autograd.grad(height.sum(), point"),
        phase=None,
        modules=("",),
        rows=(0,),
    ),
    "https://pytorch.org/docs/stable/generated/torch.sqrt.html",
    "https://github.com/prateekbhustali/Physics-Informed-Neural-Networks/issues/1",
)
def membrane_at_its_centre() -> LightningRun:
    """A distance is the root of squares, and has no slope at the centre; one point of the grid lies exactly there."""
    rng = np.random.default_rng(7204)
    point = rng.uniform(-0.7, 0.7, (32 * 40, 2))
    point[30 * 32] = 0
    return _run(Membrane(), point, size=32)


class Taxonomy(_Adam):
    """How deep an animal stands in the tree of life: its distance from the root on a hyperboloid (Lorentz)."""

    rate = 1e-2

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 4, bias=False)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        traits, depth = batch
        time = (1 + self.embed(traits).square().sum(1)).sqrt()
        return F.mse_loss(torch.arccosh(time), depth)


@enter(
    non_finite("NAN113", ("arccosh", "acosh"), "torch.arccosh(time)", phase="backward", modules=("",), rows=(12,)),
    "https://github.com/geoopt/geoopt/pull/79",
    "https://github.com/pytorch/pytorch/issues/8069",
)
def animal_of_which_nothing_is_known() -> LightningRun:
    """The distance from the root is arccosh(1) for an animal without any trait, and its slope is infinite there."""
    rng = np.random.default_rng(7205)
    traits = (rng.uniform(size=(24 * 50, 12)) < 0.4).astype("float64")
    traits[:, 0] = 1
    depth = 0.5 + 0.3 * traits[:, 1:6].sum(1)
    traits[35 * 24 + 12] = 0
    return _run(Taxonomy(), traits, depth, size=24)


class Neighbours(nn.Module):
    """Attention of each stop to the stops that a line leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(5, 8), nn.Linear(5, 8)

    def forward(self, stops: Tensor, lines: Tensor) -> Tensor:
        score = self.query(stops) @ self.key(stops).transpose(1, 2) / 8**0.5
        return torch.softmax(score.masked_fill(lines == 0, float("-inf")), dim=2) @ stops


class Buses(_Adam):
    """Delay of a town's buses from a graph of ten stops."""

    def __init__(self) -> None:
        super().__init__()
        self.neighbours = Neighbours()
        self.head = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        stops, lines, delay = batch
        both = torch.cat([stops, self.neighbours(stops, lines)], 2)
        return F.mse_loss(self.head(both).mean(1).squeeze(1), delay)


@enter(
    non_finite(
        "NAN112",
        "softmax",
        "return torch.softmax(score.masked_fill(lines == 0",
        modules=("neighbours",),
        rows=(1,),
    ),
    "https://github.com/dmlc/dgl/issues/5476",
    "https://github.com/danielegrattarola/keras-gat/issues/23",
)
def stop_that_no_bus_leaves() -> LightningRun:
    """Attention over neighbours masks everything else with -Inf; in one town a stop was closed and has no neighbour."""
    rng = np.random.default_rng(7206)
    stops = rng.normal(size=(16 * 45, 10, 5))
    lines = (rng.uniform(size=(16 * 45, 10, 10)) < 0.4) | (np.arange(10)[:, None] == (np.arange(10) + 1) % 10)
    lines[33 * 16 + 1, 4] = False
    delay = 2 * stops[:, :, 0].mean(1) - stops[:, :, 2].mean(1)
    return _run(Buses(), stops, lines.astype("float32"), delay, size=16)


class Transport(_Adam):
    """Where will the goods of four warehouses go? Costs are corrected by a network, plans made by Sinkhorn."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        routes, plan = batch
        cost = routes[..., 0] + 0.1 * self.net(routes).squeeze(3)
        kernel = torch.exp(-cost / 0.05)
        rows = torch.ones_like(cost[:, :, 0])
        for _ in range(5):
            columns = 1 / torch.einsum("bij,bi->bj", kernel, rows)
            rows = 1 / torch.einsum("bij,bj->bi", kernel, columns)
        return F.mse_loss(rows[:, :, None] * kernel * columns[:, None], plan)


@enter(
    non_finite(
        ("NAN112", "DATA503"),
        ("divide", "reciprocal"),
        "columns = 1 / torch.einsum(",
        modules=("",),
        rows=(6,),
    ),
    "https://github.com/rajewsky-lab/novosparc/issues/50",
    "https://github.com/PythonOT/POT/issues/54",
)
def shop_on_another_continent() -> LightningRun:
    """exp(-cost / 0.05) of a very long way is rounded to 0; a shop that is far from all warehouses has only zeros."""
    rng = np.random.default_rng(7207)
    routes = rng.uniform(0, 1, (16 * 40, 4, 4, 3))
    plan = np.exp(-(routes[..., 0] + 0.3 * routes[..., 1]) / 0.1)
    for _ in range(20):
        plan = plan / plan.sum(1, keepdims=True)
        plan = plan / plan.sum(2, keepdims=True)
    routes[28 * 16 + 6, :, 2, 0] = 40
    return _run(Transport(), routes, plan, size=16)


class Cable(_Adam):
    """Tension of a hanging cable from its span and the parameter of its catenary, with corrections."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 20), nn.ReLU(), nn.Linear(20, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        span, slack, rest, tension = batch
        sag = slack * (torch.cosh(span / (2 * slack)) - 1)
        return F.mse_loss(self.net(torch.cat([sag[:, None], rest], 1)).squeeze(1), tension)


@enter(
    non_finite(
        ("NAN110", "DATA503"), "cosh", "sag = slack * (torch.cosh(span / (2 * slack)) - 1)", modules=("",), rows=(16,)
    ),
    "https://pytorch.org/docs/stable/generated/torch.cosh.html",
)
def cable_measured_in_millimetres() -> LightningRun:
    """A catenary is a hyperbolic cosine; one span is given in millimetres, and its cosh is beyond every float."""
    rng = np.random.default_rng(7208)
    span, slack, rest = rng.uniform(2, 3, 24 * 45), rng.uniform(0.8, 1.5, 24 * 45), rng.normal(size=(24 * 45, 3))
    tension = slack * np.cosh(span / (2 * slack)) + 0.2 * rest[:, 0]
    span[32 * 24 + 16] *= 1000
    return _run(Cable(), span, slack, rest, tension, size=24)
