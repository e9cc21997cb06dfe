"""Data of the simulated runs: linear problems with noise, one for each kind of head."""

from __future__ import annotations

import numpy as np

from tests.diagnosis.simulated_lab import Batch

FEATURES, ROWS = 6, 16


def regression(count: int, *, seed: int = 0, scale: float = 1.0) -> list[Batch]:
    rng = np.random.default_rng(seed)
    slope = rng.standard_normal((FEATURES, 1)) / np.sqrt(FEATURES)
    inputs = rng.standard_normal((count, ROWS, FEATURES))
    return [(scale * x, x @ slope + 0.1 * rng.standard_normal((ROWS, 1))) for x in inputs]


def counts(count: int, *, seed: int = 0, scale: float = 1.0) -> list[Batch]:
    rng = np.random.default_rng(seed + 1)
    return [(x, rng.poisson(np.exp(0.5 * y)).astype(float)) for x, y in regression(count, seed=seed, scale=scale)]


def classes(count: int, *, seed: int = 0, scale: float = 1.0, kinds: int = 3) -> list[Batch]:
    """Well separated clusters, so that a trained model is confident."""
    rng = np.random.default_rng(seed)
    centers = 3.0 * np.linalg.qr(rng.standard_normal((FEATURES, FEATURES)))[0][:kinds]
    batches = []
    for _ in range(count):
        labels = rng.integers(0, kinds, ROWS)
        batches.append((scale * (centers[labels] + 0.3 * rng.standard_normal((ROWS, FEATURES))), labels))
    return batches


def sequences(count: int, *, seed: int = 0, length: int = 60) -> list[Batch]:
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((count, ROWS, length, 2))
    return [(x, x.mean(axis=1).sum(axis=1, keepdims=True)) for x in inputs]


def positive(count: int, *, seed: int = 0) -> list[Batch]:
    return [(x, np.exp(y)) for x, y in regression(count, seed=seed)]
