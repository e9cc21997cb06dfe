"""OPT606: updates that replace the weights, or that are lost in rounding."""

from __future__ import annotations

from nan_callbacks.core.detectors.health import HealthDetector
from nan_callbacks.core.layer_observation import HealthObservation

LARGE = 0.3
"""Update over weight. About 1e-3 is usual (Karpathy, CS231n notes); with 0.3 three steps replace the weights."""

SMALL = 1e-8
"""Half of the rounding of float32, 6e-8 relative: such an update changes few weights at all."""

WANTED = 1e-3
"""Gradient over weight from which the loss wants something of the layers: a model that has learnt stands still."""

SETTLED = 100
"""Steps after which layers that begin with zeros have weights to speak of."""


class UpdateRatioDetector(HealthDetector):
    """Reports layers whose weights are thrown about, or a run in which nothing moves any more."""

    code, title, quantity = "OPT606", "update ratio out of range", "update over weight"

    def judge(self, seen: HealthObservation) -> dict[str, tuple[float, float, str]]:
        """Layers with a ratio out of range; too small counts only if all are."""
        ratios = {
            layer.name: layer.update_norm / layer.weight_norm
            for layer in seen.layers
            if layer.trainable and layer.update_norm is not None and layer.weight_norm
        }
        if seen.step < SETTLED or not ratios:
            return {}
        wanted = max((layer.pull or 0.0 for layer in seen.weighted), default=0.0)
        if max(ratios.values()) < SMALL * min(1.0, seen.rate_share) and wanted > WANTED:
            name = max(ratios, key=lambda each: ratios[each])
            return {name: (ratios[name], SMALL, "the updates of all layers are lost in rounding")}
        return {
            name: (ratio, LARGE, "a few steps replace its weights") for name, ratio in ratios.items() if ratio > LARGE
        }
