"""Activations of Keras layers: which have bounds or a dead side, and how much of their outputs lies there."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

BOUNDED: dict[str, tuple[float, float]] = {
    "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "hard_sigmoid": (0.0, 1.0), "hard_tanh": (-1.0, 1.0),
}  # fmt: skip
"""Activations with two bounds."""

RECTIFIERS = frozenset({"relu", "relu6"})
"""Activations that are exactly zero for negative inputs."""

SATURATED_WITHIN = 0.01
"""Of the distance between the bounds; what :attr:`.LayerEvidence.saturated_share` says."""


def activation_of(layer: Any) -> str:
    """Name of the activation that a layer ends with; empty if there is none that has bounds or a dead side.

    Of a recurrent layer that is the activation of its gates, which are looked at by themselves.
    """
    if isinstance(layer, keras.layers.RNN):
        return ""
    named = getattr(getattr(layer, "activation", None), "__name__", "")
    kind = type(layer).__name__.lower()
    return next((name for name in (named, kind) if name in BOUNDED or name in RECTIFIERS), "")


def shares_of(layer: Any, output: np.ndarray, finite: np.ndarray) -> tuple[float | None, float | None]:
    """Share of saturated outputs and of dead units; None where the layer's activation has none.

    Args:
        layer: The layer.
        output: What it returned.
        finite: The finite values of that, or some of them.
    """
    kind = activation_of(layer)
    if not finite.size:
        return None, None
    saturated = saturated_share(finite, BOUNDED[kind]) if kind in BOUNDED else None
    return saturated, dead_share(layer, output) if kind in RECTIFIERS and output.ndim > 1 else None


def saturated_share(values: np.ndarray, bounds: tuple[float, float]) -> float:
    """Share of values within 1 % of a bound."""
    return float(is_saturated(values, bounds).mean())


def is_saturated(values: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """Which values lie within 1 % of a bound."""
    low, high = bounds
    margin = SATURATED_WITHIN * (high - low)
    return (values < low + margin) | (values > high - margin)


def dead_share(layer: Any, output: np.ndarray) -> float:
    """Share of units that are zero for the whole batch."""
    axis = 1 if getattr(layer, "data_format", "") == "channels_first" else output.ndim - 1
    alive = np.moveaxis(output != 0, axis, -1).reshape(-1, output.shape[axis]).any(axis=0)
    return float((~alive).mean())
