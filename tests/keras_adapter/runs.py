"""Tiny models, tiny data, and what the tests compare of a run."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from nan_callbacks.keras import NaNGuard

BACKEND = keras.backend.backend()
BATCH = 8
BATCHES = 10

ARRAYS = tuple[np.ndarray, np.ndarray]


def data(batches: int = BATCHES, seed: int = 0) -> ARRAYS:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(batches * BATCH, 4)).astype("float32")
    y = (x @ generator.normal(size=(4, 1)) + 0.1 * generator.normal(size=(batches * BATCH, 1))).astype("float32")
    return x, y


def with_fault(arrays: ARRAYS, batches: list[int], value: float = np.nan) -> ARRAYS:
    """The data with one input value of each named batch replaced."""
    x, y = arrays[0].copy(), arrays[1].copy()
    for batch in batches:
        x[batch * BATCH + 1, 2] = value
    return x, y


def with_targets(arrays: ARRAYS, batches: list[int], value: float) -> ARRAYS:
    """The data with all targets of the named batches replaced."""
    x, y = arrays[0].copy(), arrays[1].copy()
    for batch in batches:
        y[batch * BATCH : (batch + 1) * BATCH] = value
    return x, y


def without(arrays: ARRAYS, batches: list[int]) -> ARRAYS:
    """The data without the named batches."""
    keep = np.repeat(~np.isin(np.arange(len(arrays[0]) // BATCH), batches), BATCH)
    return arrays[0][keep], arrays[1][keep]


def network(**options: Any) -> keras.Model:
    """Everything that a dropped batch could leave a trace in: statistics, seeded and unseeded noise."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(8, activation="tanh"),
            layers.BatchNormalization(),
            layers.Dropout(0.3, seed=3),
            layers.GaussianNoise(0.1),
            layers.Dense(1, **options),
        ]
    )


def drawless() -> keras.Model:
    """Without noise: no random number is drawn in a step."""
    layers = keras.layers
    return keras.Sequential(
        [layers.Input((4,)), layers.Dense(8, activation="tanh"), layers.BatchNormalization(), layers.Dense(1)]
    )


def compiled(
    make: Callable[[], keras.Model] = network,
    optimizer: Callable[[], Any] = lambda: keras.optimizers.Adam(0.01),
    seed: int = 7,
    loss: Any = "mse",
    **options: Any,
) -> keras.Model:
    """A compiled model; the same arguments give the same weights.

    On TensorFlow a graph without XLA unless it is asked for: XLA compiles each little model for seconds. The tests of
    what XLA changes (bitwise equality, gates) ask for each mode.
    """
    keras.utils.set_random_seed(seed)
    model = make()
    graph = {"jit_compile": False} if BACKEND == "tensorflow" else {}
    model.compile(optimizer(), loss, **{"metrics": ["mae"], **graph, **options})
    return model


def train(model: keras.Model, arrays: ARRAYS, *callbacks: Any, **options: Any) -> dict[str, list[float]]:
    """Fit without shuffling; the history."""
    options = {"batch_size": BATCH, "shuffle": False, "verbose": 0, **options}
    return model.fit(*arrays, callbacks=list(callbacks), **options).history


def guard(**options: Any) -> NaNGuard:
    """A guard that reports its own errors instead of stepping aside.

    On JAX it explains nothing unless it is asked to: a diagnosis compiles the step several times. It looks
    nothing over unless it is asked to: the faults of these tests are in the data from the start.
    """
    explains = {"diagnose": "never"} if BACKEND == "jax" else {}
    return NaNGuard(**{"strict": True, "verbose": False, "checkup": False, **explains, **options})


def state(model: keras.Model) -> list[np.ndarray]:
    """Every variable of the model and its optimizer."""
    variables = [*model.variables, *(model.optimizer.variables if model.optimizer else [])]
    return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in variables]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    """Bitwise equality (two NaNs are not equal)."""
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def distance(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """Largest difference of a variable relative to its norm."""
    gaps = [
        np.linalg.norm(a.astype("float64") - b) / max(np.linalg.norm(b.astype("float64")), 1e-30)
        for a, b in zip(one, other, strict=True)
        if a.size and a.dtype.kind == "f"
    ]
    return float(max(gaps))


def finite(values: list[np.ndarray]) -> bool:
    return all(np.isfinite(value).all() for value in values if value.dtype.kind == "f")


def kinds(each: NaNGuard) -> list[str]:
    """The events in order, incidents by code; diagnoses left out."""
    return [event.get("code") or event["event"] for event in each.events if event["event"] != "diagnosis"]
