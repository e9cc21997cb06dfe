"""ACT308: rectifiers that were alive and are zero for every sample now."""

from __future__ import annotations

from typing import Any

from nan_callbacks.core.detectors.health import HealthDetector
from nan_callbacks.core.layer_observation import HealthObservation

ALIVE = 0.5
"""Share of dead units that a layer must have been under: one that was always sparse is meant to be."""

DEAD = 0.9


class DeadUnitsDetector(HealthDetector):
    """Reports layers whose units have died. Sparse features are not told: they were sparse from the start."""

    code, title, quantity = "ACT308", "units have died", "dead_share"

    def __init__(self) -> None:
        super().__init__()
        self._lowest: dict[str, float] = {}

    def judge(self, seen: HealthObservation) -> dict[str, tuple[float, float, str]]:
        """Layers that have gone from alive to dead."""
        ill = {}
        for layer in seen.layers:
            share = layer.dead_share
            if share is None or layer.is_output:
                continue
            lowest = min(share, self._lowest.get(layer.name, 1.0))
            self._lowest[layer.name] = lowest
            if share > DEAD and lowest < ALIVE:
                ill[layer.name] = (share, DEAD, f"{100 * lowest:.0f} % of its units were dead at their best")
        return ill

    def state_dict(self) -> dict[str, Any]:
        """Plain state."""
        return {**super().state_dict(), "lowest": dict(self._lowest)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        super().load_state_dict(state)
        self._lowest = {str(name): float(share) for name, share in state["lowest"].items()}
