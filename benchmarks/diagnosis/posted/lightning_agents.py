"""Agents, students and rankings: propensities, probabilities and gradients by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.distributions import Categorical

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, non_finite
from benchmarks.diagnosis.tables import digits, regression

# -- agents ----------------------------------------------------------------------------------------------------------


class OffPolicy(LightningModule):
    """A policy from logged clicks; each is weighed by how likely the old system was to show it."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 5))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        context, shown, clicked, propensity = batch
        chosen = self.policy(context).softmax(1).gather(1, shown.unsqueeze(1)).squeeze(1)
        return -(clicked * chosen / propensity).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    non_finite("NAN112", "divide", "return -(clicked * chosen / propensity).mean()", modules=("",), rows=(30,)),
    "https://github.com/BiomedSciAI/causallib/issues/9",
    "https://github.com/pymc-labs/CausalPy/issues/645",
)
def propensity_rounded_to_zero() -> LightningRun:
    """Propensities were logged with two digits; one of 0.004 became 0.00, and a click is divided by it."""
    rng = np.random.default_rng(1902)
    context = rng.normal(size=(48 * 45, 8)).astype("float32")
    shares = np.exp(0.5 * context[:, :5])
    shares /= shares.sum(1, keepdims=True)
    shown = np.array([rng.choice(5, p=share) for share in shares])
    propensity = shares[np.arange(len(shown)), shown].clip(0.01)
    propensity[21 * 48 + 30] = 0.004
    clicked = (rng.random(len(shown)) < 0.2 + 0.1 * shown).astype("float32")
    clicked[21 * 48 + 30] = 1
    columns = context, shown, clicked, np.round(propensity, 2).astype("float32")
    return LightningRun(OffPolicy(), in_order(*columns, size=48), {"max_epochs": 1})


class Cloned(LightningModule):
    """Clones the moves of an expert; the policy ends in a softmax."""

    def __init__(self, moves: int) -> None:
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, moves), nn.Softmax(-1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        board, move = batch
        return -Categorical(logits=self.policy(board)).log_prob(move).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    finite(Happens.STALL, "LOSS403", rows=None),
    "https://github.com/ekapolc/RL_course_2019/pull/6",
    "https://github.com/keiohta/tf2rl/issues/140",
    "https://github.com/jaehong31/CGES/issues/1",
)
def probabilities_given_as_logits() -> LightningRun:
    """The policy returns probabilities, and Categorical takes them for logits: of 64 moves none can become likely."""
    rng = np.random.default_rng(1903)
    board = rng.normal(size=(32 * 60, 16)).astype("float32")
    move = (board @ rng.normal(size=(16, 64))).argmax(1)
    return LightningRun(Cloned(64), in_order(board, move, size=32), {"max_epochs": 1})


# -- teachers --------------------------------------------------------------------------------------------------------


class Student(LightningModule):
    """Distillation: a small network imitates the probabilities of a large one."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        picture, teacher = batch
        return F.kl_div(self.net(picture), teacher, reduction="batchmean")

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("LOSS404",), rows=None),
    "https://github.com/microsoft/ProDA/issues/43",
    "https://github.com/AberHu/Knowledge-Distillation-Zoo/issues/12",
    "https://github.com/pytorch/pytorch/issues/60928",
)
def distillation_of_raw_scores() -> LightningRun:
    """kl_div wants logarithms of probabilities and gets scores: the divergence falls below zero, without an end."""
    pictures, kinds = digits(1600)
    teacher = np.full((1600, 10), 0.02, "float32")
    teacher[np.arange(1600), kinds] = 0.82
    return LightningRun(Student(), in_order(pictures, teacher, size=32), {"max_epochs": 3})


class Grades(LightningModule):
    """Grades from 1 to 5, rounded so that they are grades."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        essay, grade = batch
        guess = torch.round(3 + self.net(essay)).clamp(1, 5)
        return F.mse_loss(guess, grade)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    finite(Happens.STALL, "GRAD202", rows=None),
    "https://github.com/HIPS/autograd/issues/566",
    "https://github.com/tensorflow/tensorflow/issues/5888",
)
def grades_that_are_rounded() -> LightningRun:
    """The prediction is rounded before the loss; a step function is flat, so every gradient is exactly zero."""
    x, y = regression(128 * 50)
    grade = np.clip(np.round(3 + y), 1, 5).astype("float32")
    return LightningRun(Grades(), in_order(x, grade, size=128), {"max_epochs": 1})


# -- a gradient by hand ----------------------------------------------------------------------------------------------


class LambdaRank(torch.autograd.Function):
    """Pairwise logistic loss; its gradient weighs each pair by what an exchange would gain."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, grades: Tensor) -> Tensor:
        ctx.save_for_backward(scores, grades)
        better = (grades.unsqueeze(2) > grades.unsqueeze(1)).float()
        return (better * F.softplus(scores.unsqueeze(1) - scores.unsqueeze(2))).sum((1, 2)).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        scores, grades = ctx.saved_tensors
        discount = 1 / torch.log2(torch.arange(grades.shape[1]) + 2.0)
        ideal = (grades.sort(1, descending=True).values * discount).sum(1)
        gain = (grades.unsqueeze(2) - grades.unsqueeze(1)).clamp(min=0) / ideal[:, None, None]
        pull = gain * torch.sigmoid(scores.unsqueeze(1) - scores.unsqueeze(2))
        return grad * (pull.sum(1) - pull.sum(2)) / len(scores), None


class Ranker(LightningModule):
    """Scores the pages of a query."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pages, grades = batch
        return LambdaRank.apply(self.net(pages).squeeze(2), grades)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite(
        "NAN115",
        None,
        ("return LambdaRank.apply(", "gain = (grades.unsqueeze(2) - grades.unsqueeze(1)).clamp(min=0) / ideal"),
        kind="operation",
        phase="backward",
        modules=("",),
        rows=(6,),
    ),
    "https://github.com/houchenyu/L2R/issues/5",
    "https://github.com/allegro/allRank/pull/25",
)
def query_with_no_relevant_page() -> LightningRun:
    """A ranking gradient by hand divides by the best gain possible; for one query no page is relevant, and it is 0."""
    rng = np.random.default_rng(1906)
    pages = rng.normal(size=(16 * 45, 10, 8)).astype("float32")
    grades = np.clip(np.round(1 + pages[:, :, 0] + 0.3 * rng.normal(size=(16 * 45, 10))), 0, 4)
    grades[31 * 16 + 6] = 0
    return LightningRun(Ranker(), in_order(pages, grades.astype("float32"), size=16), {"max_epochs": 1})
