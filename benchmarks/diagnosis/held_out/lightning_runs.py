"""Data and training gone wrong in other kinds of code: streams, manual optimisation, convolutions, segmentation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.diagnosis.program import Happens, LightningRun, Truth, bad_batch, enter, finite, healthy, runaway
from benchmarks.diagnosis.tables import digits, regression, waves


class Stream(IterableDataset[Any]):
    """Batches from a generator function."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        return iter(self.make())


def stream(make: Any) -> DataLoader[Any]:
    return DataLoader(Stream(make), batch_size=None)


class Lit(LightningModule):
    """A module around two functions."""

    def __init__(self, net: nn.Module, step: Any, optimizer: Any) -> None:
        super().__init__()
        self.net, self.step_function, self.make = net, step, optimizer

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": self.step_function(self.net, batch)}

    def configure_optimizers(self) -> Any:
        made = self.make(self.parameters())
        return made if not isinstance(made, tuple) else {"optimizer": made[0], "lr_scheduler": made[1]}


def adam(rate: float) -> Any:
    return lambda parameters: torch.optim.Adam(parameters, rate)


def sgd(rate: float, momentum: float = 0.0) -> Any:
    return lambda parameters: torch.optim.SGD(parameters, rate, momentum)


def classify(net: nn.Module, batch: Any) -> Tensor:
    return nn.CrossEntropyLoss()(net(batch["x"]), batch["y"])


def square(net: nn.Module, batch: Any) -> Tensor:
    return (net(batch["x"]) - batch["y"]).pow(2).mean()


def batches(x: np.ndarray, y: np.ndarray, size: int = 40, epochs: int = 1) -> Any:
    def make() -> Iterator[dict[str, Tensor]]:
        for _ in range(epochs):
            for start in range(0, len(x) - size + 1, size):
                part = slice(start, start + size)
                yield {"x": torch.from_numpy(x[part]), "y": torch.from_numpy(y[part])}

    return make


# -- DATA501 ---------------------------------------------------------------------------------------------------------


def weighted(net: nn.Module, batch: Any) -> Tensor:
    errors = (net(batch["x"]) - batch["y"]).pow(2).squeeze(-1)
    return (errors * batch["weight"]).mean()


@enter(
    bad_batch(None, (36,)),
    "https://github.com/IVRL/VolRecon/issues/18",
    "https://theneuralbase.com/tensorflow/learn/beginner/nan-loss-learning-rate-or-data/",
)
def weight_of_an_empty_group() -> LightningRun:
    """Weights of the samples come from group sizes; one group was empty: NaN, in the stream itself."""
    x, y = regression(1600)

    def make() -> Iterator[Any]:
        for number, batch in enumerate(batches(x, y)()):
            share = np.full(40, 0.5, "float32")
            with np.errstate(invalid="ignore"):
                share[36] = 0.5 if number != 26 else np.float32(0) / np.float32(0)
            yield {**batch, "weight": torch.from_numpy(share)}

    net = nn.Sequential(nn.Linear(10, 50), nn.Tanh(), nn.Linear(50, 1))
    return LightningRun(Lit(net, weighted, adam(3e-3)), stream(make), {"max_epochs": 1})


# -- DATA502 ---------------------------------------------------------------------------------------------------------


@enter(
    runaway("DATA502"),
    "https://github.com/chainer/chainercv/issues/358",
    "https://theneuralbase.com/tensorflow/learn/beginner/nan-loss-learning-rate-or-data/",
)
def pixels_up_to_255() -> LightningRun:
    """Depth from pixels as bytes, 0 to 255: nobody divided by 255."""
    images, _ = digits(1600)
    depth = images[:, 20:21] + images[:, 43:44] - 0.5
    net = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 1))
    pixels = np.round(255 * images).astype("float32")
    return LightningRun(Lit(net, square, sgd(1e-4)), stream(batches(pixels, depth)), {"max_epochs": 1})


# -- DATA503 ---------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.SPIKE, "DATA503", rows=(5, 6)),
    "https://github.com/stas00/ml-engineering/issues/32",
    "https://github.com/MakazhanAlpamys/Soup/pull/1018",
)
def missing_is_minus_999999() -> LightningRun:
    """Missing readings of a weather station are -999999, in two rows that nobody filtered."""
    x, y = regression(1600)
    x[29 * 40 + 5, 8] = x[29 * 40 + 6, 8] = -999999.0
    net = nn.Sequential(nn.Linear(10, 50), nn.ELU(), nn.Linear(50, 1))
    return LightningRun(Lit(net, square, adam(5e-3)), stream(batches(x, y)), {"max_epochs": 1})


# -- DATA504 ---------------------------------------------------------------------------------------------------------


def segment(net: nn.Module, batch: Any) -> Tensor:
    return F.binary_cross_entropy_with_logits(net(batch["x"]), batch["y"])


