"""Suspicions against weights and activations: a bad start, dead rectifiers, saturated sigmoids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from nan_callbacks.core.sentences import number
from nan_callbacks.core.usual_start import WEAK
from nan_callbacks.diagnosis.evidence import Evidence, LayerEvidence
from nan_callbacks.diagnosis.experiments import Experiment, Requirement, ends_lower, fresh_run
from nan_callbacks.diagnosis.goal import Goal, Kind, Measured, is_calm, is_finite, peaks, stands_still, tail
from nan_callbacks.diagnosis.hypotheses.gradients import FAINT, vanishing
from nan_callbacks.diagnosis.hypotheses.hypothesis import EARLY, Hypothesis, batch_rows, how_early, is_early, reached
from nan_callbacks.diagnosis.hypotheses.numerics import code_of_origin
from nan_callbacks.diagnosis.lab import Start, Variation
from nan_callbacks.diagnosis.origin import OriginKind

MOSTLY = 0.5
"""Share of saturated outputs or dead units from which a layer counts as such: the majority."""

FEWEST_ROWS = 8
"""Rows of a batch below which units that are zero for all of them may be alive for others: each is for half of them."""

WEIGHT_SCALES = (0.05, 5.0)
"""Weights times the root of the fan-in outside of this range are no Glorot, LeCun or He start (1 to 1.4), whatever the
activation: a factor of 3.5 on the far side of the widest of them."""

FEWEST_WEAK = 3
"""Such layers in a row."""

THROWN = 1.5
"""Growth of all weights together since the first step that no start explains."""


def bad_initialisation(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """ACT304: the weights began on a scale on which signals explode or die on their way through the layers."""
    odd = _odd_layers(evidence) if not _were_thrown(evidence) else []
    faint = _fainter_and_fainter(evidence) if goal.kind is Kind.STALL and not odd else []
    odd = odd or faint
    if goal.kind is not Kind.STALL:
        odd = [layer for layer in odd if layer.weight_scale]  # zeros block a signal, and make none explode
    early = is_early(evidence) and (bool(odd) or reached(evidence) < EARLY)
    if not (odd or early) or (not early and goal.kind is not Kind.STALL):
        return None
    if goal.kind in (Kind.SPIKE, Kind.DIVERGENCE) and not odd:
        return None
    origin = evidence.replay.origin if evidence.replay else None
    if not odd and origin is not None and origin.kind is OriginKind.PARAMETERS:
        return None  # broken by an update
    if not odd and reached(evidence) > FEW_STEPS:
        return None  # it has gone well for as long as a trial from fresh weights would
    traced = origin is not None and origin.kind is OriginKind.OPERATION
    if not odd and (goal.kind is Kind.STALL or (traced and origin is not None and code_of_origin(origin) != "NAN110")):
        return None
    because = [f"weights of {layer.name} are {number(layer.weight_scale)} times 1/sqrt(fan-in)" for layer in odd[:3]]
    if faint:
        because.append(f"{len(faint)} layers in a row weaken what they pass on, until next to nothing is left")
    if early:
        because.append(how_early(evidence))
    # Weights on another scale are deeper than the rate that would be needed with them.
    score = 0.68 if goal.kind is Kind.STALL else (0.72 if goal.kind is Kind.SPIKE else 0.6)
    if goal.kind is not Kind.STALL and early and _began_odd(evidence):
        score = 0.77  # even if a rate that is too high for them has moved them since
    return Hypothesis(
        code="ACT304",
        score=score if odd else 0.6,
        because=tuple(because),
        experiments=_afresh(goal, evidence, odd=bool(odd) and _began_odd(evidence)),
        observed=_is_blocked(odd) or bool(faint) or (len(odd) > 1 and vanishing(evidence, goal) is not None),
    )


def _fainter_and_fainter(evidence: Evidence) -> list[LayerEvidence]:
    """Layers that began on a small scale, no odd one by itself, and together leave next to nothing of a signal."""
    hidden = [layer for layer in evidence.layers if layer.weight_scale is not None and layer.activation_std is not None]
    weak = [layer for layer in hidden[:-1] if 0.0 < (layer.weight_scale or 0.0) < WEAK]
    units, _ = _units_and_norm(evidence)
    first = evidence.history.param_norms[:1]
    if len(weak) < FEWEST_WEAK or not evidence.history.from_start or not first or first[0] >= WEAK * units:
        return []  # what has become small was weakened by the training
    heard, faintest = weak[0].activation_std or 0.0, min(layer.activation_std or 0.0 for layer in weak[1:])
    return weak if faintest <= FAINT * heard else []


def _is_blocked(odd: Sequence[LayerEvidence]) -> bool:
    """Whether a hidden layer is nothing but zeros."""
    return any(layer.weight_scale == 0.0 for layer in odd)


def blocked_by_zeros(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """ACT305: two matrices of zeros in one product: the gradient of each is the other times something."""
    zeros, norms = evidence.zero_weights, evidence.history.grad_norms[-16:]
    # One matrix may be all that weights of several layers are made of: then what they return is zero as well.
    mute = any(layer.dead_share == 1.0 for layer in evidence.layers)
    blocked = len(zeros) > 1 or (len(zeros) == 1 and mute)
    if goal.kind is not Kind.STALL or not blocked or not norms or max(norms) > 0.0:
        return None
    named = ", ".join(zeros[:3]) + (f" and {len(zeros) - 3} more" if len(zeros) > 3 else "")
    because = (f"{named} {'is' if len(zeros) == 1 else 'are'} nothing but zeros", "every gradient is exactly 0")
    return Hypothesis(code="ACT305", score=0.7, because=because, experiments=_afresh(goal, evidence), observed=True)


def symmetric(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """ACT305: units that began alike get the same gradient, and stay one unit."""
    alike = evidence.alike_weights
    if goal.kind is not Kind.STALL or not alike:
        return None
    named = ", ".join(alike[:3]) + (f" and {len(alike) - 3} more" if len(alike) > 3 else "")
    because = (f"many units of {named} have the very same weights",)
    return Hypothesis(code="ACT305", score=0.69, because=because, experiments=_afresh(goal, evidence), observed=True)


def dead_units(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """ACT303: rectifiers that are zero for every sample get no gradient and never come back."""
    dead = [layer for layer in evidence.layers if (layer.dead_share or 0.0) > MOSTLY]
    if not dead or goal.kind is not Kind.STALL:
        return None
    worst = max(dead, key=lambda layer: layer.dead_share or 0.0)
    if batch_rows(evidence) < FEWEST_ROWS and (worst.dead_share or 0.0) < 1.0:
        return None
    because = (f"{number(100 * (worst.dead_share or 0))} % of the units of {worst.name} are zero for the whole batch",)
    score = _score(worst.dead_share)
    return Hypothesis(code="ACT303", score=score, because=because, experiments=_afresh(goal, evidence), observed=True)


def saturated(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """ACT302: sigmoids or tanhs at their bounds, where their derivative is next to nothing."""
    flat = [layer for layer in evidence.layers if (layer.saturated_share or 0.0) > MOSTLY]
    if not flat or goal.kind is not Kind.STALL:
        return None
    worst = max(flat, key=lambda layer: layer.saturated_share or 0.0)
    because = (f"{number(100 * (worst.saturated_share or 0))} % of the outputs of {worst.name} are at a bound",)
    score = _score(worst.saturated_share)
    return Hypothesis(code="ACT302", score=score, because=because, experiments=_afresh(goal, evidence), observed=True)


def _score(share: float | None) -> float:
    """Of two kinds of units that get no gradient, the one of which there are more comes first."""
    return 0.66 + 0.015 * (share or 0.0)


def _afresh(goal: Goal, evidence: Evidence, *, odd: bool = False) -> tuple[Experiment, ...]:
    """Fresh weights of the usual scale on the same data, at the same learning rate.

    Args:
        goal: The failure.
        evidence: Of the run.
        odd: Whether the weights began on another scale: then a start that does not blow up is better than theirs,
            even if the rate makes it restless.
    """
    if goal.kind is Kind.STALL:

        def learns(treated: Measured, controls: Sequence[Measured]) -> bool:
            return is_calm(treated) and ends_lower(treated, controls)

        falls = Experiment(treatment=fresh_run(), controls=(goal.base,), requires=learns)
        moves = replace(falls, requires=_below(evidence), judge=stands_still)
        return moves, falls
    treatment = Variation(start=Start.FRESH, steps=FEW_STEPS)
    holds = Experiment(treatment=treatment, controls=(goal.base,), requires=lambda treated, _: is_calm(treated))
    return (replace(holds, requires=None, judge=_runs_away) if odd and goal.kind is Kind.DIVERGENCE else holds,)


def _runs_away(measured: Measured) -> bool | None:
    trial = measured.trial
    return not is_finite(trial) or peaks(measured) if trial.supported else None


def _below(evidence: Evidence) -> Requirement:
    """Whether a calm run ends below the untreated ones, and below the best constant: it has further to fall."""
    constant = math.inf if evidence.constant_loss is None else evidence.constant_loss

    def shown(treated: Measured, controls: Sequence[Measured]) -> bool:
        ends = [tail(each.trial.losses) for each in controls if each.trial.losses]
        losses = treated.trial.losses
        return is_calm(treated) and bool(losses) and all(tail(losses) < min(end, constant) for end in ends)

    return shown


FEW_STEPS = 5
"""Steps from fresh weights that must go well: a learning rate that is too high shows itself by then."""


def _were_thrown(evidence: Evidence) -> bool:
    """Whether updates, rather than the start, have made the weights as large as they are.

    The norm of a layer's weights is their scale times the root of the number of its units: so the norm of all weights
    at the first step tells on which scale they began.
    """
    first = evidence.history.param_norms[:1]
    units, present = _units_and_norm(evidence)
    if not first or not units or present <= THROWN * first[0]:
        return False
    low, high = WEIGHT_SCALES
    return low <= first[0] / units <= high


def _began_odd(evidence: Evidence) -> bool:
    """Whether the layers' weights, taken together, were on another scale than any usual start at the first step.

    What is not theirs (tables, biases) is taken to be as large as it is now.
    """
    norms = evidence.history.param_norms
    units, present = _units_and_norm(evidence)
    if not norms or not units:
        return False
    others = max(norms[-1] ** 2 - present**2, 0.0)
    scale = math.sqrt(max(norms[0] ** 2 - others, 0.0)) / units
    return scale > WEIGHT_SCALES[1]


def _units_and_norm(evidence: Evidence) -> tuple[float, float]:
    """Root of the number of units of all layers, and the norm of their weights now."""
    known = [(layer.weight_norm, layer.weight_scale) for layer in evidence.layers if layer.weight_norm]
    units = math.hypot(*(norm / scale for norm, scale in known if scale))
    return units, math.hypot(*(norm for norm, _ in known if norm))


def _odd_layers(evidence: Evidence) -> list[LayerEvidence]:
    """Layers whose weights are on no usual scale; a last layer of next to nothing is a usual start, and a good one."""
    low, high = WEIGHT_SCALES
    weighted = [layer for layer in evidence.layers if layer.weight_scale is not None]
    odd = [layer for layer in weighted if not low <= (layer.weight_scale or 0.0) <= high]
    return [layer for layer in odd if layer is not weighted[-1] or (layer.weight_scale or 0.0) > high]
