"""Arithmetic that breaks at an edge, in Lightning: overflow, log of zero, 0/0, corners, hand-written gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.diagnosis.program import LightningRun, enter, non_finite
from benchmarks.diagnosis.tables import digits, regression, two_blobs


def tensors(*arrays: np.ndarray) -> TensorDataset:
    return TensorDataset(*(torch.from_numpy(array) for array in arrays))


# -- NAN110: overflow ------------------------------------------------------------------------------------------------


class TwoViews(Dataset[tuple[Tensor, Tensor]]):
    """Two noisy views of each digit."""

    def __init__(self) -> None:
        self.images = torch.from_numpy(digits(1280)[0])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = torch.Generator().manual_seed(index)
        first, second = 0.1 * torch.randn(2, 64, generator=noise)
        return self.images[index] + first, self.images[index] + second


class Contrastive(LightningModule):
    """Brings two views of the same digit together."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        a, b = (F.normalize(self.encoder(view), dim=-1) for view in batch)
        similarity = self.logit_scale.exp() * a @ b.T
        weights = torch.exp(similarity)
        return -torch.log(weights.diagonal() / weights.sum(1)).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(
            [{"params": self.encoder.parameters(), "lr": 3e-3}, {"params": [self.logit_scale], "lr": 0.1}]
        )


@enter(
    non_finite("NAN110", "exp", "weights = torch.exp(similarity)", modules=("",), rows=None),
    "https://github.com/Lightning-Universe/lightning-bolts/issues/811",
    "https://github.com/yichen928/ActiveFT/issues/4",
)
def contrastive_scale_grows() -> LightningRun:
    """A learnt logit scale without a ceiling outgrows what exp can hold; the softmax is written by hand."""
    return LightningRun(Contrastive(), DataLoader(TwoViews(), batch_size=32), {"max_epochs": 3})


class SoftPlus(nn.Module):
    """Keeps the prediction positive."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.log(1 + torch.exp(x))


class Waiting(LightningModule):
    """Predicts a waiting time in minutes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1))
        self.positive = SoftPlus()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, minutes = batch
        return F.smooth_l1_loss(self.positive(self.body(x)), minutes)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


@enter(
    non_finite("NAN110", "exp", "return torch.log(1 + torch.exp(x))", modules=("positive",), rows=None),
    "https://manongdao.com/article-2153735.html",
    "https://codemia.io/knowledge-hub/path/avoid_overflow_with_softplus_function_in_python",
)
def softplus_by_hand() -> LightningRun:
    """log(1 + exp(x)) overflows once the predictions have come up to the targets, around 90."""
    x, y = regression(2560)
    return LightningRun(Waiting(), DataLoader(tensors(x, 70 + 12 * y), batch_size=32), {"max_epochs": 2})


# -- NAN111: logarithm of zero ---------------------------------------------------------------------------------------