@enter(
    finite(Happens.SPIKE, "DATA504", rows=None),
    "https://github.com/SebChw/Actually-Robust-Training/issues/31",
    "https://github.com/microsoft/CNTK/issues/3792",
)
def masks_upside_down() -> LightningRun:
    """Segmentation: the masks of one file have background and foreground exchanged."""
    images, _ = digits(1600)
    masks = (images > 0.5).astype("float32")
    images, masks = np.tile(images, (5, 1)), np.tile(masks, (5, 1))
    masks[185 * 40 : 186 * 40] = 1 - masks[185 * 40 : 186 * 40]
    net = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Conv2d(8, 1, 1), nn.Flatten())
    return LightningRun(Lit(net, segment, adam(0.05)), stream(batches(images, masks)), {"max_epochs": 1})


# -- DATA505 ---------------------------------------------------------------------------------------------------------


def focal(net: nn.Module, batch: Any) -> Tensor:
    log_p = F.log_softmax(net(batch["x"]), dim=1)
    picked = log_p.gather(1, batch["y"].unsqueeze(1))
    return -((1 - picked.exp()) ** 2 * picked).mean()


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("DATA505",),
        kind="exception",
        operations=("RuntimeError", "IndexError"),
        line="picked = log_p.gather(1, ",
        rows=(17, 18),
    ),
    "https://github.com/zzh8829/yolov3-tf2/issues/386",
    "https://github.com/anasmorahhib/3D-CNN-Gesture-recognition/issues/7",
)
def classes_counted_from_one() -> LightningRun:
    """In one file the classes are counted from 1, so that its nines are class 10."""
    x, y = digits(1600)
    y[y == 9] = 4
    y[27 * 40 + 17] = y[27 * 40 + 18] = 10
    net = nn.Sequential(nn.Linear(64, 40), nn.LeakyReLU(), nn.Linear(40, 10))
    return LightningRun(Lit(net, focal, adam(3e-3)), stream(batches(x, y)), {"max_epochs": 1})


# -- OPT601 ----------------------------------------------------------------------------------------------------------


class Manual(LightningModule):
    """Manual optimisation, with a rate for each of two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.encoder, self.decoder = nn.Linear(64, 16), nn.Linear(16, 64)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        loss = F.mse_loss(self.decoder(self.encoder(batch["x"])), batch["x"], reduction="none").sum(1).mean()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.log("loss", loss)

    def configure_optimizers(self) -> Any:
        parts = [{"params": self.encoder.parameters(), "lr": 0.01}, {"params": self.decoder.parameters(), "lr": 3e-3}]
        return torch.optim.SGD(parts)


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 32, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (8, 8)), nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(64, 10))


@enter(
    runaway("OPT601"),
    "https://livebook.manning.com/concept/keras/learning-rate",
    "https://github.com/tensorflow/tensorflow/issues/323",
)
def cycle_with_a_wrong_peak() -> LightningRun:
    """A one-cycle schedule whose peak is 10 instead of 0.1."""
    x, y = regression(1600)

    def schedule(parameters: Any) -> Any:
        optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=10.0, total_steps=120)
        return optimizer, {"scheduler": cycle, "interval": "step"}

    net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
    return LightningRun(Lit(net, square, schedule), stream(batches(x, y, epochs=3)), {"max_epochs": 1})


# -- OPT602 ----------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, "OPT602"),
    "https://github.com/crowsonkb/k-diffusion/issues/50",
    "https://github.com/ClementPinard/SfmLearner-Pytorch/issues/5",
)
def warmup_over_a_million_steps() -> LightningRun:
    """A linear warm-up copied from a large model: after 120 steps the rate is still nothing."""
    x, y = digits(1600)

    def schedule(parameters: Any) -> Any:
        optimizer = torch.optim.AdamW(parameters, lr=3e-4)
        warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 1_000_000)
        return optimizer, {"scheduler": warmup, "interval": "step"}

    return LightningRun(Lit(transformer(), classify, schedule), stream(batches(x, y, epochs=3)), {"max_epochs": 1})


# -- GRAD202 ---------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, ("GRAD202", "ACT304")),
    "https://github.com/s-4-m-a-n/365-days-of-ML-challange",
    "https://masterinai.com/computer-vision/vanishing-gradient-problem",
)
def thirty_plain_convolutions() -> LightningRun:
    """Thirty convolutions with tanh, no shortcuts, the default initialisation: the signal fades both ways."""
    x, y = digits(1600)
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 6, 3, padding=1), nn.Tanh()]
    for _ in range(29):
        layers += [nn.Conv2d(6, 6, 3, padding=1), nn.Tanh()]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(384, 10))
    return LightningRun(Lit(net, classify, sgd(0.02)), stream(batches(x, y, epochs=2)), {"max_epochs": 1})


# -- GRAD203 ---------------------------------------------------------------------------------------------------------


class Session(nn.Module):
    """A recurrent cell, stepped by hand over sessions of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(1, 40)
        nn.init.orthogonal_(self.cell.weight_hh, gain=2.2)
        self.out = nn.Linear(40, 1)

    def forward(self, session: Tensor) -> Tensor:
        state = torch.zeros(len(session), 40)
        for moment in session.unbind(1):
            state = self.cell(moment, state)
        return self.out(state)


