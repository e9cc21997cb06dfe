"""Data to begin with: scikit-learn's bundled sets, and generated images, text and series. Standardised unless told."""

from __future__ import annotations

from functools import cache

import numpy as np
from sklearn import datasets

Arrays = tuple[np.ndarray, np.ndarray]


def _standardised(x: np.ndarray) -> np.ndarray:
    spread = x.std(0)
    return ((x - x.mean(0)) / np.where(spread > 0, spread, 1.0)).astype("float32")


@cache
def _table(name: str) -> Arrays:
    loaded = getattr(datasets, f"load_{name}")()
    order = np.random.default_rng(0).permutation(len(loaded.target))
    return loaded.data[order].astype("float32"), loaded.target[order]


def raw(name: str) -> Arrays:
    """``iris``, ``wine``, ``breast_cancer``, ``diabetes``, ``digits`` as they come, in an order without pattern."""
    x, y = _table(name)
    return x.copy(), y.copy()


def table(name: str) -> Arrays:
    """The same with standardised inputs; class indices as int64, regression targets as a standardised column."""
    x, y = raw(name)
    if name == "diabetes":
        return _standardised(x), _standardised(y[:, None])
    return _standardised(x), y.astype("int64")


def pixels(scale: float = 1.0, *, channels_last: bool = True) -> Arrays:
    """Digits of 8 by 8 pixels with one channel, from 0 to `scale`."""
    x, y = raw("digits")
    images = (x / 16 * scale).reshape(-1, 8, 8, 1).astype("float32")
    return (images if channels_last else images.transpose(0, 3, 1, 2)), y.astype("int64")


def pictures(rows: int = 256, *, seed: int = 0) -> Arrays:
    """Generated colour pictures of 16 by 16 from 0 to 1: a bright patch in one of four corners."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, rows)
    x = rng.uniform(0, 0.4, (rows, 16, 16, 3))
    for row, corner in enumerate(y):
        top, left = 8 * (corner // 2), 8 * (corner % 2)
        x[row, top : top + 8, left : left + 8] += 0.5
    return x.astype("float32"), y.astype("int64")


def text(rows: int = 400, *, words: int = 200, length: int = 20, seed: int = 0) -> Arrays:
    """Token ids with Zipf's frequencies; the class is whether token 3 occurs."""
    rng = np.random.default_rng(seed)
    x = np.minimum(rng.zipf(1.5, (rows, length)), words - 1)
    return x.astype("int64"), (x == 3).any(1).astype("int64")


def series(rows: int = 300, *, length: int = 24, seed: int = 0) -> Arrays:
    """Noisy waves (rows, length, 1) and the value that follows each, a column."""
    rng = np.random.default_rng(seed)
    start, pace = rng.uniform(0, 6.28, (rows, 1)), rng.uniform(0.1, 0.4, (rows, 1))
    values = np.sin(start + pace * np.arange(length + 1)) + 0.05 * rng.normal(size=(rows, length + 1))
    return values[:, :-1, None].astype("float32"), values[:, -1:].astype("float32")


def counts(rows: int = 400, *, columns: int = 50, seed: int = 0) -> Arrays:
    """Sparse small counts, as of words, and a class that depends on them."""
    rng = np.random.default_rng(seed)
    rates = rng.gamma(0.3, 1.0, columns)
    x = rng.poisson(rates, (rows, columns)).astype("float32")
    return x, (x[:, :10].sum(1) > np.median(x[:, :10].sum(1))).astype("int64")


def one_hot(y: np.ndarray, classes: int) -> np.ndarray:
    """One column per class, float32."""
    return np.eye(classes, dtype="float32")[y]


def column(y: np.ndarray) -> np.ndarray:
    """Labels as a float column, for binary losses."""
    return y.astype("float32")[:, None]