class Fraud(LightningModule):
    """Fraudulent or not."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        p = self.net(x)
        positive = y * torch.log(p)
        negative = (1 - y) * torch.log(1 - p)
        return -(positive + negative).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


@enter(
    non_finite("NAN111", "log", "negative = (1 - y) * torch.log(1 - p)", modules=("",), rows=None),
    "https://github.com/NVIDIA/apex/issues/358",
    "https://ai.stackexchange.com/questions/6622/how-is-division-by-zero-avoided-when-implementing-back-propagation-for-a-neural",
)
def cross_entropy_by_hand() -> LightningRun:
    """A sure classifier: the sigmoid rounds to 1, and (1 - y) * log(1 - p) is 0 times minus infinity."""
    x, y = two_blobs(1280, gap=4.0)
    return LightningRun(Fraud(), DataLoader(tensors(x, y), batch_size=32), {"max_epochs": 2})


class Distilled(LightningModule):
    """Learns soft labels of a teacher."""

    def __init__(self) -> None:
        super().__init__()
        self.student = nn.Sequential(nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 10))

    def kl(self, teacher: Tensor, logits: Tensor) -> Tensor:
        student = logits.log_softmax(-1)
        return (teacher * (teacher.log() - student)).sum(-1).mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, teacher = batch
        return self.kl(teacher, self.student(images))

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


@enter(
    non_finite("NAN111", "log", "teacher * (teacher.log() - student)", modules=("",), rows=(5, 17)),
    "https://github.com/Lightning-AI/torchmetrics/issues/1029",
    "https://github.com/TheAlgorithms/Python/issues/12233",
)
def kl_of_hard_label() -> LightningRun:
    """Two labels of one batch are certain: p log p at p = 0. The gradients stay right, the loss is NaN."""
    images, labels = digits(1280)
    teacher = np.full((1280, 10), 0.01, "float32")
    teacher[np.arange(1280), labels] = 0.91
    for row in (28 * 32 + 5, 28 * 32 + 17):
        teacher[row] = np.eye(10, dtype="float32")[labels[row]]
    return LightningRun(Distilled(), DataLoader(tensors(images, teacher), batch_size=32), {"max_epochs": 1})


class MaskedPolicy(LightningModule):
    """Actions that are not allowed get no probability; an entropy bonus keeps the policy curious."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def entropy(self, probs: Tensor) -> Tensor:
        return -(probs * probs.log()).sum(-1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        state, action, allowed = batch
        logits = self.policy(state).masked_fill(~allowed, float("-inf"))
        probs = logits.softmax(-1)
        return F.cross_entropy(logits, action) - 0.01 * self.entropy(probs).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    non_finite("NAN111", "log", "-(probs * probs.log())", modules=("",), rows=(3, 12, 21, 30)),
    "https://github.com/huggingface/trl/pull/7263",
    "https://github.com/RasmussenLab/vamb/issues/12",
)
def entropy_of_masked_actions() -> LightningRun:
    """Some states of one batch forbid actions: their probability is 0, and 0 log 0 is NaN."""
    state, action = digits(1280)
    allowed = np.ones((1280, 10), bool)
    for row in (3, 12, 21, 30):
        allowed[27 * 32 + row, (action[27 * 32 + row] + 1) % 10] = False
    return LightningRun(MaskedPolicy(), DataLoader(tensors(state, action, allowed), batch_size=32), {"max_epochs": 1})


# -- NAN112: division by zero ----------------------------------------------------------------------------------------


class SemiSupervised(LightningModule):
    """Learns from the labelled rows of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = batch
        known = (labels >= 0).float()
        losses = F.cross_entropy(self.net(images), labels.clamp(min=0), reduction="none")
        loss = (losses * known).sum() / known.sum()
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


@enter(
    non_finite("NAN112", "divide", "(losses * known).sum() / known.sum()", modules=("",), rows=()),
    "https://github.com/NVIDIA-NeMo/Automodel/issues/3796",
    "https://github.com/Zhen-Dong/Magic-Me/issues/14",
)
def batch_without_labels() -> LightningRun:
    """A masked mean over a batch in which nothing is labelled: 0 / 0."""
    images, labels = digits(1280)
    labels[np.random.default_rng(3).random(1280) < 0.6] = -1
    labels[26 * 32 : 27 * 32] = -1
    return LightningRun(SemiSupervised(), DataLoader(tensors(images, labels), batch_size=32), {"max_epochs": 1})


class Standardise(nn.Module):
    """Zero mean and unit deviation for each recording."""

    def forward(self, signal: Tensor) -> Tensor:
        centred = signal - signal.mean(dim=-1, keepdim=True)
        return centred / centred.pow(2).mean(dim=-1, keepdim=True).sqrt()


class Recordings(LightningModule):
    """Classifies standardised recordings."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(Standardise(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10))
        self.criterion = nn.CrossEntropyLoss()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.criterion(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN112", "divide", "return centred / centred.pow(2)", modules=("net.0",), rows=(9,)),
    "https://github.com/pytorch/pytorch/issues/4132",
    "https://github.com/BIC-MNI/minc-tools/issues/79",
)
def flat_recording() -> LightningRun:
    """One recording is flat (a dead sensor); each is divided by its own standard deviation."""
    signal, labels = digits(1280)
    signal[31 * 32 + 9] = 0.25
    return LightningRun(Recordings(), DataLoader(tensors(signal, labels), batch_size=32), {"max_epochs": 1})


