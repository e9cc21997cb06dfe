"""GRAD202 and GRAD203 by depth: gradients that die or grow on their way to the first layers."""

from __future__ import annotations

import math

from nan_callbacks.core.detectors.health import HealthDetector
from nan_callbacks.core.layer_observation import HealthObservation

VANISHED = 1e-7
"""Gradient over weight of the first layer, as a share of the largest: below the rounding of float32 beside it."""

EXPLODED = 1e5
FEWEST_LAYERS = 3


class VanishingByDepthDetector(HealthDetector):
    """Reports first layers that get next to no gradient while later ones do."""

    code, title, quantity = "GRAD202", "vanishing gradient", "gradient ratio first to largest"

    def judge(self, seen: HealthObservation) -> dict[str, tuple[float, float, str]]:
        """The first trainable layer, if it is starved."""
        ratio = _ratio(seen)
        if ratio is None or ratio[0] >= VANISHED:
            return {}
        return {ratio[1]: (ratio[0], VANISHED, f"over {len(seen.weighted)} layers")}


class ExplodingByDepthDetector(HealthDetector):
    """Reports gradients that grow towards the first layers."""

    code, title, quantity = "GRAD203", "exploding gradient without clipping", "gradient ratio first to last"

    def judge(self, seen: HealthObservation) -> dict[str, tuple[float, float, str]]:
        """The first trainable layer, if its gradient dwarfs the last one's."""
        layers = seen.weighted
        if len(layers) < FEWEST_LAYERS or not layers[-1].pull:
            return {}
        ratio = (layers[0].pull or 0.0) / layers[-1].pull
        return {layers[0].name: (ratio, EXPLODED, f"over {len(layers)} layers")} if ratio > EXPLODED else {}


def _ratio(seen: HealthObservation) -> tuple[float, str] | None:
    layers = seen.weighted
    largest = max((layer.pull or 0.0 for layer in layers), default=0.0)
    if len(layers) < FEWEST_LAYERS or not 0.0 < largest < math.inf:
        return None
    return (layers[0].pull or 0.0) / largest, layers[0].name
