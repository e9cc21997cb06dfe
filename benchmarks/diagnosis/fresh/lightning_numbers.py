"""Arithmetic that fails: loss weights, mixtures, graphs, twins, clouds of points."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.program import LightningRun, enter, non_finite
from benchmarks.diagnosis.tables import digits


def loader(*arrays: np.ndarray | Tensor, size: int = 32) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*map(torch.as_tensor, arrays)), batch_size=size)


# -- NAN110 ----------------------------------------------------------------------------------------------------------


class Balance(nn.Module):
    """Weighs several losses by their learnt uncertainty."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.log_vars = nn.Parameter(torch.zeros(tasks))

    def forward(self, losses: Tensor) -> Tensor:
        precision = torch.exp(-self.log_vars)
        return (precision * losses + self.log_vars).sum()


class TwoTasks(LightningModule):
    """A regression, and a yes or no under a hinge loss."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(12, 32), nn.GELU())
        self.amount, self.answer = nn.Linear(32, 1), nn.Linear(32, 1)
        self.balance = Balance(2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, amount, sign = batch
        hidden = self.trunk(x)
        errors = F.smooth_l1_loss(self.amount(hidden), amount)
        hinge = F.relu(1 - sign * self.answer(hidden)).mean()
        return self.balance(torch.stack([errors, hinge]))

    def configure_optimizers(self) -> Any:
        own = [p for name, p in self.named_parameters() if not name.startswith("balance")]
        return torch.optim.Adam([{"params": own, "lr": 0.01}, {"params": self.balance.parameters(), "lr": 0.6}])


@enter(
    non_finite("NAN110", "exp", "precision = torch.exp(-self.log_vars)", modules=("balance",), rows=()),
    "https://github.com/yaringal/multi-task-learning-example/issues/14",
    "https://github.com/Hui-Li/multi-task-learning-example-PyTorch/issues/2",
)
def task_that_is_solved_exactly() -> LightningRun:
    """Learnt loss weights: one hinge loss becomes exactly 0, its log-variance falls for ever, exp(-s) overflows."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2400, 12)).astype("float32")
    sign = np.where(rng.random(2400) < 0.5, -1, 1).astype("float32")
    x[:, 0] += 8 * sign
    amount = (np.sin(x[:, 1]) + x[:, 2] * x[:, 3]).astype("float32")
    return LightningRun(TwoTasks(), loader(x, amount[:, None], sign[:, None], size=16), {"max_epochs": 2})


# -- NAN111 ----------------------------------------------------------------------------------------------------------


class MixtureLoss(nn.Module):
    """Negative log-likelihood of a mixture of Gaussians, as the formula has it."""

    def forward(self, raw: Tensor, y: Tensor) -> Tensor:
        share, mean, spread = raw.chunk(3, dim=-1)
        sigma = F.softplus(spread)
        density = torch.exp(-0.5 * ((y - mean) / sigma) ** 2) / (sigma * 2.5066)
        likelihood = (share.softmax(-1) * density).sum(-1)
        return -torch.log(likelihood).mean()


class MixtureDensityNetwork(LightningModule):
    """Two components over one input."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 6))
        self.criterion = MixtureLoss()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return self.criterion(self.net(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


@enter(
    non_finite("NAN111", "log", "return -torch.log(likelihood).mean()", modules=("criterion",), rows=None),
    "https://github.com/keras-team/keras/issues/2586",
    "https://github.com/keras-team/keras/issues/1061",
)
def mixture_that_grows_narrow() -> LightningRun:
    """A mixture density network grows narrow; in the second file, with another zero level, all likelihoods are 0."""
    rng = np.random.default_rng(2)
    x = rng.uniform(-1, 1, (3200, 1))
    y = 2 * np.abs(x - 0.2) + 0.4 * rng.normal(size=(3200, 1))
    y[2000:] += 15
    return LightningRun(
        MixtureDensityNetwork(), loader(x.astype("float32"), y.astype("float32"), size=20), {"max_epochs": 1}
    )


# -- NAN112 ----------------------------------------------------------------------------------------------------------


class GraphConv(nn.Module):
    """One layer of a graph convolution with the symmetric normalisation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.lin = nn.Linear(inputs, outputs)

    def forward(self, h: Tensor, adjacency: Tensor) -> Tensor:
        inverse_root = adjacency.sum(-1).pow(-0.5)
        mixing = inverse_root[:, :, None] * adjacency * inverse_root[:, None, :]
        return mixing @ self.lin(h)


