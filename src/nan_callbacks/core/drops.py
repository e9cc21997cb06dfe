"""Dropped steps in a row, as the ladder counts them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from nan_callbacks.core.finding import Finding

SPIKES = frozenset({"GRAD201", "LOSS401", "ACT301"})
"""Findings about finite values: harder data can cause them as well as a broken state."""


@dataclass
class Run:
    """Dropped steps in a row."""

    length: int = 0
    only_spikes: bool = True
    """Whether all of them were finite."""
    least: dict[str, float] = field(default_factory=dict)
    """Smallest value of each quantity that was a spike."""
    cleared: bool = False
    """Whether trials have shown that the batches are at fault, and not the weights."""

    def add(self, findings: list[Finding]) -> None:
        """One more."""
        self.length += 1
        self.only_spikes &= all(finding.code in SPIKES for finding in findings)
        for finding in findings:
            if finding.code in SPIKES and finding.value is not None and math.isfinite(finding.value):
                self.least[finding.quantity] = min(finding.value, self.least.get(finding.quantity, math.inf))
