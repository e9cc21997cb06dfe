"""Small learning problems in plain numpy: first weights and batches, the same numbers for every framework."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BATCH_SIZE = 8

Array = np.ndarray


@dataclass(frozen=True)
class Batch:
    """What one step trains on."""

    inputs: tuple[Array, ...]
    target: Array


@dataclass(frozen=True)
class Task:
    """A problem and the network for it.

    The networks are built by each framework's runner; here are only their parameters.
    """

    loss: str
    """``mse``; ``crossentropy`` of logits and class numbers; ``kl`` of logits and probabilities."""
    shapes: dict[str, tuple[int, ...]]
    """Trainable parameters by name, kernels as [..., inputs, outputs]."""
    draw: Callable[[np.random.Generator], Batch]
    """Draws one healthy batch."""

    def weights(self) -> dict[str, Array]:
        """First values of the parameters: kernels drawn by Glorot's rule, biases zero, scales one."""
        draw = np.random.default_rng(11)
        return {name: _first_values(draw, name, shape) for name, shape in self.shapes.items()}

    def batches(self, count: int) -> list[Batch]:
        """Healthy batches, always the same."""
        draw = np.random.default_rng(5)
        return [self.draw(draw) for _ in range(count)]


def _first_values(draw: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
    if len(shape) == 1:
        return np.full(shape, 1.0 if name.endswith("scale") else 0.0, np.float32)
    fan_in = int(np.prod(shape[:-1]))
    return draw.normal(0.0, (2.0 / (fan_in + shape[-1])) ** 0.5, shape).astype(np.float32)


def _regression(draw: np.random.Generator) -> Batch:
    x = draw.normal(size=(BATCH_SIZE, 4))
    y = x @ np.array([[1.0], [-2.0], [0.5], [0.3]]) + 0.3 * draw.normal(size=(BATCH_SIZE, 1))
    return Batch((x.astype(np.float32),), y.astype(np.float32))


def _images(draw: np.random.Generator) -> Batch:
    """Stripes along rows, along columns, or none."""
    labels = draw.integers(0, 3, BATCH_SIZE)
    stripes = np.resize([1.0, -1.0], 6)
    patterns = np.stack([np.tile(stripes[:, None], (1, 6)), np.tile(stripes[None], (6, 1)), np.zeros((6, 6))])
    x = patterns[labels] + 0.5 * draw.normal(size=(BATCH_SIZE, 6, 6))
    return Batch((x[..., None].astype(np.float32),), labels.astype(np.int64))


def _sequences(draw: np.random.Generator) -> Batch:
    x = draw.normal(size=(BATCH_SIZE, 5, 3))
    y = x[:, -3:, 0].sum(1, keepdims=True) + 0.1 * draw.normal(size=(BATCH_SIZE, 1))
    return Batch((x.astype(np.float32),), y.astype(np.float32))


def _tokens(draw: np.random.Generator) -> Batch:
    """Sentences of one to six tokens out of ten; the class is the first token's number modulo three."""
    tokens = draw.integers(0, 10, (BATCH_SIZE, 6))
    lengths = draw.integers(1, 7, BATCH_SIZE)
    mask = np.where(np.arange(6)[None] < lengths[:, None], 0.0, -np.inf)
    return Batch((tokens.astype(np.int64), mask.astype(np.float32)), (tokens[:, 0] % 3).astype(np.int64))


def _distances(draw: np.random.Generator) -> Batch:
    x = draw.normal(size=(BATCH_SIZE, 4))
    y = np.sqrt(np.square(x[:, :3]).sum(1, keepdims=True))
    return Batch((x.astype(np.float32),), y.astype(np.float32))


def _distributions(draw: np.random.Generator) -> Batch:
    x = draw.normal(size=(BATCH_SIZE, 4))
    scores = np.exp(x[:, :3] + 0.3 * draw.normal(size=(BATCH_SIZE, 3)))
    y = scores / scores.sum(1, keepdims=True)
    return Batch((x.astype(np.float32),), y.astype(np.float32))


TASKS = {
    # A line; nothing between a fault and the weights.
    "linear": Task("mse", {"out.kernel": (4, 1), "out.bias": (1,)}, _regression),
    # Two layers, tanh between them.
    "regression": Task(
        "mse",
        {"hidden.kernel": (4, 8), "hidden.bias": (8,), "out.kernel": (8, 1), "out.bias": (1,)},
        _regression,
    ),
    # Convolution, batch normalisation, ReLU, mean over the image, classes.
    "images": Task(
        "crossentropy",
        {
            "conv.kernel": (3, 3, 1, 4),
            "norm.scale": (4,),
            "norm.bias": (4,),
            "out.kernel": (4, 3),
            "out.bias": (3,),
        },
        _images,
    ),
    # A recurrent layer without biases, its last state, a line.
    "sequences": Task(
        "mse",
        {"rnn.kernel": (3, 8), "rnn.recurrent": (8, 8), "out.kernel": (8, 1), "out.bias": (1,)},
        _sequences,
    ),
    # Embedding of twelve tokens (two of which never occur), masked attention of one head, first position, classes.
    "tokens": Task(
        "crossentropy",
        {
            "embedding.table": (12, 8),
            "query.kernel": (8, 8),
            "key.kernel": (8, 8),
            "value.kernel": (8, 8),
            "out.kernel": (8, 3),
            "out.bias": (3,),
        },
        _tokens,
    ),
    # The length of a projection: a root, whose slope is infinite at zero.
    "distances": Task("mse", {"projection.kernel": (4, 3)}, _distances),
    # Divergence from given probabilities p, whose term p log p is NaN at zero and constant for the weights.
    "distributions": Task("kl", {"out.kernel": (4, 3), "out.bias": (3,)}, _distributions),
}
