"""What the core decided about one step. Only adapters act on it."""

from __future__ import annotations

from dataclasses import dataclass

from nan_callbacks.core.finding import Action, Finding


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The reaction to one observation."""

    action: Action
    """The strongest thing to do now. ``SKIP_STEP`` has been done by the gate already."""
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    """One clause for people; empty when nothing happened."""
    lr_scale: float = 1.0
    """Scale that the learning rate must have from now on, relative to the user's own schedule."""
    lr_cut: float | None = None
    """Factor of the cut that this decision makes, None if it makes none."""
    lr_cut_tried: bool = False
    """Whether trials have found that it must be as deep as that."""
    restore_slot: int | None = None
    """Slot of the snapshot to restore, None if there is nothing to restore."""
    restore_step: int | None = None
    """Step at which that snapshot was taken."""
    restore_streams: bool = True
    """Whether the random streams go back with it. Not if dropped steps led to it: their numbers may be what failed."""
    level_accepted: bool = False
    """True if a new level was accepted as normal after a rollback showed that the state is not at fault."""
    lr_recovered: bool = False
    """True if the learning rate has just come back to its schedule."""

    @property
    def worth_recording(self) -> bool:
        """Whether there is anything to write down."""
        return bool(self.findings) or self.action is not Action.OBSERVE or self.level_accepted or self.lr_recovered
