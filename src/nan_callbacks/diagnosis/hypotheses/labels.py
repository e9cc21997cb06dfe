"""Suspicions against the targets: labels that do not exist, targets far off, labels that contradict their samples."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from nan_callbacks.core.sentences import number
from nan_callbacks.core.statistics import median
from nan_callbacks.diagnosis.diagnosis import describe_rows
from nan_callbacks.diagnosis.evidence import BatchPart, Evidence, Role
from nan_callbacks.diagnosis.experiments import Requirement, another_batch, instead, without_rows
from nan_callbacks.diagnosis.goal import SPIKE_RATIO, Goal, Kind, Measured, is_finite
from nan_callbacks.diagnosis.hypotheses.activations import MOSTLY
from nan_callbacks.diagnosis.hypotheses.changes import has_moved
from nan_callbacks.diagnosis.hypotheses.data import accusation_of_rows
from nan_callbacks.diagnosis.hypotheses.gradients import amplification
from nan_callbacks.diagnosis.hypotheses.hypothesis import Hypothesis, batch_rows
from nan_callbacks.diagnosis.hypotheses.losses import has_no_alignment
from nan_callbacks.diagnosis.hypotheses.numerics import averages_nothing
from nan_callbacks.diagnosis.lab import Start
from nan_callbacks.diagnosis.origin import Origin, OriginKind

CONTRADICTION = math.log(1000.0)
"""Mean loss of the accused samples alone, in nats: the model gives their labels a probability under 1 in 1000."""

CONTRADICTED_BATCH = math.log(20.0)
"""Mean loss of a whole batch, in nats: the model gives its labels a probability under 1 in 20, on average."""

UNLIKE = "their inputs are unlike those of all recent samples: it may be these that are wrong"

KNOWS = 0.95
"""Usual loss over that of a guess below which a model knows something that labels could contradict: as much better as a
model must be than the best constant prediction to have learnt anything."""

WORSE_THAN_A_GUESS = 1.5
"""Factor on the loss of a guess from which a model knows less than nothing: its weights are far off."""

LOOKING_UP = frozenset({
    "gather", "take", "index", "scatter", "embedding", "nll_loss", "cross_entropy", "softmax_cross_entropy", "one_hot",
    "ctc_loss",
})  # fmt: skip
"""Operations whose results a class index picks; some backends answer NaN to one that is out of range."""

FEWEST_LOSSES = 32
"""Steps whose mean loss is compared with that of a guess: single batches differ by a tenth."""

LIKE_A_GUESS = 0.05
"""By how much that mean may differ from the logarithm of the number of classes: frequencies are never quite equal."""

TABLES = ("Embedding", "EmbeddingBag")
"""Modules that look rows up: an index that they refuse need be no target, nor even a part of the batch."""

PICKING = ("aten.index.", "aten.index_select.", "aten.embedding.")
"""Operations that look rows up in a table, wherever they are called."""

SELECTING = ("aten.gather", "aten.scatter", "aten.index", "aten.take", "aten.select.", "aten.embedding.")
"""Operations that pick or place values by an index, whatever that is."""

_OUT_OF_RANGE = re.compile(
    r"out of bounds|(?<!list index )(?<!tuple index )(?<!string index )out of range"
    r"|outside (of )?the valid range|n_classes|num_classes|must be in the (half-open )?interval"
    r"|targets? should be between 0 and 1|all elements of target|out of bounds for axis",
    re.IGNORECASE,
)
"""What frameworks say when a class index or a probability is none."""


def out_of_range(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """DATA505: a class index that the model has no class for, a negative count, a probability above 1."""
    if goal.kind in (Kind.DIVERGENCE, Kind.STALL):
        return None
    origin = evidence.replay.origin if evidence.replay else None
    if origin is not None and (averages_nothing(origin) or has_no_alignment(origin)):
        return None  # another target would help, but no label is to blame
    strange = [
        part
        for part in _targets(evidence)
        if part.is_integral and _leaves_its_range(part) and not _is_only_new(part, origin)
    ]
    pointers = [part for part in evidence.batch if part.failed.name in evidence.picking and _leaves_its_range(part)]
    by_no_label = not strange and (bool(pointers) or _labels_are_known(evidence))
    looked_up = origin is not None and (
        origin.module_type in TABLES or (not strange and _picks_rows(origin)) or (by_no_label and _selects(origin))
    )
    raised = origin is not None and origin.kind is OriginKind.EXCEPTION and _OUT_OF_RANGE.search(origin.detail)
    # Some backends answer NaN for a row that a table does not have.
    answered = looked_up and origin is not None and origin.operation in ("gather", "take")
    if not strange and not raised and not answered:
        return None
    because = [_range_sentence(part) for part in (pointers if looked_up and not strange else strange)]
    if raised and origin is not None:
        because.append(f"the step raised: {origin.detail.rstrip('.')}")
    if answered and origin is not None:
        because.append(f"{origin.module or 'a table'} was asked for a row that it does not have, and answered NaN")
    rows = evidence.guilty_rows
    experiments = (
        *((instead(goal, clip_targets=True),) if strange else ()),
        *without_rows(goal, rows, batch_rows(evidence)),
        *((another_batch(goal),) if raised or answered else ()),
    )
    return Hypothesis(
        code="DATA511" if (raised or answered) and looked_up else "DATA505",
        score=0.97,
        because=tuple(because),
        experiments=experiments,
        observed=bool(raised or answered),
    )


def _labels_are_known(evidence: Evidence) -> bool:
    """Whether there are whole labels, and some that went well to compare them with."""
    return any(part.is_integral and part.recent is not None for part in _targets(evidence))


def _selects(origin: Origin) -> bool:
    """Whether picking or placing values by an index raised: what torch picks without an error was there."""
    return origin.kind is OriginKind.EXCEPTION and origin.native_operation.startswith(SELECTING)


def _picks_rows(origin: Origin) -> bool:
    """Whether whole rows of a table were picked by one index, inside of a layer, as a graph picks its nodes.

    A loss picks one number of a row, by an index to each axis.
    """
    indices = [each for each in origin.operands if each.name.startswith("ind") and each.dtype.startswith("int")]
    table = origin.operands[:1]
    if not origin.module or len(indices) != 1 or not table or not table[0].dtype.startswith(("float", "bfloat")):
        return False
    return origin.native_operation.startswith(PICKING) and len(table[0].shape) >= 2


def wrong_labels(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """DATA504: targets far outside of their usual range, or labels that contradict otherwise ordinary samples."""
    far_off = accusation_of_rows("DATA504", 0.91, _targets(evidence), evidence, goal)
    inputs_far_off = _inputs_are_unusual(evidence)
    if far_off is not None and any(has_moved(part) for part in _targets(evidence)):
        return None  # not some of the labels, but all of them: data of another kind
    if far_off is not None:
        # Where the inputs of the same samples are outliers too, the sample as a whole is wrong.
        score = 0.89 if inputs_far_off else far_off.score
        # Whether the target's value is to blame shows when it is brought back into its usual range: a sample may be to
        # blame for other reasons, and have a rare target besides.
        known = any(part.recent is not None for part in _targets(evidence))
        experiments = (instead(goal, clip_targets=True),) if known else far_off.experiments
        return replace(far_off, score=score, experiments=experiments)
    labels = [part for part in _targets(evidence) if part.is_integral]
    rows = evidence.guilty_rows
    total = batch_rows(evidence)
    if goal.kind is not Kind.SPIKE or not rows or not labels or inputs_far_off or 2 * len(rows) > total:
        return None
    if not evidence.classifies:
        return None  # how sure a model is shows in nats only
    if not _knows(evidence):
        return None  # a model that has lost its way contradicts any label
    because = (f"{describe_rows(rows)} alone make the spike", "their inputs are as large as those of other samples")
    accused = replace(goal.base, only_rows=rows)
    experiments = tuple(
        replace(each, controls=(*each.controls, accused), requires=_contradicted(evidence))
        for each in without_rows(goal, rows, total)
    )
    unlike = bool(_unlike_inputs(evidence) & set(rows))
    return Hypothesis(
        code="DATA504",
        score=0.85,
        because=(*because, *((UNLIKE,) if unlike else ())),
        experiments=experiments,
        circumstantial=unlike,
    )


def forbidden_labels(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """DATA504: labels of a few rows pick what a mask rules out, such as a transition that a grammar forbids."""
    origin = evidence.replay.origin if evidence.replay else None
    if goal.kind is not Kind.NON_FINITE or origin is None or origin.kind is not OriginKind.OPERATION:
        return None
    picked = any(operand.negative_inf and not operand.nan for operand in origin.operands)
    labels = [part for part in _targets(evidence) if part.is_integral]
    rows, total = evidence.guilty_rows or origin.rows or (), batch_rows(evidence)
    if origin.operation not in LOOKING_UP or not picked or not labels or not rows or 2 * len(rows) > total:
        return None
    because = (
        f"{origin.operation} picks minus infinity for {describe_rows(rows)}: what their labels say is ruled out",
        "labels of other samples pick finite numbers",
    )
    experiments = without_rows(goal, rows, total)
    return Hypothesis(code="DATA504", score=0.92, because=because, experiments=experiments)


def single_class(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """DATA510: the label is the same in every row that was seen, whatever is made of it."""
    if goal.kind is not Kind.STALL:
        return None
    for part in _targets(evidence):
        failed, recent = part.failed, part.recent
        if not evidence.classifies and failed.name not in evidence.labels_used:
            continue  # it may be there because something must be
        if recent is None or failed.minimum is None or failed.shape[:1] < (2,):
            continue
        if not failed.dtype.startswith(("int", "uint", "bool")):
            continue  # a residual that shall be zero is no label
        if failed.minimum == failed.maximum == recent.minimum == recent.maximum:
            name = failed.name or part.role.value
            because = (f"{name} is {number(failed.minimum)} in every row of this batch and of the recent ones",)
            return Hypothesis(code="DATA510", score=0.6, because=because, observed=True)
    return None


def unrelated_labels(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """DATA504: a classifier whose layers all learn does no better than a guess, as if labels belonged to other samples.

    No experiment can tell labels that were shuffled from samples that do not show what is asked: no more than possible.
    """
    losses = evidence.history.losses[-FEWEST_LOSSES:]
    if goal.kind is not Kind.STALL or not evidence.classifies or len(losses) < FEWEST_LOSSES or not _targets(evidence):
        return None
    if any(max(layer.dead_share or 0.0, layer.saturated_share or 0.0) > MOSTLY for layer in evidence.layers):
        return None
    norms = evidence.history.grad_norms[-FEWEST_LOSSES:]
    classes = max((_classes(part) for part in _targets(evidence)), default=0)
    if classes < 2 or not norms or min(norms) == 0.0:
        return None
    guesses = {f"a guess among {classes} classes": math.log(classes), "one answer for all": evidence.constant_loss}
    alike = [how for how, loss in guesses.items() if loss and abs(fmean(losses) / loss - 1.0) <= LIKE_A_GUESS]
    if not alike:
        return None
    because = (
        f"the loss, {number(fmean(losses))}, is that of {alike[0]}, although gradients reach all layers: labels may "
        "belong to other samples (sorted, shuffled or joined apart)",
    )
    return Hypothesis(code="DATA504", score=0.4, because=because)


def _classes(part: BatchPart) -> int:
    """Classes that whole labels count; 0 if these are none."""
    recent = part.recent
    if not part.is_integral or recent is None or recent.minimum is None or recent.minimum < 0 or recent.maximum is None:
        return 0
    return int(recent.maximum) + 1


def shifted_labels(evidence: Evidence, goal: Goal) -> Hypothesis | None:
    """DATA504: the labels of a whole batch contradict its samples: shifted, shuffled, of another list of classes."""
    usual = evidence.history.usual_loss
    few = evidence.guilty_rows and 2 * len(evidence.guilty_rows) <= batch_rows(evidence)
    if goal.kind is not Kind.SPIKE or few or usual is None or _inputs_are_unusual(evidence):
        return None
    because = (
        f"the loss of the batch is {number(evidence.seen.loss)}, that of others {number(usual)}",
        "its inputs are as large as those of other samples",
    )
    if not evidence.classifies:
        return _worse_than_knowing_nothing(evidence, goal, usual, because)
    if not any(part.is_integral for part in _targets(evidence)) or not _knows(evidence):
        return None

    def contradicts(treated: Measured, controls: Sequence[Measured]) -> bool:
        losses = controls[0].trial.losses
        return bool(losses) and losses[-1] > max(CONTRADICTED_BATCH, 10.0 * usual)

    experiment = replace(another_batch(goal), requires=contradicts)
    unlike = 2 * len(_unlike_inputs(evidence)) > batch_rows(evidence)
    return Hypothesis(
        code="DATA504",
        score=0.76,
        because=(*because, *((UNLIKE,) if unlike else ())),
        experiments=(experiment,),
        circumstantial=unlike,
    )


def _worse_than_knowing_nothing(
    evidence: Evidence, goal: Goal, usual: float, because: tuple[str, ...]
) -> Hypothesis | None:
    """Of a loss in no known unit, such as one of distances: fresh weights do better on the batch than those of the run.

    Inputs that mean something else now, within their usual range, would show the same.
    """
    known = [part for part in _targets(evidence) if part.recent is not None]
    amplified = amplification(evidence)
    if goal.base.start is not Start.PRESENT or not known or any(map(has_moved, known)) or usual <= 0.0:
        return None
    if amplified is None or amplified > 1.0 or any(part.outlier_rows or part.far_rows for part in known):
        return None  # an error that is passed back as usual, of ordinary numbers

    def is_far_above(measured: Measured) -> bool | None:
        trial = measured.trial
        return not is_finite(trial) or trial.losses[-1] > SPIKE_RATIO * usual if trial.losses else None

    def unlearnt(treated: Measured, controls: Sequence[Measured]) -> bool:
        present, fresh = (each.trial.losses[-1] for each in controls)
        return present > fresh

    fresh = replace(goal.base, start=Start.FRESH)
    whole = replace(another_batch(goal), controls=(goal.base, fresh), requires=unlearnt, judge=is_far_above)
    said = "fresh weights, which know nothing, do better on it"
    return Hypothesis(
        code="DATA504",
        score=0.76,
        because=(*because, said),
        experiments=(whole,),
        needs_proof=True,
        circumstantial=True,
    )


def _contradicted(evidence: Evidence) -> Requirement:
    """Whether the model, right on the others, rules out the labels of the accused samples.

    A model that does worse on the others than a guess rules nothing out.
    """
    usual = median(evidence.history.losses) if evidence.history.losses else None
    most = WORSE_THAN_A_GUESS * _guess(evidence)

    def shown(treated: Measured, controls: Sequence[Measured]) -> bool:
        accused, others = controls[-1].trial.losses, treated.trial.losses
        if usual is None or not accused or not others:
            return False
        return accused[-1] > max(CONTRADICTION, 10.0 * usual) and others[-1] < min(0.5 * accused[-1], most)

    return shown


def _knows(evidence: Evidence) -> bool:
    """Whether the model does better than a guess: who knows nothing contradicts no label, however large the loss.

    Of a net that was thrown off, most batches cost what a guess costs, and one that wakes a dead unit hundreds of times
    that.
    """
    columns = [part.failed.shape[1] for part in _targets(evidence) if part.is_integral and len(part.failed.shape) == 2]
    classes = max((*map(_classes, _targets(evidence)), *columns), default=0)
    guess = evidence.constant_loss or (math.log(classes) if classes > 1 else math.inf)
    return not evidence.history.losses or median(evidence.history.losses[-8:]) < KNOWS * guess


def _guess(evidence: Evidence) -> float:
    """Loss of a guess among as many classes as the labels show, in nats."""
    known = (part.recent or part.failed for part in _targets(evidence) if part.is_integral)
    return math.log(2.0 + max((max(each.maximum or 0.0, 0.0) for each in known), default=0.0))


def _inputs_are_unusual(evidence: Evidence) -> bool:
    """Whether inputs, and not labels alone, differ from those before: then a model contradicts the right labels too."""
    inputs = [part for part in evidence.batch if part.role is not Role.TARGET]
    return any(part.outlier_rows or has_moved(part) for part in (*inputs, *evidence.prepared))


def _unlike_inputs(evidence: Evidence) -> set[int]:
    """Samples whose inputs are unlike all before: a model that meets what it does not know contradicts right labels."""
    return {row for part in evidence.batch if part.role is not Role.TARGET for row in part.unlike_rows}


def _targets(evidence: Evidence) -> list[BatchPart]:
    return [part for part in evidence.batch if part.role is Role.TARGET]


def _leaves_its_range(part: BatchPart) -> bool:
    failed, recent = part.failed, part.recent
    if recent is None or failed.minimum is None or failed.maximum is None:
        return False
    if recent.minimum is None or recent.maximum is None:
        return False
    if not failed.dtype.startswith(("int", "uint", "bool")):
        is_share = recent.minimum >= 0.0 and recent.maximum <= 1.0
        if is_share and failed.maximum > 1.0:
            return True
        return failed.minimum < 0.0 <= recent.minimum  # a count below zero; a zero among counts is a count
    return failed.minimum < recent.minimum or failed.maximum > recent.maximum


def _is_only_new(part: BatchPart, origin: Origin | None) -> bool:
    """Whether a number that was larger than any before can have done nothing where the failure began.

    A class that the model lacks fails where something is looked up by it. Where labels are only compared with one
    another, a new one is a new one.
    """
    if origin is None or origin.kind is not OriginKind.OPERATION or not part.failed.dtype.startswith(("int", "uint")):
        return False
    negative = (part.failed.minimum or 0.0) < min((part.recent.minimum if part.recent else None) or 0.0, 0.0)
    return not negative and origin.operation not in LOOKING_UP


def _range_sentence(part: BatchPart) -> str:
    failed, recent = part.failed, part.recent
    usual = f"{number(recent.minimum)} to {number(recent.maximum)}" if recent is not None else "unknown"
    name = failed.name or part.role.value
    return f"{name} reaches from {number(failed.minimum)} to {number(failed.maximum)}; recent batches: {usual}"