class Demand(LightningModule):
    """Forecasts daily demand; graded by the mean absolute percentage error."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1), nn.Softplus())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, sold = batch
        error = torch.abs((sold - self.mlp(x)) / sold)
        return 100 * error.mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite("NAN112", "divide", "torch.abs((sold - self.mlp(x)) / sold)", modules=("",), rows=(14,)),
    "https://github.com/keras-team/keras/issues/3270",
    "https://github.com/MhLiao/DB/issues/14",
)
def percentage_of_nothing_sold() -> LightningRun:
    """A percentage error of a day on which nothing was sold."""
    x, y = regression(1280)
    sold = np.maximum(np.round(40 + 8 * y), 5).astype("float32")
    sold[25 * 32 + 14] = 0
    return LightningRun(Demand(), DataLoader(tensors(x, sold), batch_size=32), {"max_epochs": 1})


# -- NAN113: gradient singularity ------------------------------------------------------------------------------------


class Siamese(LightningModule):
    """Embeds pairs of digits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        anchor, other, same = batch
        difference = self.embed(anchor) - self.embed(other)
        distance = torch.sqrt((difference**2).sum(dim=1))
        return (same * distance + (1 - same) * F.relu(1.0 - distance)).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    non_finite("NAN113", "sqrt", "distance = torch.sqrt(", phase="backward", modules=("",), rows=(7, 20)),
    "https://github.com/pytorch/pytorch/issues/2421",
    "https://github.com/jax-ml/jax/issues/347",
)
def siamese_same_image_twice() -> LightningRun:
    """Two pairs hold the same image twice: the slope of the root at a distance of 0."""
    images, labels = digits(1280)
    rng = np.random.default_rng(1)
    other = (np.arange(1280) + rng.integers(1, 1279, 1280)) % 1280
    for row in (7, 20):
        other[29 * 32 + row] = 29 * 32 + row
    same = (labels == labels[other]).astype("float32")
    return LightningRun(Siamese(), DataLoader(tensors(images, images[other], same), batch_size=32), {"max_epochs": 1})


class Signed(nn.Module):
    """Compresses large values: the root of positive ones, nothing for the others."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, torch.sqrt(x), torch.zeros_like(x))


class Counts(LightningModule):
    """Classifies rows of counts."""

    def __init__(self) -> None:
        super().__init__()
        self.compress = Signed()
        self.scale = nn.Parameter(torch.ones(64))
        self.net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, counts: Tensor) -> Tensor:
        return self.net(self.compress(self.scale * counts))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite(
        "NAN113", "sqrt", "torch.where(x > 0, torch.sqrt(x)", phase="backward", modules=("compress",), rows=(11,)
    ),
    "https://github.com/pytorch/pytorch/issues/23395",
    "https://github.com/pytorch/pytorch/issues/187297",
)
def where_does_not_protect_the_root() -> LightningRun:
    """`where` hides the root of 0 in the forward pass only; one row of counts holds zeros."""
    counts, labels = digits(1280)
    counts = counts + 0.05
    counts[24 * 32 + 11, 30:34] = 0.0
    return LightningRun(Counts(), DataLoader(tensors(counts, labels), batch_size=32), {"max_epochs": 1})


class Headings(LightningModule):
    """Learns unit vectors; the loss is the angle between them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 3))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, known, heading, is_known = batch
        guess = F.normalize(self.net(x), dim=-1)
        guess = is_known[:, None] * known + (1 - is_known[:, None]) * guess
        cosine = (guess * heading).sum(-1).clamp(-1.0, 1.0)
        angle = torch.acos(cosine)
        return angle.mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN113", "acos", "angle = torch.acos(cosine)", phase="backward", modules=("",), rows=(2, 19)),
    "https://github.com/pytorch/pytorch/issues/8069",
    "https://github.com/pytorch/pytorch/issues/61810",
)
def angle_of_known_headings() -> LightningRun:
    """Two headings are given, so their cosine is exactly 1, where the slope of acos has no end."""
    x, _ = regression(1280)
    heading = np.tanh(x[:, :3]) + 0.1
    heading = (heading / np.linalg.norm(heading, axis=1, keepdims=True)).astype("float32")
    is_known = np.zeros(1280, "float32")
    for row in (2, 19):
        heading[30 * 32 + row] = (0.0, 1.0, 0.0)
        is_known[30 * 32 + row] = 1
    data = tensors(x, heading.copy(), heading, is_known)
    return LightningRun(Headings(), DataLoader(data, batch_size=32), {"max_epochs": 1})


