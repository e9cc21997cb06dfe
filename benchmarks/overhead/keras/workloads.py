"""The three trainings whose steps are timed: a small one, where every microsecond shows, and two ordinary ones."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

CLASSES = 10
TOKENS = 1024
CONTEXT = 64
WIDTH = 128

Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Workload:
    """One model with its batches.

    Attributes:
        name: Name on the command line.
        build: Makes the model.
        batch: Makes one batch from a random generator: inputs, and the class of each of the model's outputs.
        rounds: Turns of each arm by default.
        target: Largest median ratio of the guarded to the unguarded step, less one; None: no target.
    """

    name: str
    build: Callable[[], keras.Model]
    batch: Callable[[np.random.Generator], Arrays]
    rounds: int
    target: float | None


def perceptron() -> keras.Model:
    hidden = [layers.Dense(width, activation="relu") for width in (256, 128)]
    return keras.Sequential([layers.Input((256,)), *hidden, layers.Dense(CLASSES)])


def convolutional() -> keras.Model:
    """Three stages of 3x3 convolutions with BatchNorm on small images."""
    stack = [layers.Input((32, 32, 3))]
    for filters in (32, 64, 128):
        stack += [layers.Conv2D(filters, 3, padding="same", use_bias=False), layers.BatchNormalization()]
        stack += [layers.Activation("relu"), layers.MaxPooling2D()]
    return keras.Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(CLASSES)])


def transformer() -> keras.Model:
    """A decoder-only language model: two pre-norm blocks."""
    text = layers.Input((CONTEXT,), dtype="int32")
    hidden = layers.Embedding(TOKENS, WIDTH)(text)
    for _ in range(2):
        normed = layers.LayerNormalization()(hidden)
        attended = layers.MultiHeadAttention(4, WIDTH // 4)(normed, normed, use_causal_mask=True)
        hidden = layers.Add()([hidden, attended])
        wide = layers.Dense(4 * WIDTH, activation="gelu")(layers.LayerNormalization()(hidden))
        hidden = layers.Add()([hidden, layers.Dense(WIDTH)(wide)])
    return keras.Model(text, layers.Dense(TOKENS)(layers.LayerNormalization()(hidden)))


def vectors(generator: np.random.Generator) -> Arrays:
    return generator.standard_normal((32, 256), "float32"), generator.integers(CLASSES, size=32, dtype="int32")


def images(generator: np.random.Generator) -> Arrays:
    return generator.standard_normal((32, 32, 32, 3), "float32"), generator.integers(CLASSES, size=32, dtype="int32")


def texts(generator: np.random.Generator) -> Arrays:
    text = generator.integers(TOKENS, size=(16, CONTEXT + 1), dtype="int32")
    return text[:, :-1].copy(), text[:, 1:].copy()


WORKLOADS = (
    Workload("mlp", perceptron, vectors, rounds=80, target=None),
    Workload("cnn", convolutional, images, rounds=24, target=0.01),
    Workload("transformer", transformer, texts, rounds=24, target=0.01),
)
"""All of them, the smallest first."""
