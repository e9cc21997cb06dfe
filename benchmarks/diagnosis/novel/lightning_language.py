"""Language, in Lightning: transcripts by CTC, a translator, tags, adapters, half precision, schedules."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, non_finite, runaway


def spoken(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Words of four different letters from 1 to 6, and 14 frames of 8 numbers in which they are said."""
    rng = np.random.default_rng(seed)
    words = np.stack([rng.permutation(6)[:4] + 1 for _ in range(rows)])
    voices = np.concatenate([np.zeros((1, 8)), rng.normal(size=(6, 8))])
    frames = np.zeros((rows, 14, 8))
    for place in range(4):
        frames[:, 3 * place + 1 : 3 * place + 3] = voices[words[:, place], None]
    return (frames + 0.2 * rng.normal(size=frames.shape)).astype("float32"), words


class Listener(LightningModule):
    """Frames, halved by a convolution with stride, and letters by CTC."""

    def __init__(self) -> None:
        super().__init__()
        self.halve = nn.Conv1d(8, 48, 4, stride=2)
        self.letters = nn.Linear(48, 7)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        frames, words = batch
        heard = torch.relu(self.halve(frames.transpose(1, 2))).transpose(1, 2)
        scores = self.letters(heard).log_softmax(-1).transpose(0, 1)
        steps = torch.full((len(words),), len(scores))
        return F.ctc_loss(scores, words, steps, torch.full((len(words),), 4))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite(
        "DATA505",
        "ctc_loss",
        "return F.ctc_loss(scores, words, steps",
        modules=("",),
        rows=(10,),
    ),
    "https://github.com/SeanNaren/warp-ctc/issues/29",
    "https://github.com/githubharald/SimpleHTR/issues/28",
)
def word_of_one_letter_four_times() -> LightningRun:
    """Six steps are enough for four letters, but not for the same one four times, which needs blanks between."""
    frames, words = spoken(1280)
    words[33 * 32 + 10] = 5
    return LightningRun(Listener(), in_order(frames, words, size=32), {"max_epochs": 1})


