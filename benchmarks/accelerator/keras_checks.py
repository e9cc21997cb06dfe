"""Keras on JAX or torch on an accelerator: the same bits, nothing left of a bad batch, the cause."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from nan_callbacks.keras import NaNGuard

STEPS, ROWS, BAD = 30, 32, 21
Check = tuple[str, bool, str]


def data(*, bad: bool = False, value: float = float("nan")) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a problem that can be learnt; with one more batch that holds a bad value."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, STEPS * ROWS)
    x = (rng.normal(size=(len(y), 16)) + y[:, None]).astype("float32")
    if not bad:
        return x, y
    spoiled = x[:ROWS].copy()
    spoiled[3] = value
    cut = BAD * ROWS
    return np.concatenate([x[:cut], spoiled, x[cut:]]), np.concatenate([y[:cut], y[:ROWS], y[cut:]])


def model(*, logarithm: bool = False, rate: float = 0.003) -> Any:
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    inputs = layers.Input((16,))
    hidden = layers.Dropout(0.1)(layers.BatchNormalization()(layers.Dense(64, "gelu")(inputs)))
    if logarithm:
        hidden = layers.Concatenate()([hidden, TakesLogarithm()(inputs)])
    made = keras.Model(inputs, layers.Dense(4)(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.AdamW(rate), loss, metrics=["accuracy"])
    return made


class TakesLogarithm(layers.Layer):
    """A logarithm of something that is zero for a row of zeros."""

    def call(self, inputs: Any) -> Any:
        return ops.log(ops.max(ops.abs(inputs), axis=1, keepdims=True))


def train(made: Any, x: Any, y: Any, guard: NaNGuard | None = None) -> list[np.ndarray]:
    made.fit(x, y, batch_size=ROWS, shuffle=False, verbose=0, callbacks=[] if guard is None else [guard])
    return [ops.convert_to_numpy(variable.value) for variable in (*made.variables, *made.optimizer.variables)]


def farthest(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    """Largest difference in relation to the largest value of its variable."""
    return max(
        (float(np.max(np.abs(np.subtract(p, q, dtype="float64"))) / max(float(np.max(np.abs(p))), 1e-12))
         for p, q in zip(a, b, strict=True) if p.size and p.dtype.kind == "f"),
        default=0.0,
    )  # fmt: skip


def checks(device: str) -> Iterator[Check]:
    noise = 1e-6 if keras.backend.backend() == "jax" else 0.0
    alone = train(model(), *data())
    guard = NaNGuard(verbose=False, strict=True)
    watched = train(model(), *data(), guard)
    difference = farthest(alone, watched)
    yield "do no harm", difference <= noise, f"largest relative difference {difference:g}, allowed {noise:g}"
    for value in (float("nan"), 1e25):
        guard = NaNGuard(verbose=False, strict=True, diagnose="never")
        bad = train(model(), *data(bad=True, value=value), guard)
        told = f"{farthest(watched, bad):g}, {guard.summary['codes']}"
        yield f"as if never drawn ({value:g})", farthest(watched, bad) == 0.0 and bool(guard.incidents), told
    yield memory_of_the_host()
    guard = NaNGuard(verbose=False, strict=True)
    train(model(logarithm=True), *data(bad=True, value=0.0), guard)
    diagnosis = next((each.diagnosis for each in guard.incidents if each.diagnosis), None)
    cause = diagnosis.cause if diagnosis else None
    line = diagnosis.origin.source if diagnosis and diagnosis.origin else None
    told = f"{cause.code} {cause.confidence.value}, {line.describe() if line else 'no line'}" if cause else "no cause"
    yield "the cause of a NaN", cause is not None and cause.code == "NAN111" and "ops.log" in told, told


def memory_of_the_host() -> Check:
    """A rollback from the host's memory goes where one from the device's does."""
    ends, rollbacks = [], []
    for memory in ("device", "host"):
        guard = NaNGuard(verbose=False, strict=True, diagnose="never", snapshot_memory=memory)
        ends.append(train(model(rate=30.0), *data(), guard))
        rollbacks.append(guard.summary["rollbacks"])
    told = f"{farthest(*ends):g}, {rollbacks} rollbacks"
    return "snapshots in the host's memory", farthest(*ends) == 0.0 and rollbacks[0] == rollbacks[1] > 0, told
