"""Whether weights or data are at fault: the same batches with the present weights and with the last good ones."""

from __future__ import annotations

from nan_callbacks.core.drops import SPIKES
from nan_callbacks.core.finding import Finding
from nan_callbacks.core.policy import AS_LARGE
from nan_callbacks.diagnosis.goal import NEARLY, is_finite
from nan_callbacks.diagnosis.lab import Lab, Start, Trial, Variation

FAR_LESS = 0.5
"""Loss with the last good weights over that with the present ones below which these have lost what they knew. For
harder data or another loss the last good weights are no better than the present ones."""

LESS = 0.8
"""The same if the weights were seen to grow as the loss rose, and are suspected anyway. Learning on harder data makes
the present weights the better ones there."""


def weights_at_fault(lab: Lab, finding: Finding) -> bool | None:
    """Compare the present weights with the last good ones.

    Args:
        lab: Of the step.
        finding: What would be the weights' fault: a relapse, a divergence, or a spike.

    Returns:
        None if it cannot be tried out.
    """
    if finding.code in SPIKES:
        return _makes_it_spike(lab, finding)
    suspected = finding.code == "LOSS402"
    share = LESS if suspected else FAR_LESS
    less = [_is_less_before(lab, share, other_batch=other) for other in (False, True)]
    if None in less:
        return None
    # What the last good weights do better at one batch only may be chance.
    return any(less) if suspected else all(less)


def _is_less_before(lab: Lab, share: float, *, other_batch: bool) -> bool | None:
    starts = (Start.PRESENT, Start.WEIGHTS)
    now, before = (_value(lab.run(Variation(start=start, other_batch=other_batch)), "loss") for start in starts)
    return None if now is None or before is None else 0.0 < before < share * now


def _makes_it_spike(lab: Lab, finding: Finding) -> bool | None:
    """Whether a batch spikes with the present weights only, or others spike with them as well.

    The loss is judged if it rises: gradients grow with the weights, so that those of an untrained net are small anyway.
    """
    now, before, other = map(lab.run, (Variation(), Variation(start=Start.WEIGHTS), Variation(other_batch=True)))
    usual = _value(other, finding.quantity)
    if usual is None or finding.limit is None:
        return None
    if usual > NEARLY * finding.limit:
        return True
    for quantity in ("loss", finding.quantity):
        here, there, usual = (_value(trial, quantity) for trial in (now, before, other))
        if here is not None and there is not None and usual is not None and NEARLY * here > usual > 0.0:
            return there < AS_LARGE * here
    return None


def _value(trial: Trial, quantity: str) -> float | None:
    series = {"loss": trial.losses, "grad_norm": trial.grad_norms}.get(quantity, ())
    known = trial.supported and not trial.raised and is_finite(trial) and series
    return series[-1] if known else None
