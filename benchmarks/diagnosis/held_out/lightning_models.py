"""Models with bugs of their own: policies, sequence models, detectors, transformers, in other styles than before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from pytorch_lightning import LightningDataModule, LightningModule
from torch import Tensor
from torch.distributions import Normal
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, non_finite
from benchmarks.diagnosis.tables import digits, regression


class Arrays(LightningDataModule):
    """Arrays by name, in batches that are dictionaries."""

    def __init__(self, batch_size: int = 48, **arrays: np.ndarray) -> None:
        super().__init__()
        self.arrays, self.batch_size = arrays, batch_size

    def train_dataloader(self) -> Any:
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in self.arrays.items()}
        rows = [{name: tensor[i] for name, tensor in tensors.items()} for i in range(len(next(iter(tensors.values()))))]
        return DataLoader(rows, batch_size=self.batch_size)  # type: ignore[arg-type]


# -- NAN110 ----------------------------------------------------------------------------------------------------------


class PPO(LightningModule):
    """Proximal policy optimisation of a Gaussian policy from recorded experience."""

    def __init__(self, clip: float = 0.2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.actor = nn.Sequential(nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 6))
        self.log_std = nn.Parameter(torch.zeros(6))

    def surrogate(self, experience: dict[str, Tensor]) -> Tensor:
        policy = Normal(self.actor(experience["state"]), self.log_std.exp())
        log_prob = policy.log_prob(experience["action"]).sum(-1)
        ratio = torch.exp(log_prob - experience["old_log_prob"])
        clipped = ratio.clamp(1 - self.hparams["clip"], 1 + self.hparams["clip"])
        return -torch.min(ratio * experience["advantage"], clipped * experience["advantage"]).mean()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self.surrogate(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 3e-4)


@enter(
    non_finite("NAN110", "exp", "ratio = torch.exp(log_prob - ", modules=("",), rows=(40,)),
    "https://github.com/THUDM/slime/pull/2198",
    "https://github.com/IntelLabs/coach/issues/87",
)
def importance_ratio_of_an_old_policy() -> LightningRun:
    """One recorded action was nearly impossible under the old policy: the ratio of probabilities overflows."""
    state, reward = regression(1440)
    rng = np.random.default_rng(12)
    action = rng.normal(size=(1440, 6)).astype("float32")
    old = (-0.5 * (action**2).sum(1) - 3 * np.log(2 * np.pi)).astype("float32")
    old[22 * 48 + 40] = -140.0
    return LightningRun(
        PPO(), Arrays(state=state, action=action, old_log_prob=old, advantage=reward[:, 0]), {"max_epochs": 1}
    )


# -- NAN111 ----------------------------------------------------------------------------------------------------------


class Emissions(nn.Module):
    """Likelihood of a whole sequence: the product of the likelihoods of its symbols."""

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(symbols))

    def forward(self, sequence: Tensor) -> Tensor:
        each = self.table.softmax(0)[sequence]
        likelihood = each.prod(dim=1)
        return likelihood.log()


class MarkovChain(LightningModule):
    """Learns how often each symbol comes."""

    def __init__(self) -> None:
        super().__init__()
        self.emissions = Emissions(12)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return -self.emissions(batch).mean() / batch.shape[1]

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


class GrowingText(IterableDataset[Tensor]):
    """Batches of ever longer texts."""

    def __iter__(self) -> Iterator[Tensor]:
        drawn = torch.Generator().manual_seed(3)
        probabilities = torch.tensor([0.3, 0.2, 0.1] + [0.4 / 9] * 9)
        for number in range(50):
            yield torch.multinomial(probabilities, 16 * (8 + 2 * number), True, generator=drawn).view(16, -1)


@enter(
    non_finite("NAN111", "log", "return likelihood.log()", modules=("emissions",), rows=None),
    "https://github.com/pytorch/pytorch/issues/1620",
    "https://github.com/RasmussenLab/vamb/issues/12",
)
def likelihood_of_a_long_text() -> LightningRun:
    """The product of the probabilities of a long text underflows to 0 before its logarithm is taken."""
    return LightningRun(MarkovChain(), DataLoader(GrowingText(), batch_size=None), {"max_epochs": 1})


# -- NAN112 ----------------------------------------------------------------------------------------------------------


def balanced_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Rare classes of the batch count more."""
    counts = torch.bincount(labels, minlength=logits.shape[1]).float()
    weights = counts.sum() / counts
    weights = weights / weights.sum()
    return F.cross_entropy(logits, labels, weight=weights)