@enter(
    finite(Happens.SPIKE, "GRAD203", rows=None),
    "https://nano-gpt.com/blog/gradient-clipping-rnn-training-why-it-matters",
    "https://apxml.com/courses/rnns-and-sequence-modeling/chapter-4-rnn-training-challenges/gradient-clipping-explained",
)
def sessions_that_never_end() -> LightningRun:
    """Short sessions, and from batch 32 on some of 90 moments; gradients are not clipped."""

    def make() -> Iterator[dict[str, Tensor]]:
        for number in range(45):
            x, y = waves(24, length=90 if number >= 32 else 12, seed=number)
            yield {"x": torch.from_numpy(x), "y": torch.from_numpy(y)}

    return LightningRun(Lit(Session(), square, sgd(0.01)), stream(make), {"max_epochs": 1})


# -- ACT302, ACT303, ACT304 ------------------------------------------------------------------------------------------


class Gates(nn.Module):
    """A highway layer between two linear ones; its gate is told to stay shut."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.gate, self.value, self.out = (
            nn.Linear(*shape) for shape in ((64, 32), (32, 32), (32, 32), (32, 10))
        )
        nn.init.constant_(self.gate.bias, -40.0)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.read(x))
        return self.out(torch.sigmoid(self.gate(hidden)) * self.value(hidden))


@enter(
    finite(Happens.STALL, ("ACT302", "ACT304")),
    "https://github.com/mukul-rathi/deep-learning-tutorials/issues/2",
    "https://oalahurikar.github.io/ai-blog/First-Principles/Learning-is-slow-for-sigmoid",
)
def gates_that_stay_shut() -> LightningRun:
    """Sigmoid gates start with a bias of -40: they are shut, and no gradient can open them."""
    return LightningRun(Lit(Gates(), classify, adam(1e-3)), stream(batches(*digits(1600), epochs=3)), {"max_epochs": 1})


@enter(
    finite(Happens.STALL, ("ACT303", "ACT304")),
    "https://api.emergentmind.com/papers/1903.06733",
    "https://theneuralbase.com/deep-learning-fundamentals/learn/beginner/dead-neurons-relu/",
)
def prior_bias_in_every_layer() -> LightningRun:
    """The prior bias of a detector's last layer, -log(99), was put into every convolution: all of them are dead."""
    net = nn.Sequential(
        *(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
        ),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10)),
    )
    for part in net:
        if isinstance(part, nn.Conv2d):
            nn.init.constant_(part.bias, -math.log(99))
    return LightningRun(Lit(net, classify, adam(1e-3)), stream(batches(*digits(1600), epochs=3)), {"max_epochs": 1})


@enter(
    finite(Happens.STALL, ("ACT304", "GRAD202")),
    "https://github.com/mozilla/DeepSpeech/issues/138",
    "https://github.com/udlbook/udlbook/issues/87",
)
def timid_initialisation() -> LightningRun:
    """Every weight drawn with deviation 0.001, for caution, in six layers."""
    layers: list[nn.Module] = []
    for width in (64, 48, 48, 48, 48):
        layers += [nn.Linear(width, 48), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(48, 10))
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.001)
    return LightningRun(Lit(net, classify, sgd(0.05)), stream(batches(*digits(1600), epochs=3)), {"max_epochs": 1})


# -- healthy ---------------------------------------------------------------------------------------------------------


@enter(healthy(), "https://github.com/huggingface/transformers/pull/17306")
def padded_transformer() -> LightningRun:
    """A transformer with padding masks, all of them legal."""

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 32, dropout=0.1, batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            rows = x.view(-1, 8, 8)
            empty = rows.sum(-1) == 0
            empty[:, 3] = False
            return self.head(self.encoder(rows, src_key_padding_mask=empty).flatten(1))

    return LightningRun(
        Lit(Padded(), classify, adam(3e-3)), stream(batches(*digits(1600), epochs=2)), {"max_epochs": 1}
    )


@enter(healthy(), "https://github.com/pytorch/pytorch/issues/1767")
def autoencoder_by_hand() -> LightningRun:
    """Manual optimisation with two learning rates; the larger one is high, and works."""
    return LightningRun(Manual(), stream(batches(*digits(1600), epochs=2)), {"max_epochs": 1})


@enter(healthy(), "https://github.com/vitoralbiero/img2pose/issues/46")
def noisy_small_batches() -> LightningRun:
    """Batches of 4: the loss is all over the place, and falls."""
    net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
    return LightningRun(Lit(net, square, adam(3e-3)), stream(batches(*regression(800), size=4)), {"max_epochs": 1})
