"""The data change: between two fits of one model, and within one."""

import keras
import numpy as np

from benchmarks.healthy_keras.images import LABELS, classifier, digits
from benchmarks.healthy_keras.registry import Fit, compiled, healthy_run

layers = keras.layers


@healthy_run("the second fit permutes the labels: the loss begins far above where it ended")
def another_task(generator: np.random.Generator) -> list[Fit]:
    x, y = digits()
    model = compiled(classifier(layers.Dense(64, activation="relu")), keras.optimizers.Adam(1e-3), LABELS)
    return [Fit(model, x, y, {"epochs": 4}), Fit(model, x, ((y + 3) % 10).astype("int32"), {"epochs": 4})]


@healthy_run("digits by label: each class is new when it comes")
def sorted_labels(generator: np.random.Generator) -> list[Fit]:
    x, y = digits()
    order = np.argsort(y // 2, kind="stable")
    model = compiled(classifier(layers.Dense(64, activation="relu")), keras.optimizers.Adam(3e-4), LABELS)
    return [Fit(model, x[order], y[order], {"epochs": 6, "shuffle": False})]
