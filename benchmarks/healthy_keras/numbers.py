"""Regression: outliers, heavy tails, large targets."""

import keras
import numpy as np

from benchmarks.healthy_keras.registry import Fit, compiled, healthy_run

layers = keras.layers
ROWS, FEATURES = 1600, 12


def network() -> keras.Model:
    return keras.Sequential(
        [
            layers.Input((FEATURES,)),
            layers.Dense(64, activation="relu"),
            layers.Dense(32, activation="relu"),
            layers.Dense(1),
        ]
    )


def teacher(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and a smooth function of them, both float32 and of unit scale."""
    x = generator.normal(size=(ROWS, FEATURES))
    y = np.tanh(x @ generator.normal(size=(FEATURES, 4)) / 3) @ generator.normal(size=(4, 1))
    return x.astype("float32"), y.astype("float32")


@healthy_run("one target in a hundred is ten times too large")
def outliers(generator: np.random.Generator) -> list[Fit]:
    x, y = teacher(generator)
    y[generator.random(ROWS) < 0.01] *= 10
    return [Fit(compiled(network(), keras.optimizers.Adam(1e-3), "mse"), x, y, {"epochs": 10})]


@healthy_run("noise of Student's t distribution with three degrees of freedom")
def heavy_tails(generator: np.random.Generator) -> list[Fit]:
    x, y = teacher(generator)
    y += generator.standard_t(3, size=y.shape).astype("float32")
    return [Fit(compiled(network(), keras.optimizers.Adam(1e-3), "mse"), x, y, {"epochs": 10})]


@healthy_run("targets in the thousands: losses of 10^7 that fall a long way")
def large_targets(generator: np.random.Generator) -> list[Fit]:
    x, y = teacher(generator)
    return [Fit(compiled(network(), keras.optimizers.Adam(1e-2), "mse"), x, 2000 + 500 * y, {"epochs": 10})]
