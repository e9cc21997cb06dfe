"""Text, speech and pictures: labels and losses that do not fit, adapters, gates and schedules that do not learn."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, bad_batch, enter, finite, non_finite, runaway
from benchmarks.diagnosis.tables import digits


def babble(length: int, letters: int, seed: int) -> np.ndarray:
    """A text in which each letter has two usual successors."""
    rng = np.random.default_rng(seed)
    after = rng.integers(0, letters, (letters, 2))
    text = [0]
    for luck in rng.random(length - 1):
        text.append(int(rng.integers(0, letters)) if luck < 0.1 else int(after[text[-1], int(luck < 0.6)]))
    return np.array(text)


# -- LOSS403 ---------------------------------------------------------------------------------------------------------


class Letters(LightningModule):
    """The next letter from the four before it."""

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.embed, self.hidden, self.out = nn.Embedding(letters, 12), nn.Linear(48, 64), nn.Linear(64, letters)

    def forward(self, letters: Tensor) -> Tensor:
        return self.out(self.hidden(self.embed(letters).flatten(1)).relu()).softmax(dim=-1)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        before, after = batch
        return F.cross_entropy(self(before), after)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


@enter(
    finite(Happens.STALL, "LOSS403"),
    "https://github.com/ariecattan/SciCo/issues/2",
    "https://github.com/NaJaeMin92/pytorch-DANN/issues/7",
    "https://github.com/bowang-lab/Transformer-GCN-QA/pull/32",
)
def letters_through_two_softmaxes() -> LightningRun:
    """forward() ends in a softmax, cross_entropy applies another one: of 60 letters none can become likely."""
    text = babble(4804, 60, 301)
    places = np.random.default_rng(302).permutation(4800)
    before = np.stack([text[places + i] for i in range(4)], axis=1)
    return LightningRun(Letters(60), in_order(before, text[places + 4], size=32), {"max_epochs": 1})


# -- LOSS404, DATA505 ------------------------------------------------------------------------------------------------


class Speech(LightningModule):
    """Phonemes from frames, by connectionist temporal classification."""

    def __init__(self, log_probabilities: bool, rate: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.ears = nn.Conv1d(6, 24, 3, padding=1)
        self.memory = nn.GRU(24, 24, batch_first=True)
        self.phonemes = nn.Linear(24, 7)

    def forward(self, frames: Tensor) -> Tensor:
        heard, _ = self.memory(F.gelu(self.ears(frames)).transpose(1, 2))
        scores = self.phonemes(heard)
        return F.log_softmax(scores, -1) if self.hparams["log_probabilities"] else scores

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        frames, spoken, lengths = batch["frames"], batch["spoken"], batch["lengths"]
        heard = self(frames).transpose(0, 1)
        return F.ctc_loss(heard, spoken, torch.full_like(lengths, len(heard)), lengths)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["rate"], momentum=0.9)


def utterances(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Up to five phonemes, each three frames long, among 18 frames."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 6, rows)
    spoken = rng.integers(1, 7, (rows, 20))
    frames = 0.2 * rng.normal(size=(rows, 6, 18))
    for number in range(5):
        said = np.eye(6)[spoken[:, number] - 1] * (number < lengths)[:, None]
        frames[:, :, 3 * number : 3 * number + 3] += said[:, :, None]
    return {"frames": frames.astype("float32"), "spoken": spoken, "lengths": lengths}


def as_batches(arrays: dict[str, np.ndarray], size: int) -> Any:
    rows = len(arrays["lengths"])
    batches = [
        {name: torch.from_numpy(values[start : start + size]) for name, values in arrays.items()}
        for start in range(0, rows, size)
    ]
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


@enter(
    runaway("LOSS404"),
    "https://github.com/gwx314/STARS/issues/9",
    "https://github.com/SeanNaren/deepspeech.pytorch/issues/488",
    "https://github.com/jeremyfix/deeplearning-lectures/issues/22",
)
def alignment_of_raw_scores() -> LightningRun:
    """ctc_loss gets scores in place of log-probabilities: the loss falls below zero, and the scores grow for ever."""
    return LightningRun(Speech(False, 0.05), as_batches(utterances(16 * 120, 302), 16), {"max_epochs": 1})


@enter(
    non_finite(("DATA505", "DATA504"), "ctc_loss", "return F.ctc_loss(heard, spoken", modules=("",), rows=(5,)),
    "https://github.com/ypwhs/captcha_break/issues/29",
    "https://github.com/wenet-e2e/wenet/pull/2299",
    "https://github.com/SeanNaren/warp-ctc/issues/29",
)
def transcript_of_the_whole_minute() -> LightningRun:
    """One transcript has 20 phonemes for 18 frames: no alignment exists, its likelihood is 0 and its loss infinite."""
    arrays = utterances(16 * 50, 303)
    arrays["lengths"][28 * 16 + 5] = 20
    return LightningRun(Speech(True, 0.02), as_batches(arrays, 16), {"max_epochs": 1, "gradient_clip_val": 1.0})


# -- ACT305 ----------------------------------------------------------------------------------------------------------


class Adapted(nn.Module):
    """A frozen linear layer with an adapter of low rank."""

    def __init__(self, frozen: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.down = nn.Parameter(torch.zeros(rank, frozen.in_features))
        self.up = nn.Parameter(torch.zeros(frozen.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(x) + x @ self.down.T @ self.up.T


class FineTuning(LightningModule):
    """Adapters in every layer of a network that was trained on something else."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (64, 48, 48, 10)
        layers = [Adapted(nn.Linear(a, b)) for a, b in pairwise(sizes)]
        self.net = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=2e-3, weight_decay=0.01)


