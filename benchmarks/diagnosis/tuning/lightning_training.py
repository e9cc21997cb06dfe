"""Training set up wrong, in Lightning: rates, initialisation, vanishing and exploding gradients, dead units."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.program import Happens, LightningRun, enter, finite, runaway
from benchmarks.diagnosis.tables import digits, regression, waves


def loader(x: np.ndarray, y: np.ndarray, batch_size: int = 32) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=batch_size)


class Digits(LightningModule):
    """Any network on digits, with any optimizer and schedule."""

    def __init__(self, net: nn.Module, optimizer: Any, schedule: Any = None) -> None:
        super().__init__()
        self.net, self.optimizer, self.schedule = net, optimizer, schedule

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        if self.schedule is None:
            return optimizer
        return [optimizer], [{"scheduler": self.schedule(optimizer), "interval": "step"}]


class Table(Digits):
    """The same for a table and a squared error."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.mse_loss(self.net(batch[0]), batch[1])


def mlp(inputs: int = 64, outputs: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs))


# -- OPT601: learning rate too high ----------------------------------------------------------------------------------


@enter(
    runaway("OPT601"),
    "https://datascience.stackexchange.com/questions/15962/why-is-learning-rate-causing-my-neural-networks-weights-to-skyrocket",
    "https://livebook.manning.com/concept/keras/learning-rate",
)
def sgd_far_too_fast() -> LightningRun:
    """A learning rate that some tutorial used for another problem."""
    module = Table(mlp(10, 1), lambda parameters: torch.optim.SGD(parameters, lr=1.0))
    return LightningRun(module, loader(*regression(1280)), {"max_epochs": 1})


@enter(
    runaway("OPT601"),
    "https://github.com/crowsonkb/k-diffusion/issues/50",
    "https://datascience.stackexchange.com/questions/15962/why-is-learning-rate-causing-my-neural-networks-weights-to-skyrocket",
)
def warmup_climbs_too_far() -> LightningRun:
    """A warm-up meant for an epoch of 30 steps never stops climbing."""
    module = Table(
        mlp(10, 1),
        lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.12**step),
    )
    return LightningRun(module, loader(*regression(2560)), {"max_epochs": 1})


# -- OPT602: learning rate too low -----------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, "OPT602"),
    "https://github.com/yz93/LAVT-RIS/issues/25",
    "https://github.com/hukenovs/hagrid/issues/12",
)
def rate_of_a_fine_tuning() -> LightningRun:
    """The rate of somebody's fine-tuning, on a network from scratch."""
    module = Digits(mlp(), lambda parameters: torch.optim.Adam(parameters, lr=1e-7))
    return LightningRun(module, loader(*digits(1280)), {"max_epochs": 3})


@enter(
    finite(Happens.STALL, "OPT602"),
    "https://github.com/hukenovs/hagrid/issues/12",
    "https://github.com/CN-zdy/MSU_Net/issues/13",
)
def schedule_of_epochs_on_steps() -> LightningRun:
    """A decay by ten that was meant for every tenth epoch comes with every step."""
    module = Digits(
        mlp(),
        lambda parameters: torch.optim.SGD(parameters, lr=0.01),
        lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1),
    )
    return LightningRun(module, loader(*digits(1280)), {"max_epochs": 3})


# -- GRAD202: vanishing gradient -------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, "GRAD202"),
    "https://ai.stackexchange.com/questions/16557/what-could-be-the-problem-when-a-neural-network-with-four-hidden-layers-with-the",
    "https://www.mohdvasim.com/blog/deep-learning/03-activations/01-vanishing-gradient",
)
def ten_layers_of_sigmoid() -> LightningRun:
    """Ten layers of sigmoid: hardly any gradient reaches the first ones."""
    layers: list[nn.Module] = [nn.Linear(64, 32), nn.Sigmoid()]
    for _ in range(9):
        layers += [nn.Linear(32, 32), nn.Sigmoid()]
    net = nn.Sequential(*layers, nn.Linear(32, 10))
    module = Digits(net, lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9))
    return LightningRun(module, loader(*digits(1280)), {"max_epochs": 3})


# -- GRAD203: exploding gradient -------------------------------------------------------------------------------------


class Chaotic(nn.Module):
    """A vanilla recurrent network whose recurrent weights start large."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(1, 48, batch_first=True)
        nn.init.normal_(self.rnn.weight_hh_l0, std=0.3)
        self.head = nn.Linear(48, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def by_length(short: int, long: int, batches: int, long_from: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of waves, the short ones first."""
    made = []
    for number in range(batches):
        x, y = waves(32, length=long if number >= long_from else short, seed=number)
        made.append((torch.from_numpy(x), torch.from_numpy(y)))
    return made


