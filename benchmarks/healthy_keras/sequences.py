"""Sequences: recurrent networks, attention with masks, tokens that hardly ever occur."""

import keras
import numpy as np
from keras import ops

from benchmarks.healthy_keras.registry import Fit, compiled, healthy_run

layers = keras.layers
ROWS, LENGTH, TOKENS = 1024, 16, 50
LABELS = "sparse_categorical_crossentropy"


def waves(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Noisy sine waves and their next value, float32."""
    phase = generator.uniform(0, 2 * np.pi, (ROWS, 1))
    speed = generator.uniform(0.2, 0.8, (ROWS, 1))
    series = np.sin(phase + speed * np.arange(LENGTH + 1)) + 0.1 * generator.normal(size=(ROWS, LENGTH + 1))
    return series[:, :-1, None].astype("float32"), series[:, -1:].astype("float32")


def tokens(generator: np.random.Generator) -> np.ndarray:
    """Tokens from 1 on whose frequency falls with their rank, padded with zeros at the end."""
    words = np.minimum(generator.zipf(1.5, (ROWS, LENGTH)), TOKENS - 1)
    lengths = generator.integers(4, LENGTH + 1, (ROWS, 1))
    return np.where(np.arange(LENGTH) < lengths, words, 0).astype("int32")


@healthy_run("gates, and gradients through sixteen steps")
def lstm(generator: np.random.Generator) -> list[Fit]:
    model = keras.Sequential([layers.Input((LENGTH, 1)), layers.LSTM(16), layers.Dense(1)])
    return [Fit(compiled(model, keras.optimizers.Adam(5e-3), "mse"), *waves(generator), {"epochs": 10})]


@healthy_run("two layers, the first one with dropout inside its recurrence")
def gru(generator: np.random.Generator) -> list[Fit]:
    model = keras.Sequential(
        [
            layers.Input((LENGTH, 1)),
            layers.GRU(16, return_sequences=True, recurrent_dropout=0.1),
            layers.GRU(16),
            layers.Dense(1),
        ]
    )
    return [Fit(compiled(model, keras.optimizers.Adam(5e-3), "mse"), *waves(generator), {"epochs": 10})]


@healthy_run("padding is masked out of attention with large negative numbers")
def transformer(generator: np.random.Generator) -> list[Fit]:
    x = tokens(generator)
    y = (np.count_nonzero(x == 2, axis=1) > 1).astype("int32")
    inputs = layers.Input((LENGTH,), dtype="int32")
    present = layers.Lambda(lambda ids: ops.not_equal(ids, 0)[:, None, :], output_shape=(1, LENGTH))(inputs)
    hidden = layers.Embedding(TOKENS, 16)(inputs)
    for _ in range(2):
        attended = layers.MultiHeadAttention(2, 8)(hidden, hidden, attention_mask=present)
        hidden = layers.LayerNormalization()(hidden + attended)
        hidden = layers.LayerNormalization()(hidden + layers.Dense(16, activation="gelu")(hidden))
    outputs = layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling1D()(hidden))
    model = keras.Model(inputs, outputs)
    return [Fit(compiled(model, keras.optimizers.AdamW(1e-3), LABELS), x, y, {"epochs": 10})]


@healthy_run("rare tokens whose embeddings are hit once an epoch")
def rare_tokens(generator: np.random.Generator) -> list[Fit]:
    x = tokens(generator)
    y = (x.max(axis=1) > 20).astype("int32")
    model = keras.Sequential(
        [
            layers.Input((LENGTH,), dtype="int32"),
            layers.Embedding(TOKENS, 16),
            layers.GlobalMaxPooling1D(),
            layers.Dense(2, activation="softmax"),
        ]
    )
    return [Fit(compiled(model, keras.optimizers.Adam(1e-2), LABELS), x, y, {"epochs": 10})]
