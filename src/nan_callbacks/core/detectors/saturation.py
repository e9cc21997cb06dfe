"""ACT307: hidden sigmoids or tanhs at their bounds, with layers below them that get no gradient."""

from __future__ import annotations

from statistics import median

from nan_callbacks.core.detectors.health import HealthDetector
from nan_callbacks.core.layer_observation import HealthObservation, LayerObservation

SHARE = 0.9
"""Of the outputs within 1 % of a bound. Nets that learn stay below a half (Glorot & Bengio 2010, figures 2 and 3)."""

STARVED = 1e-3
"""Gradient over weight of the layer below, as a share of the median layer's. A gate that has made up its mind is as
saturated, but the layers around it go on learning."""


class SaturationDetector(HealthDetector):
    """Reports activations that have stopped the gradient; an output layer's confidence is no such case."""

    code, title, quantity = "ACT307", "activations saturate", "saturated_share"

    def judge(self, seen: HealthObservation) -> dict[str, tuple[float, float, str]]:
        """Saturated hidden activations over a starved layer."""
        pulls = [layer.pull for layer in seen.weighted if layer.pull is not None]
        usual = median(pulls) if len(pulls) > 1 else None
        ill = {}
        before: LayerObservation | None = None
        for layer in seen.layers:
            share = layer.saturated_share
            below = layer if layer.pull is not None else before
            if share is not None and share > SHARE and not layer.is_output and below is not None and usual is not None:
                pull = below.pull or 0.0
                if pull <= STARVED * usual:
                    starved = "it" if below is layer else f"{below.name} below it"
                    detail = f"{starved} gets {pull / usual:.2g} of the usual gradient" if usual else ""
                    ill[layer.name] = (share, SHARE, detail)
            if layer.pull is not None and layer.trainable:
                before = layer
        return ill