@enter(
    finite(Happens.SPIKE, "GRAD203", rows=None),
    "https://taourl.com/read-1885623.html",
    "https://www.engineermaxxing.com/veanors/papers/difficulty-training-rnns.html",
)
def long_sequences_come_last() -> LightningRun:
    """Sequences sorted by length, no clipping: over 120 steps the gradient is thousands of times that over 15."""
    module = Table(Chaotic(), lambda parameters: torch.optim.SGD(parameters, lr=0.02))
    batches = DataLoader(by_length(15, 120, 50, 35), batch_size=None)
    return LightningRun(module, batches, {"max_epochs": 1})


class Deep(nn.Module):
    """Sixteen residual blocks without normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(10, 32)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)) for _ in range(16))
        self.last = nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.last(hidden)


@enter(
    runaway(("GRAD203", "OPT601")),
    "https://nano-gpt.com/blog/gradient-clipping-rnn-training-why-it-matters",
    "https://github.com/torch/optim/issues/157",
)
def residual_tower_without_norm() -> LightningRun:
    """A tall residual network without normalisation or clipping: the gradient grows from block to block."""
    module = Table(Deep(), lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9))
    return LightningRun(module, loader(*regression(1280)), {"max_epochs": 2})


# -- ACT302: saturated activations -----------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, ("ACT302", "ACT304")),
    "https://github.com/mukul-rathi/deep-learning-tutorials/issues/2",
    "https://yolandamuriel.com/2026/03/06/artificial-intelligence-15-deep-learning-13-understanding-backpropagation",
)
def tanh_against_the_stops() -> LightningRun:
    """Weights drawn with deviation 4 push every tanh against its stops."""
    net = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
    for layer in (net[0], net[2]):
        nn.init.normal_(layer.weight, std=4.0)
    nn.init.normal_(net[4].weight, std=0.02)
    for parameter in net[4].parameters():
        parameter.requires_grad_(False)
    module = Digits(net, lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    return LightningRun(module, loader(*digits(1280)), {"max_epochs": 3})


class Rating(Table):
    """Stars from 1 to 5 through a sigmoid, which ends at 1."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.mse_loss(torch.sigmoid(self.net(batch[0])), batch[1])


@enter(
    finite(Happens.STALL, ("DATA505", "ACT302")),
    "http://stackoverflow.com.mevn.net/questions/52800582/why-do-i-fail-to-predict-y-x4-with-keras-y-x3-works",
    "https://oalahurikar.github.io/ai-blog/First-Principles/Learning-is-slow-for-sigmoid",
)
def stars_through_a_sigmoid() -> LightningRun:
    """The output is a sigmoid, the targets go from 2 to 5: it saturates at 1 and stays there."""
    x, y = regression(1280)
    stars = np.clip(np.round(3.5 + y), 2, 5).astype("float32")
    module = Rating(mlp(10, 1), lambda parameters: torch.optim.Adam(parameters, lr=0.05))
    return LightningRun(module, loader(x, stars), {"max_epochs": 3})


# -- ACT303: dead units ----------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, "ACT303"),
    "https://theneuralbase.com/deep-learning-fundamentals/learn/beginner/dead-neurons-relu/",
    "https://moltstream.com/post/a0f8e63f-ee03-47ff-a0a5-4651e7b5ce63",
)
def bias_that_kills_the_layer() -> LightningRun:
    """The biases of a rectified layer start at -20: no unit of it ever wakes."""
    net = mlp()
    nn.init.constant_(net[2].bias, -20.0)
    module = Digits(net, lambda parameters: torch.optim.Adam(parameters, lr=1e-3))
    return LightningRun(module, loader(*digits(1280)), {"max_epochs": 3})


# -- ACT304: bad initialisation --------------------------------------------------------------------------------------


def initialised(net: nn.Sequential, how: Any) -> nn.Sequential:
    for layer in net:
        if isinstance(layer, nn.Linear):
            how(layer.weight)
            nn.init.zeros_(layer.bias)
    return net


@enter(
    finite(Happens.STALL, "ACT304"),
    "https://github.com/udlbook/udlbook/issues/87",
    "https://github.com/yz93/LAVT-RIS/issues/25",
)
def all_weights_zero() -> LightningRun:
    """Every weight starts at 0: only the last bias learns."""
    module = Digits(initialised(mlp(), nn.init.zeros_), lambda parameters: torch.optim.SGD(parameters, lr=0.05))
    return LightningRun(module, loader(*digits(1280)), {"max_epochs": 3})


@enter(
    runaway("ACT304"),
    "https://github.com/VinceShieh/spark-ffm/issues/12",
    "https://github.com/microsoft/AI-For-Beginners/pull/743",
)
def weights_from_a_plain_normal() -> LightningRun:
    """Weights drawn from N(0, 1), as torch.randn gives them, in five layers."""
    net = nn.Sequential(nn.Linear(10, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU())
    net.append(nn.Linear(128, 1))
    module = Table(initialised(net, nn.init.normal_), lambda parameters: torch.optim.SGD(parameters, lr=2e-6))
    return LightningRun(module, loader(*regression(1280)), {"max_epochs": 1})
