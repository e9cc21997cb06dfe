"""Whether weights have lost what they knew: the same batches with them and with the last good ones."""

from __future__ import annotations

from nan_callbacks.diagnosis.goal import is_finite
from nan_callbacks.diagnosis.lab import Lab, Start, Variation

FAR_LESS = 0.5
"""Loss with the last good weights over that with the present ones below which these have lost what they knew. For
harder data or another loss the last good weights are no better than the present ones."""


def has_relapsed(lab: Lab) -> bool:
    """Compare the present weights with the last good ones, on the batch of the step and on one before it.

    Args:
        lab: Of the step.

    Returns:
        True if both batches cost far less with the last good weights.
    """
    return all(_is_better_before(lab, other_batch=other) for other in (False, True))


def _is_better_before(lab: Lab, *, other_batch: bool) -> bool:
    starts = (Start.PRESENT, Start.WEIGHTS)
    now, before = (lab.run(Variation(start=start, other_batch=other_batch)) for start in starts)
    known = all(trial.supported and not trial.raised and trial.losses and is_finite(trial) for trial in (now, before))
    return known and 0.0 < before.losses[-1] < FAR_LESS * now.losses[-1]
