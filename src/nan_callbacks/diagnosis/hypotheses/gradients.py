"""Suspicions against the gradients: they explode along a recurrence or a deep stack, or they vanish."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from nan_callbacks.core.sentences import number
from nan_callbacks.core.statistics import median
from nan_callbacks.diagnosis.evidence import Evidence, Role
from nan_callbacks.diagnosis.experiments import (
    Experiment,
    Judge,
    Requirement,
    fresh_run,
    inflated,
    instead,
    snapshot_run,
    trained,
)
from nan_callbacks.diagnosis.goal import SHORT_RUN, Goal, Kind, Measured, blows_up, is_finite
from nan_callbacks.diagnosis.hypotheses.hypothesis import Hypothesis, is_early
from nan_callbacks.diagnosis.hypotheses.numerics import fails_by_itself
from nan_callbacks.diagnosis.lab import FEWEST_TIME_STEPS, Start, Variation
from nan_callbacks.diagnosis.origin import Origin, Phase
from nan_callbacks.diagnosis.reproduction import is_unasked

EXPLOSION = 10.0
"""Growth of the gradient norm over its median that counts as an explosion: ``min_ratio`` of the guard."""

AMPLIFIED = 5.0
"""Growth of the gradient over that of the loss from which clipping proves an explosion. Where labels contradict their
samples it is 1 at most; in recurrences whose states explode, and the loss with them, it is 10, in others 10^4."""

USUAL_LIMIT = 1.0
"""Norm that recurrent and deep networks are clipped to as a rule, and that the catalogue recommends."""

THROWN = 3.0
"""Loss of a recent batch over the usual one, after a single update, from which that update has done harm: batches of
the healthy runs in ``benchmarks/healthy`` differ by less."""

VANISHED = 1e-4
"""Gradient of the first layers over that of the last ones from which the first ones stand still in float32, whose
resolution (1.2e-7) leaves an update of a thousandth of the weights no further room."""

FAINT = 0.01
"""Share of a signal behind layers in a row that is next to nothing: normalisation, or a path around them, would keep it
up."""

RECENT_NORMS = 16
"""Steps without any gradient, from which it is no accident of a batch."""

_PRODUCTS = ("matmul", "multiply", "prod", "add", "convolution", "power", "sum")


def exploding(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """GRAD203: the gradient grows from layer to layer or from time step to time step, and nothing clips it."""
    norms = evidence.history.grad_norms
    usual = median(norms) if norms else None
    origin = evidence.replay.origin if evidence.replay else None
    along_time = evidence.recurrent and origin is not None and _is_a_product(origin)
    seen = evidence.seen.grad_norm
    spiky = usual is not None and usual > 0 and max(norms[-32:]) >= EXPLOSION * usual
    spiking = goal.kind is Kind.SPIKE and goal.quantity == "grad_norm"
    if goal.kind is Kind.STALL or not (evidence.recurrent or spiky or spiking):
        return None
    if not evidence.recurrent and fails_by_itself(evidence, goal):
        return None
    if evidence.clipping is not None and usual is not None and evidence.clipping <= EXPLOSION * usual:
        return None
    amplified = amplification(evidence) if spiking else None
    if amplified is not None and amplified <= 1.0:
        return None
    because = ["gradients are not clipped" if evidence.clipping is None else f"clipped at {number(evidence.clipping)}"]
    if evidence.recurrent:
        because.append("the model is recurrent: its gradient is a product over the time steps")
    if spiky:
        because.append(f"the gradient norm has reached {number(max(norms[-32:]))}, {number(usual)} is usual")
    elif usual is not None and seen is not None and math.isfinite(seen):
        because.append(f"the gradient norm is {number(seen)}, {number(usual)} is usual")
    experiments: list[Experiment] = []
    if spiking and goal.base.start is Start.PRESENT:
        # A gradient is measured before it is clipped: whether clipping helps shows in what the update does to others.
        update = Variation(steps=1, then_other=True)
        treatment = replace(update, clip_norm=usual or 1.0)
        experiments.append(Experiment(treatment=treatment, controls=(update,), judge=_thrown(evidence)))
    if goal.kind is Kind.DIVERGENCE and usual is not None and usual > EXPLOSION * USUAL_LIMIT:
        # What is usual in a run that has been exploding from its first step is no limit.
        experiments.append(trained(snapshot_run(), _exploded(usual), clip_norm=USUAL_LIMIT))
    clipped = trained(snapshot_run(), _exploded(usual), clip_norm=usual or USUAL_LIMIT)
    experiments.append(replace(clipped, judge=blows_up) if spiking else clipped)
    if along_time and goal.base.start is Start.PRESENT:
        experiments.append(instead(goal, start=Start.FRESH))
    score = 0.78 if evidence.recurrent and (along_time or spiky) else 0.66
    # A spike by all samples of a batch, on weights that are as they were, is an explosion whether clipping saves the
    # loss or not: an adaptive optimizer takes no longer step for it, only a worse one for long.
    by_itself = spiking and not evidence.guilty_rows and not is_early(evidence) and not inflated(evidence)
    return Hypothesis(
        code="GRAD203",
        score=score,
        because=tuple(because),
        experiments=tuple(experiments),
        observed=by_itself and not any(part.outlier_rows for part in evidence.batch),
        circumstantial=amplified is not None and amplified < AMPLIFIED,
    )


def amplification(evidence: Evidence) -> float | None:
    """Growth of the gradient over that of the loss, beside the usual ones; None if it is not known.

    A gradient is the error, passed back. Where the error has grown as much, nothing on the way back has made it larger,
    and clipping saves the weights from whatever has made the error.
    """
    loss, norm, history = evidence.seen.loss, evidence.seen.grad_norm, evidence.history
    usual_loss, usual_norm = history.usual_loss or 0.0, history.usual_norm or 0.0
    if loss is None or norm is None or not (math.isfinite(loss) and math.isfinite(norm)):
        return None
    if min(loss, usual_loss, usual_norm) <= 0.0:
        return None  # of a loss around zero a multiple says nothing
    return (norm / usual_norm) / max(1.0, loss / usual_loss)


def forgotten(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """GRAD202: what matters stands at the beginning of a sequence, and a recurrence has lost it by the end."""
    inputs = [part for part in evidence.batch if part.role is Role.INPUT]
    long = [part for part in inputs if len(part.failed.shape) > 1 and part.failed.shape[1] >= FEWEST_TIME_STEPS]
    if goal.kind is not Kind.STALL or not evidence.recurrent or not long:
        return None
    steps = max(part.failed.shape[1] for part in long)
    because = (f"the model is recurrent, over {steps} time steps: its gradient is a product over them",)
    begun = trained(fresh_run(2 * SHORT_RUN), reverse_time=True)  # recurrences learn slowly
    return Hypothesis(code="GRAD202", score=0.655, because=because, experiments=(begun,))


def vanishing(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """GRAD202: the gradient shrinks from layer to layer until the first layers no longer learn."""
    norms = [layer.grad_norm for layer in evidence.layers if layer.grad_norm is not None]
    if goal.kind is not Kind.STALL or len(norms) < 3:
        return None
    third = max(1, len(norms) // 3)
    first, last = median(norms[:third]), median(norms[-third:])
    if not 0 < last < math.inf or not first <= FAINT * last:
        return None
    because = [f"the gradient of the first layers is {number(first)}, that of the last ones {number(last)}"]
    if first > VANISHED * last:
        faded = _fading(evidence)
        if faded is None or is_unasked(evidence):
            return None
        because.append(faded)
    return Hypothesis(code="GRAD202", score=0.66, because=tuple(because), observed=True)


def _fading(evidence: Evidence) -> str | None:
    """What is said of layers that let next to nothing of a signal through, forwards as well; None of others."""
    stds = [layer.activation_std for layer in evidence.layers if layer.weight_norm and layer.activation_std is not None]
    heard, faintest = (stds[0], min(stds[1:-1])) if len(stds) > 2 else (0.0, 0.0)
    if not 0.0 < faintest <= FAINT * heard:
        return None
    return f"the first layer's outputs have a standard deviation of {number(heard)}, of later ones {number(faintest)}"


def cut_off(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """GRAD202: no gradient at all, because an operation without a slope lies between the parameters and the loss."""
    norms = evidence.history.grad_norms[-RECENT_NORMS:]
    if goal.kind is not Kind.STALL or len(norms) < RECENT_NORMS or any(norms) or evidence.zero_weights:
        return None
    if any((layer.dead_share or 0.0) >= 1.0 or (layer.saturated_share or 0.0) >= 1.0 for layer in evidence.layers):
        return None  # units without a slope
    because = (
        f"every gradient of the last {len(norms)} steps is exactly 0: what lies between the parameters and the loss "
        "has no slope (rounding, a comparison, a sign, argmax), or is cut off from it (detach, stop_gradient)",
    )
    return Hypothesis(code="GRAD202", score=0.7, because=because, observed=True)


def untrained(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """OPT608: nothing trains the layer that the loss is computed from, so that the outputs cannot follow the labels."""
    weighted = [layer for layer in evidence.layers if layer.trained is not None]
    if goal.kind is not Kind.STALL or len(weighted) < 2 or weighted[-1].trained:
        return None
    idle = [layer.name for layer in weighted if not layer.trained]
    because = (
        f"no update reaches {idle[-1]}, the last layer with weights, nor {len(idle) - 1} of the {len(weighted) - 1} "
        "before it: they are frozen, or no optimizer holds them, or they are cut off from the loss",
    )
    # Settled: a rate that is high enough moves whatever is trained, a little.
    return Hypothesis(code="OPT608", score=0.655, because=because, observed=True, settles=True)


def _is_a_product(origin: Origin) -> bool:
    return origin.time_step is not None or origin.phase is Phase.BACKWARD or origin.operation in _PRODUCTS


def _thrown(evidence: Evidence) -> Judge:
    """Whether a recent batch costs far more than usual after an update."""
    usual = evidence.history.usual_loss

    def judged(measured: Measured) -> bool | None:
        trial = measured.trial
        if not trial.supported or usual is None or usual <= 0.0:
            return None  # of a loss around zero a multiple says nothing
        return not is_finite(trial) or (len(trial.losses) == 2 and trial.losses[-1] > THROWN * usual)

    return judged


def _exploded(usual: float | None) -> Requirement:
    """Whether gradients grew far beyond their level, or overflowed on a finite loss, where nothing clipped them."""

    def shown(treated: Measured, controls: Sequence[Measured]) -> bool:
        pairs = [pair for each in controls for pair in zip(each.trial.losses, each.trial.grad_norms, strict=False)]
        norms = [norm for _, norm in pairs if math.isfinite(norm)]
        level = usual or (norms[0] if norms else 0.0)
        overflowed = any(math.isfinite(loss) and not math.isfinite(norm) for loss, norm in pairs)
        return overflowed or any(norm >= EXPLOSION * level for norm in norms)

    return shown
