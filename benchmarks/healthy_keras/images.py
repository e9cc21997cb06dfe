"""Handwritten digits: dense and convolutional classifiers, an autoencoder, rare classes, wrong labels."""

from functools import cache

import keras
import numpy as np
from sklearn.datasets import load_digits

from benchmarks.healthy_keras.registry import Fit, compiled, healthy_run

layers = keras.layers
CLASSES = 10
LABELS = "sparse_categorical_crossentropy"


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """1797 images of 8 x 8 pixels in [0, 1], float32, and their labels."""
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("float32"), y.astype("int32")


def classifier(*hidden: keras.layers.Layer) -> keras.Model:
    """Layers between 64 pixels and 10 probabilities."""
    return keras.Sequential([layers.Input((64,)), *hidden, layers.Dense(CLASSES, activation="softmax")])


@healthy_run("the plainest run of all")
def dense_classifier(generator: np.random.Generator) -> list[Fit]:
    model = classifier(layers.Dense(64, activation="relu"), layers.Dense(64, activation="relu"))
    return [Fit(compiled(model, keras.optimizers.Adam(1e-3), LABELS), *digits(), {"epochs": 8})]


@healthy_run("running statistics that start far from the data, and noise of its own")
def convolutions(generator: np.random.Generator) -> list[Fit]:
    model = classifier(
        layers.Reshape((8, 8, 1)),
        layers.Conv2D(8, 3, padding="same"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling2D(),
        layers.Conv2D(16, 3, padding="same"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Flatten(),
        layers.Dropout(0.4),
    )
    return [Fit(compiled(model, keras.optimizers.Adam(2e-3), LABELS), *digits(), {"epochs": 8})]


@healthy_run("a loss with a floor")
def autoencoder(generator: np.random.Generator) -> list[Fit]:
    x, _ = digits()
    model = keras.Sequential(
        [
            layers.Input((64,)),
            layers.Dense(32, activation="gelu"),
            layers.Dense(8),
            layers.Dense(32, activation="gelu"),
            layers.Dense(64, activation="sigmoid"),
        ]
    )
    return [Fit(compiled(model, keras.optimizers.Adam(3e-3), "binary_crossentropy"), x, x, {"epochs": 8})]


@healthy_run("one class in forty, weighted forty times: most batches hold none of it")
def rare_class(generator: np.random.Generator) -> list[Fit]:
    x, y = digits()
    kept = (y != 8) | (generator.random(len(y)) < 0.25)
    model = keras.Sequential(
        [layers.Input((64,)), layers.Dense(32, activation="relu"), layers.Dense(1, activation="sigmoid")]
    )
    options = {"epochs": 10, "class_weight": {0: 1.0, 1: 40.0}}
    targets = (y[kept] == 8).astype("float32")[:, None]
    return [Fit(compiled(model, keras.optimizers.Adam(1e-3), "binary_crossentropy"), x[kept], targets, options)]


@healthy_run("three of ten labels are wrong")
def wrong_labels(generator: np.random.Generator) -> list[Fit]:
    x, y = digits()
    wrong = generator.random(len(y)) < 0.3
    labels = np.where(wrong, generator.integers(0, CLASSES, len(y)), y).astype("int32")
    model = classifier(layers.Dense(128, activation="relu"), layers.Dense(128, activation="relu"))
    return [Fit(compiled(model, keras.optimizers.Adam(1e-3), LABELS), x, labels, {"epochs": 10})]


@healthy_run("a small set learned by heart: loss and gradients fall by orders of magnitude")
def learned_by_heart(generator: np.random.Generator) -> list[Fit]:
    x, y = digits()
    model = classifier(layers.Dense(256, activation="relu"), layers.Dense(256, activation="relu"))
    return [Fit(compiled(model, keras.optimizers.Adam(2e-3), LABELS), x[:128], y[:128], {"epochs": 120})]
