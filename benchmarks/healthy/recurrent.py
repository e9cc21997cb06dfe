"""Recurrent networks: language, time series, clipped vanilla cells, and alignment by CTC."""

import math
import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.healthy.registry import Parts, healthy_run
from benchmarks.healthy.supervised import Supervised, adam, sgd, shuffled

IGNORED = -100
"""The target of padded positions; the default `ignore_index` of torch's cross-entropy."""

SUBJECTS = ("the miller", "a grey heron", "my aunt", "the last train", "every baker", "an old map")
VERBS = ("crosses", "remembers", "paints", "follows", "sells", "forgets")
OBJECTS = ("the river", "seven lanterns", "a quiet street", "the winter", "two loaves", "nobody")


def generated_text(seed: int, sentences: int = 600) -> str:
    """Sentences of a small grammar: enough structure for a model of characters to learn from."""
    draw = random.Random(seed)
    parts = (SUBJECTS, VERBS, OBJECTS)
    return "".join(" ".join(draw.choice(words) for words in parts) + ". " for _ in range(sentences))


def character_windows(seed: int, length: int) -> tuple[Tensor, Tensor, int]:
    """Windows of character codes, the same windows one character on, and the size of the alphabet."""
    text = generated_text(seed)
    codes = {character: code for code, character in enumerate(sorted(set(text)))}
    stream = torch.tensor([codes[character] for character in text])
    windows = stream.unfold(0, length + 1, 7)
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous(), len(codes)


class SequenceModel(nn.Module):
    """An optional embedding, a recurrent layer, and a linear read-out at every position."""

    def __init__(self, cell: type[nn.RNNBase], inputs: int, hidden: int, outputs: int, embed: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(inputs, 24) if embed else nn.Identity()
        self.recurrent = cell(24 if embed else inputs, hidden, batch_first=True)
        self.readout = nn.Linear(hidden, outputs)

    def forward(self, sequence: Tensor) -> Tensor:
        return self.readout(self.recurrent(self.embedding(sequence))[0])


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy averaged over all the positions of all the sequences."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@healthy_run("LSTM over the characters of a generated text")
def lstm_characters(seed: int) -> Parts:
    inputs, targets, alphabet = character_windows(seed, 32)
    network = SequenceModel(nn.LSTM, alphabet, 64, alphabet, embed=True)
    module = Supervised(network, token_loss, adam(3e-3))
    return module, shuffled(inputs, targets, batch_size=32, seed=seed), {"max_steps": 500}


@healthy_run("GRU that forecasts noisy oscillations of different periods")
def gru_time_series(seed: int) -> Parts:
    time = torch.arange(49.0)
    periods, phases = 6 + 20 * torch.rand(1200, 1), 2 * math.pi * torch.rand(1200, 1)
    series = torch.sin(2 * math.pi * time / periods + phases) + 0.1 * torch.randn(1200, 49)
    series = series.unsqueeze(2)
    module = Supervised(SequenceModel(nn.GRU, 1, 32, 1, embed=False), F.mse_loss, adam(5e-3))
    return module, shuffled(series[:, :-1], series[:, 1:], batch_size=32, seed=seed), {"max_steps": 400}


@healthy_run("vanilla RNN under clipping: spiky norms before the clip, a loss that hardly notices")
def rnn_clipped(seed: int) -> Parts:
    inputs, targets, alphabet = character_windows(seed, 40)
    network = SequenceModel(nn.RNN, alphabet, 64, alphabet, embed=True)
    for name, weight in network.recurrent.named_parameters():
        if name.startswith("weight_hh"):
            nn.init.orthogonal_(weight, gain=1.3)
    module = Supervised(network, token_loss, sgd(0.3, momentum=0.9))
    loader = shuffled(inputs, targets, batch_size=16, seed=seed)
    return module, loader, {"max_steps": 900, "gradient_clip_val": 0.25}


@healthy_run("adding problem with a vanilla RNN: plateau, then sudden learning with large gradients, clipped")
def rnn_adding_problem(seed: int) -> Parts:
    values, marks = torch.rand(4000, 12), torch.zeros(4000, 12)
    first, second = torch.randint(0, 6, (4000,)), torch.randint(6, 12, (4000,))
    marks[torch.arange(4000), first], marks[torch.arange(4000), second] = 1.0, 1.0
    sums = (values * marks).sum(1)
    network = SequenceModel(nn.RNN, 2, 48, 1, embed=False)
    module = Supervised(network, lambda out, y: F.mse_loss(out[:, -1, 0], y), adam(3e-3))
    loader = shuffled(torch.stack([values, marks], dim=2), sums, batch_size=32, seed=seed)
    return module, loader, {"max_steps": 1000, "gradient_clip_val": 1.0}


def ctc_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """CTC over sequences of one length; the label 0 is the blank."""
    batch, frames, _ = logits.shape
    log_probabilities = logits.log_softmax(2).transpose(0, 1)
    frame_counts, label_counts = torch.full((batch,), frames), torch.full((batch,), labels.shape[1])
    return F.ctc_loss(log_probabilities, labels, frame_counts, label_counts)


@healthy_run("CTC: begins high, lies on the blank plateau, then breaks through")
def ctc_alignment(seed: int) -> Parts:
    labels = torch.randint(1, 8, (1500, 5))
    prototypes = torch.randn(8, 12)
    frames = prototypes[labels].repeat_interleave(4, dim=1) + 0.4 * torch.randn(1500, 20, 12)
    network = SequenceModel(nn.GRU, 12, 48, 8, embed=False)
    module = Supervised(network, ctc_loss, adam(3e-3))
    return module, shuffled(frames, labels, batch_size=16, seed=seed), {"max_steps": 500}


@healthy_run("loss summed over 4 to 200 characters: the length of the batch sets the loss and the norm")
def summed_variable_lengths(seed: int) -> Parts:
    inputs, targets, alphabet = character_windows(seed, 200)
    lengths = (4 * torch.exp(1.5 * torch.randn(len(inputs)).abs())).long().clamp(4, 200)

    def padded(batch: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
        longest = int(max(row[2] for row in batch))
        sources = torch.stack([row[0][:longest] for row in batch])
        goals = [row[1][:longest].masked_fill(torch.arange(longest) >= row[2], IGNORED) for row in batch]
        return sources, torch.stack(goals)

    def summed(logits: Tensor, goals: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), goals.flatten(), ignore_index=IGNORED, reduction="sum")

    network = SequenceModel(nn.GRU, alphabet, 48, alphabet, embed=True)
    loader = shuffled(inputs, targets, lengths, batch_size=2, seed=seed, collate_fn=padded)
    return Supervised(network, summed, adam(2e-3)), loader, {"max_steps": 800}
