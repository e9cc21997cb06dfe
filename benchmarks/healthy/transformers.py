"""Small transformers: language with warm-up, clipping, images, and modular arithmetic."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.healthy.digits import digits
from benchmarks.healthy.recurrent import character_windows, token_loss
from benchmarks.healthy.registry import Parts, healthy_run
from benchmarks.healthy.supervised import Supervised, adam, adamw, shuffled


class CausalTransformer(nn.Module):
    """A decoder-only language model with learnt positions."""

    def __init__(self, alphabet: int, length: int, width: int = 32, layers: int = 2, **options: Any) -> None:
        super().__init__()
        self.tokens = nn.Embedding(alphabet, width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, **options)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.readout = nn.Linear(width, alphabet)

    def forward(self, sequence: Tensor) -> Tensor:
        length = sequence.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        hidden = self.tokens(sequence) + self.positions[:length]
        return self.readout(self.blocks(hidden, mask=mask, is_causal=True))


def warmup_cosine(warmup_steps: int, total_steps: int) -> Any:
    """Linear warm-up from zero, then half a cosine down to zero."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, total_steps - warmup_steps)))

    return lambda optimizer: LambdaLR(optimizer, factor)


@healthy_run("language model with linear warm-up and cosine decay")
def transformer_warmup_cosine(seed: int) -> Parts:
    inputs, targets, alphabet = character_windows(seed, 32)
    network = CausalTransformer(alphabet, 32, dropout=0.1, norm_first=True)
    module = Supervised(network, token_loss, adamw(3e-3, weight_decay=0.1), warmup_cosine(100, 600))
    return module, shuffled(inputs, targets, batch_size=16, seed=seed), {"max_steps": 600}


@healthy_run("post-norm language model with gradient_clip_val=1.0 and no warm-up")
def transformer_clipped(seed: int) -> Parts:
    inputs, targets, alphabet = character_windows(seed, 32)
    network = CausalTransformer(alphabet, 32, dropout=0.0)
    module = Supervised(network, token_loss, adam(2e-3))
    loader = shuffled(inputs, targets, batch_size=16, seed=seed)
    return module, loader, {"max_steps": 600, "gradient_clip_val": 1.0}


class PatchClassifier(nn.Module):
    """A vision transformer over the 16 patches of 2 x 2 pixels of a digit."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 32, 2, stride=2)
        self.positions = nn.Parameter(0.02 * torch.randn(16, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, activation="gelu", batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.readout = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images.view(-1, 1, 8, 8)).flatten(2).transpose(1, 2)
        return self.readout(self.blocks(patches + self.positions).mean(1))


@healthy_run("vision transformer with label smoothing, bfloat16 and clipping")
def transformer_vision(seed: int) -> Parts:
    inputs, labels = digits()
    module = Supervised(PatchClassifier(), nn.CrossEntropyLoss(label_smoothing=0.1), adamw(2e-3))
    loader = shuffled(inputs, labels, batch_size=32, seed=seed)
    return module, loader, {"max_steps": 500, "precision": "bf16-mixed", "gradient_clip_val": 1.0}


@healthy_run("modular addition with heavy weight decay: long plateaus, sudden drops, small rebounds")
def modular_addition(seed: int) -> Parts:
    modulus = 23
    pairs = torch.cartesian_prod(torch.arange(modulus), torch.arange(modulus))
    sums = pairs.sum(1) % modulus
    network = nn.Sequential(
        nn.Embedding(modulus, 32), nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, modulus)
    )
    module = Supervised(network, F.cross_entropy, adamw(1e-2, weight_decay=1.0, betas=(0.9, 0.98)))
    return module, shuffled(pairs, sums, batch_size=128, seed=seed), {"max_steps": 1200}
