"""Ordinary data for the programs: small, seeded, well scaled unless a program spoils it."""

from __future__ import annotations

from functools import cache

import numpy as np
from sklearn.datasets import load_digits, make_friedman1

Arrays = tuple[np.ndarray, np.ndarray]


@cache
def _digits() -> Arrays:
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    return (data.data[order] / 16).astype("float32"), data.target[order].astype("int64")


def digits(rows: int = 1280) -> Arrays:
    """Images of 64 pixels from 0 to 1, and their classes from 0 to 9, in an order without pattern."""
    images, labels = _digits()
    return images[:rows].copy(), labels[:rows].copy()


def regression(rows: int = 1280, seed: int = 0) -> Arrays:
    """Friedman's first problem: 10 standardised inputs, one standardised target of shape (rows, 1)."""
    inputs, targets = make_friedman1(n_samples=rows, noise=1.0, random_state=seed)
    x = (inputs - inputs.mean(0)) / inputs.std(0)
    y = (targets - targets.mean()) / targets.std()
    return x.astype("float32"), y.astype("float32")[:, None]


def two_blobs(rows: int = 1280, gap: float = 3.0, seed: int = 0) -> Arrays:
    """Two clouds in 8 dimensions, `gap` standard deviations apart in each, and their labels 0.0 and 1.0."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows)
    x = rng.normal(size=(rows, 8)) + gap * (labels[:, None] - 0.5)
    return x.astype("float32"), labels.astype("float32")[:, None]


def waves(rows: int = 1280, length: int = 40, seed: int = 0) -> Arrays:
    """Noisy sine waves of shape (rows, length, 1), and the value that follows each."""
    rng = np.random.default_rng(seed)
    start, pace = rng.uniform(0, 6.28, (rows, 1)), rng.uniform(0.1, 0.4, (rows, 1))
    values = np.sin(start + pace * np.arange(length + 1)) + 0.05 * rng.normal(size=(rows, length + 1))
    return values[:, :-1, None].astype("float32"), values[:, -1:].astype("float32")
