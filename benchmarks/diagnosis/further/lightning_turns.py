"""Rates, schedules, groups and losses: what is wrong with a run although its data and its layers are right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, enter, finite, non_finite, runaway
from benchmarks.diagnosis.tables import digits, regression, waves


def _run(module: LightningModule, *columns: np.ndarray, size: int, **trainer: Any) -> LightningRun:
    narrow = [column.astype("float32") if column.dtype == np.float64 else column for column in columns]
    return LightningRun(module, in_order(*narrow, size=size), {"max_epochs": 1, **trainer})


class _Fit(LightningModule):
    """A network, a loss and whatever optimizes them."""

    def __init__(self, net: nn.Module, loss: Callable[..., Tensor], optimize: Callable[..., Any]) -> None:
        super().__init__()
        self.net, self.loss, self.optimize = net, loss, optimize

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return self.loss(self.net(x), y)

    def configure_optimizers(self) -> Any:
        return self.optimize(self)


def _sgd(rate: float, **settings: Any) -> Callable[..., Any]:
    return lambda module: torch.optim.SGD(module.parameters(), lr=rate, **settings)


def _adam(rate: float, **settings: Any) -> Callable[..., Any]:
    return lambda module: torch.optim.Adam(module.parameters(), lr=rate, **settings)


def _mlp(inputs: int, hidden: int, outputs: int, *last: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs), *last)


# -- rates too high --------------------------------------------------------------------------------------------------


def _milestones(factor: float) -> Callable[..., Any]:
    def optimize(module: LightningModule) -> Any:
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [25], gamma=factor)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    return optimize


@enter(
    runaway("OPT601"),
    "https://github.com/pytorch/pytorch/issues/31828",
    "https://pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.MultiStepLR.html",
)
def milestone_that_multiplies_by_ten() -> LightningRun:
    """The factor at the milestone is 10 and not 0.1: after 25 steps the rate goes up from 0.05 to 0.5."""
    return _run(_fit_friedman(_milestones(10)), *regression(1280, seed=72), size=24)


def _fit_friedman(optimize: Callable[..., Any], loss: Callable[..., Tensor] = F.mse_loss) -> LightningModule:
    return _Fit(_mlp(10, 32, 1), loss, optimize)


@enter(
    runaway("OPT601"),
    "https://pytorch.org/docs/stable/generated/torch.optim.SGD.html",
    "https://github.com/pytorch/pytorch/issues/31016",
)
def momentum_with_a_nine_too_many() -> LightningRun:
    """A rate of 0.1 might go with a momentum of 0.9, but 0.999 was typed: steps add up to a thousand gradients."""
    return _run(_fit_friedman(_sgd(0.1, momentum=0.999)), *regression(1440, seed=73), size=24)


class Sums(LightningModule):
    """An ordinary regression with an optimizer that is called by hand."""

    def __init__(self, rate: float, clear: bool = False) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net, self.rate, self.clear = _mlp(10, 32, 1), rate, clear

    def training_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        optimizer, loss = self.optimizers(), F.mse_loss(self.net(x), y)
        if self.clear:
            optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.log("loss", loss)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.rate)


@enter(
    runaway("OPT601"),
    "https://github.com/Lightning-AI/pytorch-lightning/issues/5544",
    "https://runebook.dev/en/docs/pytorch/generated/torch.optim.optimizer.zero_grad",
)
def gradients_of_all_the_batches_before() -> LightningRun:
    """With optimization by hand nothing clears the gradients: each step is made along the sum of all so far."""
    return _run(Sums(0.2), *regression(1440, seed=74), size=32)


def _per_picture(picture: Tensor, image: Tensor) -> Tensor:
    return F.mse_loss(picture, image, reduction="sum")


@enter(
    runaway("OPT601"),
    "https://github.com/pytorch/pytorch/issues/31016",
    "https://pytorch.org/docs/stable/generated/torch.nn.MSELoss.html",
)
def every_pixel_of_every_picture_counted() -> LightningRun:
    """An autoencoder sums its error over 64 pixels and 32 pictures; 0.05 was the rate for the mean."""
    images = digits(1440)[0]
    return _run(_Fit(_mlp(64, 24, 64), _per_picture, _sgd(0.05, momentum=0.9)), images, images, size=32)


class Letters(nn.Module):
    """One layer of a transformer over eight rows of a digit."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(image.unflatten(1, (8, 8)))).mean(1))


@enter(
    finite(Happens.STALL, ("OPT601", "ACT303"), rows=None),
    "https://discuss.pytorch.org/t/cross-entropy-loss-is-not-decreasing/43814/16",
    "https://github.com/thu-coai/CDial-GPT/issues/52",
)
def transformer_at_the_rate_of_a_perceptron() -> LightningRun:
    """Adam at 0.05: after a few steps each picture gets the same answer, and that is where it stays."""
    return _run(_Fit(Letters(), F.cross_entropy, _adam(0.05)), *digits(1440), size=24)


# -- rates too low ---------------------------------------------------------------------------------------------------


def _groups(base: float, head: float) -> Callable[..., Any]:
    def optimize(module: LightningModule) -> Any:
        module.net[0].requires_grad_(False)
        groups = [
            {"params": module.net[0].parameters(), "lr": base},
            {"params": module.net[2].parameters(), "lr": head},
        ]
        return torch.optim.SGD(groups, momentum=0.9)

    return optimize


@enter(
    finite(Happens.STALL, ("OPT602",)),
    "https://pytorch.org/docs/stable/optim.html#per-parameter-options",
    "https://taourl.com/read-2391810.html",
)
def groups_with_each_others_rate() -> LightningRun:
    """The new head got the rate of fine tuning, 0.001, and the base, which is frozen, that of the head."""
    return _run(_Fit(_mlp(64, 64, 10), F.cross_entropy, _groups(base=0.1, head=1e-3)), *digits(1440), size=24)


