"""OPT607: an adaptive optimizer whose second moments lie below its epsilon."""

from __future__ import annotations

from nan_callbacks.core.detectors.health import HealthDetector
from nan_callbacks.core.finding import Severity
from nan_callbacks.core.layer_observation import HealthObservation

MOST = 0.95
"""Share of all second moments; rows of an embedding that are seldom looked up stay far below."""


class SecondMomentDetector(HealthDetector):
    """Reports that updates are no longer normalised. A remark: at the end of a training it may be as it should."""

    code, title, quantity = "OPT607", "second moment at its epsilon", "share below epsilon"
    severity = Severity.INFO

    def judge(self, seen: HealthObservation) -> dict[str, tuple[float, float, str]]:
        """The whole run, if nearly all moments of all layers are affected."""
        shares = [layer.at_epsilon for layer in seen.layers if layer.trainable and layer.at_epsilon is not None]
        if not shares or min(shares) < MOST:
            return {}
        return {"optimizer": (min(shares), MOST, "updates shrink with the gradients instead of being normalised")}