class ConvNet(LightningModule):
    """Two convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.fc = nn.Linear(256, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.conv1(image.view(-1, 1, 8, 8)))
        return self.fc(F.relu(self.conv2(x)).flatten(1))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return balanced_cross_entropy(self(batch["image"]), batch["label"])

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN112", ("divide", "reciprocal"), "weights = counts.sum() / counts", modules=("",), rows=()),
    "https://github.com/WongKinYiu/yolov9/pull/662",
    "https://github.com/HobbitLong/SupContrast/issues/20",
)
def class_that_the_batch_lacks() -> LightningRun:
    """Weights by the inverse of the frequency in the batch; a batch without any seven."""
    image, label = digits(1280)
    part = np.arange(18 * 64, 19 * 64)
    spare = np.flatnonzero(label[: 5 * 64] != 7)[:64]
    seven = part[label[part] == 7]
    image[seven], label[seven] = image[spare[: len(seven)]], label[spare[: len(seven)]]
    return LightningRun(ConvNet(), Arrays(64, image=image, label=label), {"max_epochs": 1})


# -- NAN113 ----------------------------------------------------------------------------------------------------------


class GeM(nn.Module):
    """Generalised mean pooling with a learnt power."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.pow(self.p).mean(dim=(-2, -1))
        return pooled.pow(1.0 / self.p)


class Retrieval(LightningModule):
    """Digits by their generalised mean."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.Softplus())
        self.scale = nn.Parameter(torch.ones(1))
        self.pool = GeM()
        self.head = nn.Linear(1, 10)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        x = self.scale * batch["image"].view(-1, 1, 8, 8)
        return F.cross_entropy(self.head(self.pool(x)), batch["label"])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


@enter(
    non_finite(
        "NAN113",
        ("power", "log"),
        ("pooled = x.pow(self.p)", "return pooled.pow(1.0 / self.p)"),
        phase="backward",
        modules=("pool",),
        rows=(33,),
    ),
    "https://github.com/keras-team/keras/issues/15600",
    "https://github.com/pytorch/pytorch/issues/6765",
)
def pooled_blank_image() -> LightningRun:
    """The root of a generalised mean of an image that is all zero."""
    image, label = digits(1280)
    image = image + 0.01
    image[21 * 48 + 33] = 0
    return LightningRun(Retrieval(), Arrays(image=image, label=label), {"max_epochs": 1})


# -- NAN114 ----------------------------------------------------------------------------------------------------------


class Heteroscedastic(LightningModule):
    """Predicts a mean and a deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(10, 32), nn.SiLU())
        self.mean, self.deviation = nn.Linear(32, 1), nn.Linear(32, 1)
        nn.init.ones_(self.deviation.bias)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        hidden = self.body(batch["x"])
        forecast = Normal(self.mean(hidden), self.deviation(hidden))
        return -forecast.log_prob(batch["y"]).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("NAN114",),
        kind="exception",
        operations=("ValueError",),
        line="forecast = Normal(self.mean(hidden)",
        rows=None,
    ),
    "https://github.com/ZijieH/CG-ODE/issues/1",
    "https://github.com/pytorch/pytorch/issues/18133",
)
def deviation_without_a_floor() -> LightningRun:
    """The deviation is a linear output; when it goes below 0, the distribution refuses it."""
    x, _ = regression(1440)
    return LightningRun(Heteroscedastic(), Arrays(x=x, y=0.2 * x[:, :1]), {"max_epochs": 4})


# -- NAN115 ----------------------------------------------------------------------------------------------------------


class Project(torch.autograd.Function):
    """Identity; its gradient is made orthogonal to the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        unit = x / x.norm(dim=-1, keepdim=True)
        return upstream - (upstream * unit).sum(-1, keepdim=True) * unit


class Spherical(LightningModule):
    """Two layers with a projected gradient between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 32, bias=False), nn.Linear(32, 10)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        hidden = Project.apply(self.first(batch["image"]))
        return F.cross_entropy(self.second(hidden), batch["label"])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@enter(
    non_finite(
        "NAN115",
        None,
        ("hidden = Project.apply(", "unit = x / x.norm(dim=-1, keepdim=True)"),
        kind="operation",
        phase="backward",
        modules=("",),
        rows=(7,),
    ),
    "https://github.com/facebookresearch/fairchem/pull/1574",
    "https://github.com/pytorch/pytorch/issues/8069",
)
def projected_gradient_of_a_blank_row() -> LightningRun:
    """A gradient written by hand divides by the length of the row, which is 0 for a blank one."""
    image, label = digits(1280)
    image[20 * 48 + 7] = 0
    return LightningRun(Spherical(), Arrays(image=image, label=label), {"max_epochs": 1})