def _noam(rate: float) -> Callable[..., Any]:
    def optimize(module: LightningModule) -> Any:
        optimizer = torch.optim.Adam(module.parameters(), lr=rate, betas=(0.9, 0.98), eps=1e-9)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 32**-0.5 * min((step + 1) ** -0.5, (step + 1) * 30**-1.5)
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    return optimize


@enter(
    finite(Happens.STALL, ("OPT602",)),
    "https://github.com/thu-coai/CDial-GPT/issues/52",
    "https://github.com/espnet/espnet/pull/1519",
)
def schedule_of_the_paper_times_a_rate_of_its_own() -> LightningRun:
    """The schedule of the transformer's paper is a rate already; here it multiplies a rate of 0.01."""
    return _run(_Fit(Letters(), F.cross_entropy, _noam(1e-2)), *digits(1440), size=24)


def _share(rows: int) -> Callable[..., Tensor]:
    return lambda scores, labels: F.cross_entropy(scores, labels, reduction="sum") / rows


@enter(
    finite(Happens.STALL, ("OPT602",)),
    "https://pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html",
    "https://taourl.com/read-2391810.html",
)
def loss_divided_by_the_length_of_the_data_set() -> LightningRun:
    """The sum over a batch is divided by the rows of the whole data set, 60 times as many."""
    return _run(_Fit(_mlp(64, 64, 10), _share(1440), _sgd(0.1)), *digits(1440), size=24)


@enter(
    finite(Happens.STALL, ("OPT602",)),
    "https://pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html",
    "https://taourl.com/read-2391810.html",
)
def clipped_to_a_thousandth() -> LightningRun:
    """The norm of the gradient is clipped to 1e-3, and gradient descent at 0.05 hardly moves any more."""
    return _run(_forecaster(), *waves(1200), size=24, gradient_clip_val=1e-3)


def _forecaster() -> LightningModule:
    net = nn.Sequential(nn.Flatten(), nn.Linear(40, 32), nn.Tanh(), nn.Linear(32, 1))
    return _Fit(net, F.mse_loss, _sgd(0.05))


# -- losses ----------------------------------------------------------------------------------------------------------


class Corner(LightningModule):
    """In which of 64 cells is the corner of a document?"""

    def __init__(self, *last: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1), nn.Flatten(), *last
        )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        page, cell = batch
        return F.cross_entropy(self.net(page), cell)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _pages() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7612)
    cell = rng.integers(0, 64, 24 * 50)
    page = 0.3 * rng.normal(size=(len(cell), 1, 8, 8))
    page[np.arange(len(cell)), 0, cell // 8, cell % 8] += 2
    return page, cell


@enter(
    finite(Happens.STALL, ("LOSS403",)),
    "https://github.com/ariecattan/SciCo/issues/2",
    "https://github.com/illiterate/BertClassifier/issues/2",
)
def corner_through_two_softmaxes() -> LightningRun:
    """A heat map of 64 cells is made into probabilities, and the cross entropy does so again: 4.16 it is and stays."""
    return _run(Corner(nn.Softmax(dim=1)), *_pages(), size=24)


@enter(
    finite(Happens.STALL, ("LOSS403",)),
    "https://github.com/NaJaeMin92/pytorch-DANN/issues/7",
    "https://github.com/amdegroot/ssd.pytorch/issues/218",
)
def ten_sigmoids_into_a_cross_entropy() -> LightningRun:
    """Each class has a sigmoid, and cross_entropy takes what comes out for scores, which differ by 1 at most."""
    return _run(_Fit(_mlp(64, 64, 10, nn.Sigmoid()), F.cross_entropy, _sgd(0.1)), *digits(1440), size=24)


@enter(
    finite(Happens.SPIKE, ("LOSS404",), rows=None),
    "https://github.com/yanx27/Pointnet_Pointnet2_pytorch/issues/30",
    "https://github.com/torch/nn/issues/1078",
)
def scores_of_points_into_nll_loss() -> LightningRun:
    """nll_loss wants logarithms of probabilities and gets scores: the loss goes below zero, faster and faster."""
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    return _run(_Fit(net, F.nll_loss, _sgd(0.05)), *digits(1440), size=24)


def _counted(rate: Tensor, calls: Tensor) -> Tensor:
    return F.poisson_nll_loss(rate.squeeze(1), calls, log_input=False)


@enter(
    non_finite(
        ("LOSS404", "NAN114", "DATA503"),
        ("log", "poisson_nll_loss"),
        "return F.poisson_nll_loss(rate.squeeze(1), calls, log_input=False)",
        modules=("",),
        rows=(13,),
    ),
    "https://pytorch.org/docs/stable/generated/torch.nn.PoissonNLLLoss.html",
    "https://github.com/pymc-devs/pymc/pull/1089",
)
def rates_without_an_exponential() -> LightningRun:
    """log_input=False wants rates above 0, but the last layer is linear; on an unusual night it says -12 calls."""
    rng = np.random.default_rng(7616)
    hour = rng.uniform(-1, 1, (24 * 45, 4))
    calls = rng.poisson(8 + 4 * hour[:, 0] + 2 * hour[:, 1]).astype("float64")
    hour[33 * 24 + 13, 0] = -5
    net = nn.Linear(4, 1)
    nn.init.zeros_(net.weight)
    nn.init.constant_(net.bias, 8)
    return _run(_Fit(net, _counted, _adam(0.1)), hour, calls, size=24)
