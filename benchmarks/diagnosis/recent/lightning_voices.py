"""Speech and text: sequences, attention, and optimisers that are set by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, enter, finite, healthy, non_finite, runaway
from benchmarks.diagnosis.tables import digits, regression

# -- sound -----------------------------------------------------------------------------------------------------------


class Keyword(LightningModule):
    """Which of four words was said? From the logarithm of the power in eight bands."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(96), nn.Linear(96, 32), nn.ReLU(), nn.Linear(32, 4))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        sound, word = batch
        power = torch.fft.rfft(sound.unflatten(1, (12, 16)), dim=2).abs().square()[..., 1:]
        return F.cross_entropy(self.net(torch.log10(power)), word)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite(
        "NAN111", ("log", "log10"), "return F.cross_entropy(self.net(torch.log10(power))", modules=("",), rows=(11, 20)
    ),
    "https://pytorch.org/audio/stable/generated/torchaudio.transforms.AmplitudeToDB.html",
)
def words_cut_out_with_zeros() -> LightningRun:
    """Bands are taken on a logarithmic scale; two recordings were padded to a second with exact zeros."""
    rng = np.random.default_rng(4601)
    word = rng.integers(0, 4, 32 * 45)
    sound = np.sin(np.arange(192) * (0.4 + 0.5 * word[:, None])) + 0.4 * rng.normal(size=(len(word), 192))
    for row, end in ((11, 120), (20, 150)):
        sound[30 * 32 + row, end:] = 0
    return LightningRun(Keyword(), in_order(sound.astype("float32"), word, size=32), {"max_epochs": 1})