class Translator(LightningModule):
    """Reads six words and writes them in another vocabulary of forty."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(40, 32), nn.Embedding(41, 32)
        self.encoder, self.decoder = nn.GRU(32, 64, batch_first=True), nn.GRU(96, 64, batch_first=True)
        self.out = nn.Sequential(nn.Linear(64, 40), nn.Softmax(dim=-1))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        read, last = self.encoder(self.source(source))
        before = F.pad(target[:, :-1], (1, 0), value=40)
        written, _ = self.decoder(torch.cat([self.target(before), read], dim=-1), last)
        return self.out(written)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        source, target = batch
        return F.cross_entropy(self(source, target).flatten(0, 1), target.flatten())

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    finite(Happens.STALL, "LOSS403"),
    "https://discuss.pytorch.org/t/cross-entropy-loss-is-not-decreasing/43814/16",
    "https://pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html",
)
def translator_whose_words_are_probabilities() -> LightningRun:
    """The decoder ends in a softmax over forty words, and the cross entropy applies another one."""
    source = np.random.default_rng(1).integers(0, 40, (1280, 6))
    return LightningRun(Translator(), in_order(source, (source * 7 + 3) % 40, size=16), {"max_epochs": 1})


class Tagger(LightningModule):
    """Tags of a headline: several may be right."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(60, 32, mode="mean")
        self.tags = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 5), nn.ReLU())
        self.criterion = nn.BCELoss()
        nn.init.constant_(self.tags[2].bias, 0.4)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        headline, tags = batch
        return self.criterion(self.tags(self.words(headline)), tags)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    Truth(happens=Happens.EXCEPTION, causes=("LOSS404",), kind="exception", operations=("RuntimeError",), rows=None),
    "https://pytorch.org/docs/stable/generated/torch.nn.BCELoss.html",
    "https://runebook.dev/ru/docs/pytorch/generated/torch.nn.bceloss",
)
def tags_that_end_in_a_rectifier() -> LightningRun:
    """A rectifier stands where a sigmoid belongs; as soon as one score is above 1, the cross entropy refuses it."""
    rng = np.random.default_rng(3)
    headlines = rng.integers(0, 60, (1280, 6))
    tags = np.stack([(headlines // 12 == tag).any(1) for tag in range(5)], axis=1).astype("float32")
    return LightningRun(Tagger(), in_order(headlines, tags, size=32), {"max_epochs": 1})


class Low(nn.Module):
    """A frozen layer with an adapter of low rank beside it."""

    def __init__(self, frozen: nn.Linear, rank: int = 4, alpha: int = 4) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, frozen.in_features) / frozen.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(frozen.out_features, rank))
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(x) + self.scale * x @ self.down.T @ self.up.T


class Adapted(LightningModule):
    """Grades essays with a model that knows nearly everything; adapters learn the rest."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        super().__init__()
        layers = [nn.Linear(24, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 1)]
        base = nn.Sequential(*layers)
        optimizer = torch.optim.Adam(base.parameters(), lr=5e-3)
        for _ in range(150):
            optimizer.zero_grad()
            F.mse_loss(base(torch.from_numpy(x)), torch.from_numpy(y)).backward()
            optimizer.step()
        self.net = nn.Sequential(*(Low(layer) if isinstance(layer, nn.Linear) else layer for layer in layers))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        essays, grades = batch
        return F.mse_loss(self.net(essays), grades)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam((p for p in self.parameters() if p.requires_grad), lr=0.5)


@enter(
    runaway("OPT601"),
    "https://github.com/bitsandbytes-foundation/bitsandbytes/issues/762",
    "https://github.com/UCSB-AI/PEViT/issues/5",
)
def adapter_at_a_rate_of_one_half() -> LightningRun:
    """Adapters of low rank at a rate of 0.5: what the frozen base knew is gone after two steps."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(1280, 24)).astype("float32")
    base = np.tanh(x[:, :6]).sum(1, keepdims=True).astype("float32")
    moved = (base + 0.3 * x[:, 6:7]).astype("float32")
    return LightningRun(Adapted(x, base), in_order(x, moved, size=32), {"max_epochs": 2})


class HandScaled(LightningModule):
    """Half precision, and a loss scale by hand that doubles after every few good steps."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.words = nn.EmbeddingBag(60, 32, mode="mean")
        self.head = nn.Linear(32, 5)
        self.scale = 1024.0

    def training_step(self, batch: Any, batch_idx: int) -> None:
        headline, topic = batch
        optimizer = self.optimizers()
        loss = F.cross_entropy(self.head(self.words(headline)), topic)
        scaled = loss.half() * self.scale
        optimizer.zero_grad()
        self.manual_backward(scaled.float())
        for parameter in self.parameters():
            parameter.grad.div_(self.scale)
        optimizer.step()
        if batch_idx % 5 == 4:
            self.scale *= 2.0
        self.log("loss", loss)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    non_finite(
        ("OPT604", "NAN110"), ("multiply", "mul"), "scaled = loss.half() * self.scale", modules=("",), phase=None
    ),
    "https://github.com/open-mmlab/mmdetection/issues/3690",
    "https://github.com/tensorflow/tensorflow/issues/38357",
)
def loss_scale_that_only_grows() -> LightningRun:
    """A loss scale by hand doubles every five steps and never goes back: loss times scale leaves float16."""
    rng = np.random.default_rng(5)
    headlines = rng.integers(0, 60, (1280, 6))
    return LightningRun(HandScaled(), in_order(headlines, headlines[:, 0] // 12, size=32), {"max_epochs": 1})


class Aligned(LightningModule):
    """Words of two languages, matched by entropic optimal transport."""

    def __init__(self) -> None:
        super().__init__()
        self.ours, self.theirs = nn.Linear(16, 16), nn.Linear(16, 16)

    def plan(self, cost: Tensor, epsilon: float, rounds: int = 5) -> Tensor:
        kernel = torch.exp(-cost / epsilon)
        left = torch.ones(len(cost), 1)
        for _ in range(rounds):
            right = 1 / (kernel.T @ left)
            left = 1 / (kernel @ right)
        return left * kernel * right.T

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        one, other = batch
        cost = torch.cdist(self.ours(one), self.theirs(other)).square() / 16
        plan = self.plan(cost, epsilon=0.5 * 0.9**self.global_step)
        return -torch.log(plan.diagonal() + 1e-9).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite(
        ("NAN112", "NAN110"),
        ("divide", "reciprocal"),
        ("right = 1 / (kernel", "left = 1 / (kernel"),
        phase=None,
        modules=("",),
        rows=None,
    ),
    "https://github.com/rajewsky-lab/novosparc/issues/50",
    "https://github.com/PythonOT/POT/issues/54",
)
def transport_whose_epsilon_shrinks() -> LightningRun:
    """The epsilon of the transport shrinks by a tenth in each step: sums of exp(-cost / epsilon) vanish, and divide."""
    rng = np.random.default_rng(6)
    one = rng.normal(size=(1280, 16)).astype("float32")
    other = (one[:, ::-1] + 0.3 * rng.normal(size=(1280, 16))).astype("float32")
    return LightningRun(Aligned(), in_order(one, other, size=32), {"max_epochs": 2})


class Warmed(LightningModule):
    """Topics of headlines; the rate warms up over ten steps."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(60, 32, mode="mean")
        self.head = nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 5))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        headline, topic = batch
        return F.cross_entropy(self.head(self.words(headline)), topic)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        warmup = torch.optim.lr_scheduler.MultiplicativeLR(optimizer, lambda step: min(1.0, step / 10))
        return [optimizer], [{"scheduler": warmup, "interval": "step"}]


@enter(
    finite(Happens.STALL, "OPT602"),
    "https://github.com/pytorch/pytorch/issues/33752",
    "https://github.com/potterhsu/easy-faster-rcnn.pytorch/issues/26",
)
def warmup_whose_factors_are_multiplied() -> LightningRun:
    """The factors of a warm-up go to a schedule that multiplies them: 0.1 times 0.2 times 0.3, and so on."""
    rng = np.random.default_rng(7)
    headlines = rng.integers(0, 60, (1280, 6))
    return LightningRun(Warmed(), in_order(headlines, headlines[:, 0] // 12, size=32), {"max_epochs": 3})