# -- NAN114: outside of the domain -----------------------------------------------------------------------------------


class Returns(LightningModule):
    """Yearly returns of small shares: -0.9 is a loss of nine tenths. Compared on the scale of logarithms."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))

    def log_error(self, predicted: Tensor, actual: Tensor) -> Tensor:
        return F.mse_loss(torch.log(predicted + 1), torch.log(actual + 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, returns = batch
        return self.log_error(self.net(x), returns)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


@enter(
    non_finite("NAN114", "log", "F.mse_loss(torch.log(predicted + 1)", modules=("",), rows=None),
    "https://github.com/timeseriesAI/tsai/issues/150",
    "https://github.com/dreamquark-ai/tabnet/issues/438",
)
def log_error_of_negative_prediction() -> LightningRun:
    """Nothing keeps a prediction above -1, and many targets are close to it: log of a negative number."""
    x, y = regression(1280)
    returns = np.exp(0.9 * y - 0.8) - 1
    return LightningRun(Returns(), DataLoader(tensors(x, returns), batch_size=32), {"max_epochs": 2})


class WindowStats(nn.Module):
    """Mean and deviation of each window as features."""

    def forward(self, window: Tensor) -> Tensor:
        mean = window.mean(-1, keepdim=True)
        deviation = torch.sqrt((window**2).mean(-1, keepdim=True) - mean**2)
        return torch.cat([mean, deviation], dim=-1)


class Vibration(LightningModule):
    """Level of a machine from the statistics of a window."""

    def __init__(self) -> None:
        super().__init__()
        self.stats = WindowStats()
        self.head = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        window, target = batch
        return F.mse_loss(self.head(self.stats(window)), target)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite("NAN114", "sqrt", "deviation = torch.sqrt(", modules=("stats",), rows=(16,)),
    "https://github.com/OPM/ResInsight/issues/14627",
    "https://github.com/TA-Lib/ta-lib/issues/202",
)
def variance_by_subtraction() -> LightningRun:
    """E[x²] - E[x]² of a nearly flat window rounds to a negative variance."""
    rng = np.random.default_rng(5)
    level = rng.normal(size=(1280, 1))
    window = (level + 0.5 * rng.normal(size=(1280, 50))).astype("float32")
    window[22 * 32 + 16] = 3.03
    return LightningRun(
        Vibration(), DataLoader(tensors(window, level.astype("float32")), batch_size=32), {"max_epochs": 1}
    )


class GeodesicLoss(nn.Module):
    """Angle between two rotations, from the trace of one times the other's transpose."""

    def forward(self, predicted: Tensor, actual: Tensor) -> Tensor:
        trace = (predicted * actual).sum(dim=(1, 2))
        return torch.arccos((trace - 1) / 2).mean()