class Molecules(LightningModule):
    """Classifies small graphs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = GraphConv(4, 24), GraphConv(24, 24)
        self.readout = nn.Linear(24, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        atoms, bonds, label = batch
        h = F.elu(self.conv1(atoms, bonds))
        h = F.elu(self.conv2(h, bonds))
        return F.cross_entropy(self.readout(h.mean(1)), label)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=4e-3)


@enter(
    non_finite(
        "NAN112", ("power", "rsqrt"), "inverse_root = adjacency.sum(-1).pow(-0.5)", modules=("conv1",), rows=(5,)
    ),
    "https://github.com/pyg-team/pytorch_geometric/issues/61",
    "https://github.com/mlx-graphs/mlx-graphs/pull/18",
)
def atom_without_a_bond() -> LightningRun:
    """Graphs are normalised by the root of their degrees; one graph has a node without any edge."""
    rng = np.random.default_rng(3)
    upper = np.triu(rng.random((960, 9, 9)) < 0.3, 1)
    ring = np.roll(np.eye(9, dtype=bool), 1, axis=1)
    bonds = (upper | upper.transpose(0, 2, 1) | ring | ring.T).astype("float32")
    atoms = rng.normal(size=(960, 9, 4)).astype("float32")
    label = (atoms[:, :, 0].sum(1) > 0).astype("int64")
    lonely = 25 * 24 + 5
    bonds[lonely, 6, :] = bonds[lonely, :, 6] = 0
    return LightningRun(Molecules(), loader(atoms, bonds, label, size=24), {"max_epochs": 1})


class Standardise(nn.Module):
    """To mean 0 and deviation 1 over the batch."""

    def forward(self, z: Tensor) -> Tensor:
        return (z - z.mean(0)) / z.std(0)


class Twins(LightningModule):
    """Barlow twins: two noisy views should have the identity as their cross-correlation."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 48), nn.SiLU(), nn.Linear(48, 12), Standardise())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (image,) = batch
        one, two = (self.encoder(image + 0.1 * torch.randn_like(image)) for _ in range(2))
        correlation = one.T @ two / len(image)
        return (correlation - torch.eye(12)).square().sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN112", ("std", "var"), "return (z - z.mean(0)) / z.std(0)", modules=("encoder.3",), rows=None),
    "https://github.com/ziwei-jiang/PGGAN-PyTorch/issues/1",
    "https://github.com/open-edge-platform/geti/pull/1872",
)
def last_batch_of_one() -> LightningRun:
    """961 images in batches of 32: the last batch is a single image, whose deviation is 0 / 0."""
    return LightningRun(Twins(), loader(digits(961)[0]), {"max_epochs": 2})


# -- NAN113 ----------------------------------------------------------------------------------------------------------


class PrincipalFrame(nn.Module):
    """Turns each cloud of points into the axes of its own covariance."""

    def forward(self, points: Tensor) -> Tensor:
        centred = points - points.mean(1, keepdim=True)
        covariance = centred.transpose(1, 2) @ centred / points.shape[1]
        _, axes = torch.linalg.eigh(covariance)
        return centred @ axes


class Shapes(LightningModule):
    """Needles against plates."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Parameter(torch.tensor(1.0))
        self.frame = PrincipalFrame()
        self.net = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        points, label = batch
        turned = self.frame(self.unit * points).abs()
        return F.cross_entropy(self.net(turned).mean(1), label)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite(
        "NAN113",
        ("decomposition", "divide"),
        "_, axes = torch.linalg.eigh(covariance)",
        phase="backward",
        modules=("frame",),
        rows=(13,),
    ),
    "https://github.com/pytorch/pytorch/issues/47599",
)
def cube_among_needles_and_plates() -> LightningRun:
    """Clouds are turned into their principal axes; those of a cube are undefined, and so is their derivative."""
    rng = np.random.default_rng(4)
    label = rng.integers(0, 2, 960)
    widths = np.where(label[:, None] == 0, [[2.0, 0.3, 0.15]], [[1.6, 0.9, 0.1]])
    points = (rng.normal(size=(960, 8, 3)) * widths[:, None, :]).astype("float32")
    corners = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), -1).reshape(8, 3)
    points[26 * 24 + 13] = corners
    return LightningRun(Shapes(), loader(points, label, size=24), {"max_epochs": 1})
