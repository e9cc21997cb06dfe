"""The trainings whose steps are timed: small ones, where every microsecond shows, and some that are well known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

CLASSES = 10
TOKENS = 1024
CONTEXT = 64
WIDTH = 128
WORDS, REVIEW = 20_000, 200
PIECES, PASSAGE = 30_522, 128

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


def residual() -> keras.Model:
    """ResNet-20 for CIFAR (He et al., Deep Residual Learning, 2016, section 4.2), with projections as shortcuts."""
    image = layers.Input((32, 32, 3))
    hidden = _convolved(image, 16)
    for filters, first_stride in ((16, 1), (32, 2), (64, 2)):
        for stride in (first_stride, 1, 1):
            straight = hidden
            if hidden.shape[-1] != filters:
                straight = layers.BatchNormalization()(layers.Conv2D(filters, 1, stride, use_bias=False)(hidden))
            inner = layers.Conv2D(filters, 3, padding="same", use_bias=False)(_convolved(hidden, filters, stride))
            hidden = layers.Activation("relu")(layers.Add()([straight, layers.BatchNormalization()(inner)]))
    return keras.Model(image, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(hidden)))


def _convolved(hidden: Any, filters: int, stride: int = 1) -> Any:
    convolved = layers.Conv2D(filters, 3, stride, padding="same", use_bias=False)(hidden)
    return layers.Activation("relu")(layers.BatchNormalization()(convolved))


class _WordsAndPlaces(layers.Layer):
    def __init__(self, words: int, length: int, width: int) -> None:
        super().__init__()
        self.words, self.places = layers.Embedding(words, width), layers.Embedding(length, width)

    def call(self, text: Any) -> Any:
        return self.words(text) + self.places(keras.ops.arange(text.shape[1]))


def classifier() -> keras.Model:
    """The transformer of Keras' own example of text classification (keras.io/examples/nlp, 2020): one small block."""
    text = layers.Input((REVIEW,), dtype="int32")
    hidden = _WordsAndPlaces(WORDS, REVIEW, 32)(text)
    attended = layers.Dropout(0.1)(layers.MultiHeadAttention(2, 32)(hidden, hidden))
    hidden = layers.LayerNormalization(epsilon=1e-6)(hidden + attended)
    wide = layers.Dropout(0.1)(layers.Dense(32)(layers.Dense(32, activation="relu")(hidden)))
    hidden = layers.LayerNormalization(epsilon=1e-6)(hidden + wide)
    pooled = layers.Dropout(0.1)(layers.GlobalAveragePooling1D()(hidden))
    return keras.Model(text, layers.Dense(2)(layers.Dropout(0.1)(layers.Dense(20, activation="relu")(pooled))))


def tiny_bert() -> keras.Model:
    """BERT-Tiny (Turc et al., Well-Read Students Learn Better, 2019) being tuned: two post-norm blocks, a class."""
    text = layers.Input((PASSAGE,), dtype="int32")
    hidden = layers.Dropout(0.1)(layers.LayerNormalization(epsilon=1e-12)(_WordsAndPlaces(PIECES, 512, WIDTH)(text)))
    for _ in range(2):
        attended = layers.Dropout(0.1)(layers.MultiHeadAttention(2, WIDTH // 2, dropout=0.1)(hidden, hidden))
        hidden = layers.LayerNormalization(epsilon=1e-12)(hidden + attended)
        wide = layers.Dropout(0.1)(layers.Dense(WIDTH)(layers.Dense(4 * WIDTH, activation="gelu")(hidden)))
        hidden = layers.LayerNormalization(epsilon=1e-12)(hidden + wide)
    pooled = layers.Dropout(0.1)(layers.Dense(WIDTH, activation="tanh")(hidden[:, 0]))
    return keras.Model(text, layers.Dense(2)(pooled))


def vectors(generator: np.random.Generator) -> Arrays:
    return generator.standard_normal((32, 256), "float32"), generator.integers(CLASSES, size=32, dtype="int32")


def images(generator: np.random.Generator) -> Arrays:
    return generator.standard_normal((32, 32, 32, 3), "float32"), generator.integers(CLASSES, size=32, dtype="int32")


def photographs(generator: np.random.Generator) -> Arrays:
    return generator.standard_normal((128, 32, 32, 3), "float32"), generator.integers(CLASSES, size=128, dtype="int32")


def reviews(generator: np.random.Generator) -> Arrays:
    return generator.integers(WORDS, size=(32, REVIEW), dtype="int32"), generator.integers(2, size=32, dtype="int32")


def passages(generator: np.random.Generator) -> Arrays:
    return generator.integers(PIECES, size=(32, PASSAGE), dtype="int32"), generator.integers(2, size=32, dtype="int32")


def texts(generator: np.random.Generator) -> Arrays:
    text = generator.integers(TOKENS, size=(16, CONTEXT + 1), dtype="int32")
    return text[:, :-1].copy(), text[:, 1:].copy()


WORKLOADS = (
    Workload("mlp", perceptron, vectors, rounds=80, target=None),
    Workload("cnn", convolutional, images, rounds=24, target=0.01),
    Workload("transformer", transformer, texts, rounds=24, target=0.01),
    Workload("resnet", residual, photographs, rounds=6, target=0.01),
    Workload("classifier", classifier, reviews, rounds=24, target=0.01),
    Workload("bert", tiny_bert, passages, rounds=6, target=0.01),
)
"""All of them: those of one's own, the smallest first, then the well-known ones."""
