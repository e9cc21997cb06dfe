"""The scale that the guard puts on the learning rate of a run."""

from __future__ import annotations

from typing import Any

DEEPEST = 4
"""Power of the factor beyond which one cut does not go: sixteenfold at once is more than what lies between a rate that
diverges and one that trains (benchmarks/recovery.py)."""


class LearningRateScale:
    """A factor on whatever the optimizer, its schedulers and the user say; cut at rollbacks, recovered gradually.

    Args:
        factor: What one cut multiplies by, in (0, 1).
        recovery_steps: Clean steps over which one cut is undone, geometrically. None: it stays.
    """

    def __init__(self, factor: float, recovery_steps: int | None) -> None:
        self.factor = factor
        self.recovery_steps = recovery_steps
        self.scale = 1.0
        self._before_cut: float | None = None

    def cut(self, repeats: int) -> float:
        """Cut once more: by the factor, its square, and its fourth power at every further cut without progress.

        Args:
            repeats: Cuts since the last progress, 0 for the first one.

        Returns:
            The factor of this cut.
        """
        factor: float = self.factor ** min(2**repeats, DEEPEST)
        if self._before_cut is None:
            self._before_cut = self.scale
        self.scale *= factor
        return factor

    def deepen(self, factor: float) -> None:
        """Make the last cut a deeper one.

        Args:
            factor: What it multiplies by besides.
        """
        self.scale *= factor

    def undo(self) -> None:
        """Take back the cuts since the last progress: they turned out not to be the cure."""
        if self._before_cut is not None:
            self.scale = self._before_cut
            self._before_cut = None

    def take_back(self, scale: float) -> None:
        """Take back the last cut alone.

        Args:
            scale: The scale before it.
        """
        self.scale = max(self.scale, scale)
        if self._before_cut is not None and self.scale >= self._before_cut:
            self._before_cut = None

    def confirm(self) -> None:
        """The run made progress with the present scale: later undos stop here."""
        self._before_cut = None

    def clean_step(self) -> bool:
        """Recover a little.

        Returns:
            True if the scale has just come back to exactly one.
        """
        if self.recovery_steps is None or self.scale >= 1.0:
            return False
        self.scale = min(1.0, self.scale * self.factor ** (-1.0 / self.recovery_steps))
        if self.scale > 1.0 - 1e-9:  # rounding of the many small factors
            self.scale = 1.0
        return self.scale == 1.0

    def state_dict(self) -> dict[str, Any]:
        """Plain state."""
        return {"scale": self.scale, "before_cut": self._before_cut}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        self.scale = float(state["scale"])
        self._before_cut = state["before_cut"]