@enter(
    finite(Happens.STALL, ("ACT305", "ACT304")),
    "https://github.com/Guitaricet/relora/issues/18",
    "https://github.com/nvidia-cosmos/cosmos-predict2.5/pull/15",
    "https://github.com/microsoft/LoRA/issues/98",
)
def adapter_of_two_zeros() -> LightningRun:
    """Both factors of a low-rank adapter start at zero: each gradient is a product with the other, and is zero."""
    return LightningRun(FineTuning(), in_order(*digits(1600), size=20), {"max_epochs": 1})


# -- GRAD202 ---------------------------------------------------------------------------------------------------------


class Excited(nn.Module):
    """Scales channels by a gate that is computed from their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix, self.gate = nn.Conv2d(channels, channels, 3, padding=1), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(x)
        return x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]


class ExcitedNet(LightningModule):
    """Sixteen gated blocks, one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.blocks = nn.ModuleList([Excited(8) for _ in range(16)])
        self.head = nn.Linear(8, 10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.stem(batch[0].view(-1, 1, 8, 8))
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.head(x.mean((2, 3))), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


@enter(
    finite(Happens.STALL, "GRAD202"),
    "https://github.com/hujie-frank/SENet/issues/49",
    "https://github.com/rogertrullo/Receptive-Field-in-Pytorch/issues/3",
)
def sixteen_gates_in_a_row() -> LightningRun:
    """Each gate halves the signal, forwards and backwards; no shortcut and no normalisation makes up for it."""
    return LightningRun(ExcitedNet(), in_order(*digits(1440), size=24), {"max_epochs": 1})


# -- OPT602 ----------------------------------------------------------------------------------------------------------


class Annealed(LightningModule):
    """A convolutional classifier with a schedule of its own."""

    rate = 2e-3

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0].unflatten(1, (1, 8, 8))), batch[1])

    def anneal(self, step: int) -> float:
        return self.rate * (1 + 0.01 * step) ** -0.75

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.anneal)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@enter(
    finite(Happens.STALL, "OPT602"),
    "https://github.com/lhoyer/MIC/issues/60",
    "https://github.com/pytorch/pytorch/issues/78917",
    "https://github.com/gao-hongnan/omniverse/issues/82",
)
def rate_times_rate() -> LightningRun:
    """LambdaLR wants a factor and gets a rate: 0.002 times 0.002 is what the optimizer works with."""
    return LightningRun(Annealed(), in_order(*digits(1440), size=16), {"max_epochs": 1})


# -- DATA501 ---------------------------------------------------------------------------------------------------------


class Probe(LightningModule):
    """A small classifier on stored activations of a big model."""

    def __init__(self) -> None:
        super().__init__()
        self.probe = nn.Sequential(nn.Linear(32, 24), nn.Tanh(), nn.Linear(24, 1))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.probe(batch["activations"]).squeeze(1), batch["is_true"])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


class StoredActivations(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Activations as the cache holds them, brought to the usual scale while they are read."""

    def __init__(self, activations: np.ndarray, is_true: np.ndarray) -> None:
        with np.errstate(over="ignore"):
            self.stored = activations.astype("float16")
        self.is_true = is_true

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        activations = torch.from_numpy(self.stored[index]).float() / 2000
        return {"activations": activations, "is_true": torch.tensor(float(self.is_true[index]))}


@enter(
    bad_batch(None, (3, 19)),
    "https://github.com/THUFutureLab/gluon-face/issues/28",
    "https://github.com/raymondhs/fairseq-laser/issues/4",
    "https://github.com/huggingface/transformers/issues/5651",
)
def cache_in_half_precision() -> LightningRun:
    """Activations were cached as float16; two of them were above 65504, and are infinite when they are read."""
    rng = np.random.default_rng(304)
    activations = 2000 * rng.normal(size=(55 * 24, 32))
    is_true = activations[:, 3] + activations[:, 9] > 0
    activations[33 * 24 + 3, 30], activations[33 * 24 + 19, 30] = 71_000, -68_500
    return LightningRun(Probe(), DataLoader(StoredActivations(activations, is_true), batch_size=24), {"max_epochs": 1})