# -- OPT604 ----------------------------------------------------------------------------------------------------------


class TinyGPT(LightningModule):
    """Predicts the class through probabilities, as in a course."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        image, label = batch
        probability = (4 * self.net(image).float()).softmax(-1).half()
        right = probability[torch.arange(len(label)), label]
        return -torch.log(right + 1e-8).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


@enter(
    non_finite("OPT604", "log", "return -torch.log(right + 1e-8).mean()", modules=("",), rows=(12, 44)),
    "https://github.com/pytorch/pytorch/issues/41527",
    "https://github.com/NVIDIA/apex/issues/358",
)
def log_epsilon_in_half_precision() -> LightningRun:
    """log(p + 1e-8) in half precision is log(p); two bright images that the model gets wrong have p = 0."""
    image, label = digits(1280)
    for row in (12, 44):
        image[18 * 64 + row] *= 4
        label[18 * 64 + row] = (label[18 * 64 + row] + 5) % 10
    data = TensorDataset(torch.from_numpy(image).half(), torch.from_numpy(label))
    return LightningRun(TinyGPT(), DataLoader(data, batch_size=64), {"max_epochs": 1, "precision": "16-true"})


# -- OPT605 ----------------------------------------------------------------------------------------------------------


class FarAway(LightningModule):
    """L1 regression of a target far away: every gradient of the bias is exactly the same."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(10, 1)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return (100.3 * (self.linear(batch["x"]) - batch["y"])).abs().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.RMSprop(self.parameters(), lr=1e-4, alpha=0.9, centered=True)


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("OPT605",), phase="optimizer", rows=None),
    "https://github.com/CanReader/FastNN/issues/12",
    "https://github.com/pytorch/pytorch/issues/1767",
)
def centred_rmsprop_of_a_constant() -> LightningRun:
    """Centred RMSprop takes the root of a variance that rounding has made negative."""
    x, y = regression(1440)
    return LightningRun(FarAway(), Arrays(x=x, y=y + 1000), {"max_epochs": 6})


# -- ENV701 ----------------------------------------------------------------------------------------------------------


class Queries(LightningModule):
    """Two learnt queries look at the lit pixels only, as in mask-attention detectors."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.1 * torch.randn(2, 16))
        self.pixel = nn.Embedding(64, 16)
        self.cross = nn.MultiheadAttention(16, 1, batch_first=True)
        self.head = nn.Linear(32, 10)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        image = batch["image"]
        keys = self.pixel.weight.expand(len(image), -1, -1)
        hidden = (image < 0.5)[:, None, :].expand(-1, 2, -1)
        seen, _ = self.cross(self.queries.expand(len(image), -1, -1), keys, keys, attn_mask=hidden)
        return F.cross_entropy(self.head(seen.flatten(1)), batch["label"])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite("ENV701", "softmax", "seen, _ = self.cross(", modules=("cross",), rows=(25,)),
    "https://github.com/facebookresearch/Mask2Former/issues/243",
    "https://github.com/pytorch/pytorch/pull/185338",
)
def image_without_a_lit_pixel() -> LightningRun:
    """A mask that hides every key from a query; nn.MultiheadAttention of this version answers NaN (a known issue)."""
    image, label = digits(1280)
    image[19 * 48 + 25] = 0.2
    return LightningRun(Queries(), Arrays(image=image, label=label), {"max_epochs": 1})


# -- ENV702 ----------------------------------------------------------------------------------------------------------

READS = {"count": 0}


def read_from_device(values: Tensor) -> Tensor:
    """Stands in for a transfer that goes wrong once: the 24th has a NaN."""
    READS["count"] += 1
    if READS["count"] == 24:
        values = values * torch.ones(len(values), 1).index_fill(0, torch.tensor([3]), float("nan"))
    return values


class Offloaded(LightningModule):
    """Half of it runs on another device."""

    def __init__(self) -> None:
        super().__init__()
        READS["count"] = 0
        self.near, self.far = nn.Linear(64, 32), nn.Linear(32, 10)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        hidden = read_from_device(torch.tanh(self.near(batch["image"])))
        return F.cross_entropy(self.far(hidden), batch["label"])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("ENV702",), kind="", rows=()),
    "https://github.com/mrphys/tensorflow-nufft/issues/20",
    "https://github.com/google-research/l2p/issues/24",
)
def transfer_that_failed_once() -> LightningRun:
    """Activations are read back from another device; one transfer brings a NaN, and never again."""
    image, label = digits(1440)
    return LightningRun(Offloaded(), Arrays(image=image, label=label), {"max_epochs": 1})
