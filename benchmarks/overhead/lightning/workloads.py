"""The three trainings whose steps are timed: a small one, where every microsecond shows, and two ordinary ones."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

CLASSES = 10
TOKENS = 8192
CONTEXT = 128


@dataclass(frozen=True)
class Workload:
    """One model with its batches.

    Attributes:
        name: Name on the command line.
        build: Makes the model.
        batch: Makes one batch from a random generator: inputs, and the class of each of the model's outputs.
        steps: Measured steps of each arm by default, a multiple of the guard's own cadence of 16 steps.
        block: Steps that an arm makes in its turn.
        target: Largest share of the step that the guard may need for itself.
    """

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[torch.Generator], tuple[Tensor, Tensor]]
    steps: int
    block: int
    target: float


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm around a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.branch(images) + self.shortcut(images))


class CausalTransformer(nn.Module):
    """A decoder-only language model: pre-norm layers, learned positions, an output layer tied to the embedding."""

    def __init__(self, width: int = 512, layers: int = 8, heads: int = 8) -> None:
        super().__init__()
        self.tokens = nn.Embedding(TOKENS, width)
        self.positions = nn.Parameter(torch.zeros(CONTEXT, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(CONTEXT))

    def forward(self, text: Tensor) -> Tensor:
        hidden = self.tokens(text) + self.positions
        for layer in self.layers:
            hidden = layer(hidden, src_mask=self.mask, is_causal=True)
        return nn.functional.linear(self.norm(hidden), self.tokens.weight).flatten(0, 1)


def perceptron() -> nn.Module:
    widths = (784, 680, 512, 256)
    hidden = [layer for i, o in pairwise(widths) for layer in (nn.Linear(i, o), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(widths[-1], CLASSES))


def residual_network() -> nn.Module:
    """ResNet-18 for small images: a 3x3 stem at full resolution, four stages of two blocks."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    inputs = 64
    for outputs in (64, 128, 256, 512):
        layers += [ResidualBlock(inputs, outputs, 1 if inputs == outputs else 2), ResidualBlock(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES))


def vectors(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(256, 784, generator=generator), torch.randint(CLASSES, (256,), generator=generator)


def images(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(32, 3, 32, 32, generator=generator), torch.randint(CLASSES, (32,), generator=generator)


def texts(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    text = torch.randint(TOKENS, (4, CONTEXT + 1), generator=generator)
    return text[:, :-1].contiguous(), text[:, 1:].flatten()


WORKLOADS = (
    Workload("mlp", perceptron, vectors, steps=192, block=4, target=0.03),
    Workload("cnn", residual_network, images, steps=16, block=2, target=0.005),
    Workload("transformer", CausalTransformer, texts, steps=16, block=2, target=0.005),
)
"""All of them, the smallest first."""