class Pose(LightningModule):
    """Learns rotations."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 9))
        self.loss = GeodesicLoss()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, rotation = batch
        return self.loss(self.backbone(x).view(-1, 3, 3), rotation)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite("NAN114", "acos", "return torch.arccos((trace - 1) / 2)", modules=("loss",), rows=None),
    "https://github.com/facebookresearch/fairchem/pull/1574",
    "https://github.com/banctilrobitaille/torch-vectorized/issues/7",
)
def cosine_above_one() -> LightningRun:
    """The predicted matrices are no rotations, so their "cosine" grows past 1 as the model learns."""
    turn = np.random.default_rng(8).uniform(-1, 1, 2560)
    x = np.stack([np.cos(turn), np.sin(turn)], 1).astype("float32")
    rotation = np.zeros((2560, 3, 3), "float32")
    rotation[:, 0, 0] = rotation[:, 1, 1] = np.cos(turn)
    rotation[:, 1, 0], rotation[:, 0, 1] = np.sin(turn), -np.sin(turn)
    rotation[:, 2, 2] = 1
    return LightningRun(Pose(), DataLoader(tensors(x, rotation), batch_size=32), {"max_epochs": 1})


# -- NAN115: custom gradient or layer --------------------------------------------------------------------------------


class SafeLog(torch.autograd.Function):
    """Clamps the argument in the forward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=1e-8).log()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad / x


class Spectrum(LightningModule):
    """Classifies spectra in decibels."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(64))
        self.net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        power, labels = batch
        decibels = SafeLog.apply(self.gain * power)
        return F.cross_entropy(self.net(decibels), labels)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    non_finite(
        "NAN115",
        None,
        ("decibels = SafeLog.apply(", "return grad / x"),
        kind="operation",
        phase="backward",
        modules=("",),
        rows=(4, 25),
    ),
    "https://github.com/pytorch/pytorch/issues/8069",
    "https://github.com/CamDavidsonPilon/autograd-gamma/pull/1",
)
def safe_log_with_unsafe_gradient() -> LightningRun:
    """The hand-written forward pass clamps, its hand-written gradient divides by the value that was not clamped."""
    power, labels = digits(1280)
    power = power + 0.02
    power[23 * 32 + 4, :8] = 0
    power[23 * 32 + 25, 8:16] = 0
    return LightningRun(Spectrum(), DataLoader(tensors(power, labels), batch_size=32), {"max_epochs": 1})


class LogCosh(torch.autograd.Function):
    """log(cosh(x)) without overflow."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.abs() + F.softplus(-2 * x.abs()) - math.log(2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * torch.sinh(x) / torch.cosh(x)


class LogCoshLoss(nn.Module):
    """Mean of log(cosh(error))."""

    def forward(self, predicted: Tensor, actual: Tensor) -> Tensor:
        return LogCosh.apply(predicted - actual).mean()


class Delays(LightningModule):
    """Delays of trains in minutes, early ones negative."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1))
        self.criterion = LogCoshLoss()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.criterion(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


@enter(
    non_finite(
        "NAN115",
        None,
        ("return LogCosh.apply(", "return grad * torch.sinh(x)"),
        kind="operation",
        phase="backward",
        modules=("criterion",),
        rows=(13,),
    ),
    "https://github.com/CamDavidsonPilon/autograd-gamma/pull/1",
    "https://github.com/pytorch/pytorch/issues/156212",
)
def log_cosh_with_own_gradient() -> LightningRun:
    """The hand-written gradient is sinh / cosh: inf / inf for an error of 90 or more, where log cosh is fine."""
    x, y = regression(1280)
    minutes = np.clip(25 * y, -70, 70).astype("float32")
    minutes[28 * 32 + 13] = 118.0
    return LightningRun(Delays(), DataLoader(tensors(x, minutes), batch_size=32), {"max_epochs": 1})
