"""ACT306: activations near the largest number of their dtype, or on their way there."""

from __future__ import annotations

import math
from typing import Any

from nan_callbacks.core.detectors.health import HealthDetector
from nan_callbacks.core.layer_observation import HealthObservation

LARGEST = {"float16": 65504.0}
"""Only float16 has a range that healthy values come near; bfloat16 reaches as far as float32."""

BITS = 1.0
"""Binary orders of magnitude below which the next batch may overflow."""

TREND_BITS = 6.0
"""From which on a trend towards the end is told."""

SOON = 1000
"""Steps within which the end must be reached for a trend to be told."""

FEWEST = 5
"""Samples that make a trend."""

KEPT = 12


class HeadroomDetector(HealthDetector):
    """Reports how many bits are left, and if they are becoming fewer, in how many steps they are gone."""

    code, title, quantity = "ACT306", "little numerical headroom", "bits left"
    samples = 2

    def __init__(self) -> None:
        super().__init__()
        self._course: dict[str, list[list[float]]] = {}

    def judge(self, seen: HealthObservation) -> dict[str, tuple[float, float, str]]:
        """Layers in half precision that are near the end, or will be soon."""
        ill = {}
        for layer in seen.layers:
            if layer.dtype not in LARGEST or not layer.largest:
                continue
            bits = math.log2(LARGEST[layer.dtype] / layer.largest)
            course = [*self._course.get(layer.name, []), [float(seen.step), bits]][-KEPT:]
            self._course[layer.name] = course
            left = _steps_left(course)
            if bits < BITS:
                ill[layer.name] = (bits, BITS, f"{layer.dtype} ends at {LARGEST[layer.dtype]:g}")
            elif bits < TREND_BITS and left is not None and left < SOON:
                ill[layer.name] = (bits, TREND_BITS, f"{layer.dtype} overflow in about {left:.0f} steps")
        return ill

    def state_dict(self) -> dict[str, Any]:
        """Plain state."""
        return {**super().state_dict(), "course": {name: list(map(list, c)) for name, c in self._course.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        super().load_state_dict(state)
        self._course = {str(name): [list(map(float, point)) for point in c] for name, c in state["course"].items()}


def _steps_left(course: list[list[float]]) -> float | None:
    """Steps until no bit is left, by the least-squares line; None without a clear trend."""
    if len(course) < FEWEST:
        return None
    steps, bits = zip(*course, strict=True)
    mean_step, mean_bits = sum(steps) / len(steps), sum(bits) / len(bits)
    spread = sum((step - mean_step) ** 2 for step in steps)
    product = sum((step - mean_step) * (bit - mean_bits) for step, bit in zip(steps, bits, strict=True))
    variation = sum((bit - mean_bits) ** 2 for bit in bits)
    if not spread or not variation or product >= 0 or product**2 < 0.8 * spread * variation:
        return None
    left: float = bits[-1] / -(product / spread)
    return left