class Speaker(LightningModule):
    """Who speaks? The mean of those frames in which there is a voice."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(6, 16, batch_first=True), nn.Linear(16, 5)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        frames, voiced, speaker = batch
        states = self.gru(frames)[0]
        pooled = (states * voiced.unsqueeze(-1)).sum(1) / voiced.sum(1, keepdim=True)
        return F.cross_entropy(self.head(pooled), speaker)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite("NAN112", "divide", "pooled = (states * voiced.unsqueeze(-1)).sum(1)", modules=("",), rows=(3,)),
    "https://pytorch.org/docs/stable/generated/torch.clamp.html",
)
def utterance_without_a_voice() -> LightningRun:
    """States are averaged over voiced frames; the detector of voices found none in a whisper."""
    rng = np.random.default_rng(4602)
    speaker = rng.integers(0, 5, 24 * 45)
    frames = rng.normal(size=(len(speaker), 20, 6)) + np.eye(5, 6)[speaker][:, None]
    voiced = (rng.random((len(speaker), 20)) < 0.6).astype("float32")
    voiced[:, 0] = 1
    voiced[33 * 24 + 3] = 0
    return LightningRun(Speaker(), in_order(frames.astype("float32"), voiced, speaker, size=24), {"max_epochs": 1})


# -- sequences -------------------------------------------------------------------------------------------------------


class LongMemory(LightningModule):
    """A plain recurrent layer reads a sequence and answers after its end."""

    def __init__(self, optimizer: str, rate: float, nonlinearity: str = "tanh") -> None:
        super().__init__()
        self.rnn = nn.RNN(4, 32, batch_first=True, nonlinearity=nonlinearity)
        self.head = nn.Linear(32, 4)
        self.optimizer, self.rate = optimizer, rate

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        sequence, answer = batch
        return F.cross_entropy(self.head(self.rnn(sequence)[0][:, -1]), answer)

    def configure_optimizers(self) -> Any:
        return getattr(torch.optim, self.optimizer)(self.parameters(), lr=self.rate)


@enter(
    finite(Happens.STALL, "GRAD202", rows=None),
    "https://pytorch.org/docs/stable/generated/torch.nn.RNN.html",
)
def phoneme_that_began_the_word() -> LightningRun:
    """The answer stands in the first of a hundred frames; a plain recurrent layer has forgotten it long before."""
    rng = np.random.default_rng(4603)
    answer = rng.integers(0, 4, 16 * 80)
    sequence = 0.3 * rng.normal(size=(len(answer), 100, 4))
    sequence[:, 0] += 2 * np.eye(4)[answer]
    return LightningRun(
        LongMemory("Adam", 1e-3), in_order(sequence.astype("float32"), answer, size=16), {"max_epochs": 1}
    )


class Pitch(LightningModule):
    """Follows a melody with a recurrent layer of rectifiers, whose weights begin as the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(1, 32, batch_first=True, nonlinearity="relu")
        self.head = nn.Linear(32, 1)
        nn.init.eye_(self.rnn.weight_hh_l0)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        melody, pitch = batch
        return F.mse_loss(self.head(self.rnn(melody)[0][:, -1]), pitch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


@enter(
    runaway(("GRAD203", "OPT601")),
    "https://pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html",
)
def melody_of_a_hundred_notes() -> LightningRun:
    """A recurrent layer of rectifiers over a hundred notes, plain gradient descent and no clip."""
    rng = np.random.default_rng(4604)
    melody = 0.5 * rng.normal(size=(16 * 50, 100, 1))
    pitch = melody[:, -5:].mean(1)
    return LightningRun(
        Pitch(), in_order(melody.astype("float32"), pitch.astype("float32"), size=16), {"max_epochs": 1}
    )


class Tagger(LightningModule):
    """A transformer of six layers, normalised after each branch, that tells what a sentence is about."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.words = nn.Embedding(40, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.head = nn.Linear(32, 8)
        self.rate = rate

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        sentence, topic = batch
        return F.cross_entropy(self.head(self.encoder(self.words(sentence)).mean(1)), topic)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.rate)


def topics(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sentences of 12 words, most of them from the five words of the topic."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, 8, rows)
    own = 5 * topic[:, None] + rng.integers(0, 5, (rows, 12))
    return np.where(rng.random((rows, 12)) < 0.5, own, rng.integers(0, 40, (rows, 12))), topic


@enter(
    finite(Happens.STALL, "OPT601", rows=None),
    "https://github.com/tensorflow/tensor2tensor/issues/280",
    "https://github.com/LiyuanLucasLiu/Transformer-Clinic/issues/16",
)
def transformer_at_full_rate_from_the_start() -> LightningRun:
    """A rate of 0.03 without any warm-up, ten times what works: within a few steps all sentences look alike."""
    return LightningRun(Tagger(3e-2), in_order(*topics(32 * 60, 4605), size=32), {"max_epochs": 1})


@enter(healthy(), "https://pytorch.org/docs/stable/amp.html")
def transformer_in_bfloat16() -> LightningRun:
    """The same network at a usual rate, in the two to three digits of bfloat16."""
    return LightningRun(
        Tagger(1e-3), in_order(*topics(32 * 60, 4606), size=32), {"max_epochs": 1, "precision": "bf16-mixed"}
    )


class Attend(LightningModule):
    """Attention over the words of a sentence, with a large negative number on padding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.ask = nn.Embedding(41, 16, padding_idx=0), nn.Linear(16, 1)
        self.head = nn.Linear(16, 8)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        sentence, topic = batch
        words = self.words(sentence)
        score = self.ask(words).squeeze(2).masked_fill(sentence == 0, -1e9)
        return F.cross_entropy(self.head((torch.softmax(score, 1).unsqueeze(2) * words).sum(1)), topic)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


@enter(healthy(), "https://pytorch.org/docs/stable/generated/torch.Tensor.masked_fill_.html")
def sentences_of_padding_only() -> LightningRun:
    """Some sentences are nothing but padding; their attention is even, their vector zero, and all of it finite."""
    sentence, topic = topics(32 * 60, 4608)
    sentence = sentence + 1
    sentence[::17] = 0
    return LightningRun(Attend(), in_order(sentence, topic, size=32), {"max_epochs": 1})


# -- optimisers ------------------------------------------------------------------------------------------------------


class Reader(LightningModule):
    """Reads a written digit; the optimiser is handed in."""

    def __init__(self, optimizer: Any) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
        self.optimizer = optimizer

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        picture, kind = batch
        return F.cross_entropy(self.net(picture), kind)

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.parameters())


@enter(
    finite(Happens.STALL, "OPT602", rows=None),
    "https://pytorch.org/docs/stable/generated/torch.optim.Adam.html",
)
def epsilon_of_ten() -> LightningRun:
    """An epsilon of 10 was copied from another library's agent; gradients are far smaller, and so are the steps."""
    return LightningRun(
        Reader(lambda weights: torch.optim.Adam(weights, lr=1e-3, eps=10.0)),
        in_order(*digits(1600), size=32),
        {"max_epochs": 2},
    )


class Filter(LightningModule):
    """A filter for echoes, as a regression; the rate is adapted to the rows of a batch."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.net = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        taps, echo = batch
        return F.mse_loss(self.net(taps), echo)

    def configure_optimizers(self) -> Any:
        rate = 0.1 * 256 / self.rows
        return torch.optim.SGD(self.parameters(), lr=rate, momentum=0.9)


@enter(
    runaway("OPT601"),
    "https://pytorch.org/docs/stable/generated/torch.optim.SGD.html",
)
def rate_scaled_the_wrong_way() -> LightningRun:
    """A rate of 0.1 belongs to 256 rows; for a batch of 32 it is multiplied by eight where it should be divided."""
    return LightningRun(Filter(32), in_order(*regression(32 * 60, seed=4607), size=32), {"max_epochs": 1})
