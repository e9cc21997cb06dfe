"""What is wrong with targets, beside what the model hands to its loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nan_callbacks.checkup.advice import ERROR, WARNING, notice, rows_in_words, share
from nan_callbacks.checkup.columns import channels_of, is_whole
from nan_callbacks.checkup.facts import Array, InputFacts, LossFacts
from nan_callbacks.checkup.notice import Notice
from nan_callbacks.checkup.outliers import outlying
from nan_callbacks.checkup.wrapped import has_wrapped

CLASSIFYING = frozenset({"cross_entropy", "soft_cross_entropy", "binary_cross_entropy"})
REGRESSING = frozenset({"squared_error", "absolute_error", "cosine", "difference"})

BOUNDS: dict[str, tuple[float, float]] = {
    "softmax": (0.0, 1.0), "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "relu": (0.0, math.inf),
    "softplus": (0.0, math.inf), "exp": (0.0, math.inf), "log_softmax": (-math.inf, 0.0),
    "log_sigmoid": (-math.inf, 0.0),
}  # fmt: skip
"""What an output activation can reach."""

TOLERANCE = 1e-3
"""Of a bound: rounding and label smoothing."""

FAR = 30.0
"""Root mean square of regression targets from which they are unscaled, if the model's outputs are ten times smaller.
A squared error of them begins in the hundreds; ratings, ages in decades and standardised targets stay below."""

FEWEST_ROWS = 32
FEWEST_CLASSES = 3
"""Outputs whose targets are not the same in every row by chance."""
MOST_COLUMNS = 16
"""Columns up to which targets are quantities with a scale of their own; more of them are a picture or a signal."""


def examine_labels(losses: tuple[LossFacts, ...], *, sound: bool = False) -> Iterator[Notice]:
    """Every notice about targets.

    Args:
        losses: The losses.
        sound: Whether the gradients of the first batch are finite: if its targets have NaN, the loss leaves them out.
    """
    for loss in map(_with_rows, losses):
        targets = _all(loss)
        if not targets.size or targets.dtype.kind not in "fiub":
            continue
        if _has_gaps(targets) and not (sound and _has_gaps(loss.targets)):
            rows = np.flatnonzero(~np.isfinite(targets).reshape(len(targets), -1).all(1))
            yield notice(
                "DATA501", "targets", ERROR, _place(loss),
                f"Targets are NaN or Inf in {rows_in_words(rows, loss.row_numbers)}.",
                source=loss.source,
            )  # fmt: skip
        yield from has_wrapped(InputFacts(name=_place(loss), values=targets))
        form = list(_form(loss, targets))
        yield from form
        if not form:
            yield from _range(loss, targets)
            yield from _scale(loss, targets)
            yield from _single_class(loss)
            yield from _far_off(loss)


def _with_rows(loss: LossFacts) -> LossFacts:
    """A loss of one sample without an axis of rows as one of a single row."""
    every = loss.all_targets
    return replace(
        loss,
        predictions=np.atleast_1d(loss.predictions),
        targets=np.atleast_1d(loss.targets),
        all_targets=None if every is None else np.atleast_1d(every),
    )


def _all(loss: LossFacts) -> Array:
    return loss.targets if loss.all_targets is None else loss.all_targets


def _has_gaps(targets: Array) -> bool:
    return targets.dtype.kind == "f" and not np.isfinite(targets).all()


def _place(loss: LossFacts) -> str:
    return f"targets of {loss.name}" if loss.name else "targets"


# -- form ------------------------------------------------------------------------------------------------------------


def _form(loss: LossFacts, targets: Array) -> Iterator[Notice]:
    predicted, given = loss.predictions.shape, loss.targets.shape
    classes = loss.classes
    place, source = _place(loss), loss.source
    if loss.kind == "cross_entropy":
        axis = loss.class_axis
        same = axis is not None and len(given) == len(predicted) and given[axis] == predicted[axis] > 1
        if same and np.isin(targets, (0, 1)).all():
            yield notice(
                "DATA508", "one_hot", ERROR, place, f"The loss expects class indices; targets are one-hot {given}.",
                source=source,
            )  # fmt: skip
        return
    if loss.kind == "soft_cross_entropy":
        if classes > 1 and (given[-1:] == (1,) or len(given) < len(predicted)):
            yield notice(
                "DATA508", "indices", ERROR, place,
                f"The loss expects one number per class, as the outputs {predicted} have it; targets are "
                f"{'indices' if is_whole(targets) else 'single numbers'} {given}.",
                source=source,
            )  # fmt: skip
        return
    if predicted == given:
        yield from _repeated(loss)
        return
    if loss.kind in ("unknown", "alignment") or not predicted or not given:
        return
    try:
        together = np.broadcast_shapes(predicted, given)
    except ValueError:
        return  # the step raises an error of its own
    # One number for all outputs is not meant; the same shape without axes of length 1 at their ends is.
    if together in (predicted, given) and np.prod(together) == np.prod(predicted):
        if not (len(given) == len(predicted) and given[-1] == 1 and predicted[-1] > 1):
            return
        if loss.kind in ("difference", "own"):
            return  # one number beside the means of several components, or beside quantiles; or a class index
        what = "class indices" if is_whole(targets) and len(np.unique(targets)) <= predicted[-1] else "one number"
        told = f"{what} per row {given} beside {predicted[-1]} outputs {predicted}: each output is compared with it."
    elif loss.of_distribution and together in (predicted, given):
        return
    else:
        told = f"targets {given} beside outputs {predicted} are broadcast to {together}: all rows against all others."
    severity = WARNING if loss.kind == "own" else ERROR  # it was seen to make a difference, but may be meant
    yield notice("DATA508", "broadcast", severity, place, told[0].upper() + told[1:], source=source)


def _repeated(loss: LossFacts) -> Iterator[Notice]:
    """One whole number per row, spread over all outputs of the row: the number of a class, not one per class."""
    targets = loss.targets
    if loss.kind not in ("squared_error", "absolute_error") or targets.ndim != 2 or targets.shape[1] < FEWEST_CLASSES:
        return
    first = targets[:, :1]
    if is_whole(targets) and (targets == first).all() and len(np.unique(first)) > 2 and first.min() >= 0:
        yield notice(
            "DATA508", "repeated", ERROR, _place(loss),
            f"All {targets.shape[1]} targets of a row are the same whole number, which differs from row to row: each "
            "output is compared with the number of the class.",
            source=loss.source,
        )  # fmt: skip


# -- range -----------------------------------------------------------------------------------------------------------


def _range(loss: LossFacts, targets: Array) -> Iterator[Notice]:
    finite = targets[np.isfinite(targets)] if targets.dtype.kind == "f" else targets
    if not finite.size:
        return
    low, high = float(finite.min()), float(finite.max())
    told, kind = None, "range"
    if loss.kind == "cross_entropy":
        kept = finite if loss.ignore_index is None else finite[finite != loss.ignore_index]
        classes = loss.classes
        beyond = (kept < 0) | (kept >= classes)
        if beyond.any():
            values = ", ".join(f"{int(value)}" for value in np.unique(kept[beyond])[:5])
            plural = "output" if classes == 1 else "outputs"
            told = f"There are {classes} {plural}, so classes are 0 to {classes - 1}; {share(beyond.mean())} of the "
            told += f"labels are not among them: {values}."
    elif loss.kind in ("soft_cross_entropy", "binary_cross_entropy"):
        if low < -TOLERANCE or high > 1 + TOLERANCE:
            kind = "no_probability"
            told = f"The loss expects probabilities from 0 to 1; targets reach from {low:.4g} to {high:.4g}."
            told += " Labels of ±1 belong to a hinge loss." if set(np.unique(finite).tolist()) == {-1, 1} else ""
        elif loss.kind == "soft_cross_entropy" and loss.class_axis is not None and loss.classes > 1:
            sums = loss.targets.sum(axis=min(loss.class_axis, loss.targets.ndim - 1))
            if np.abs(sums - 1).max() > 0.01:
                told = (
                    f"Probabilities of all classes should add up to 1; the targets of a row add up to {sums.min():.3g}"
                )
                told += f" to {sums.max():.3g}."
    elif loss.kind == "poisson" and low < 0:
        told = f"The loss expects counts; targets reach down to {low:.4g}."
    elif loss.kind in REGRESSING and loss.activation in BOUNDS:
        bottom, top = BOUNDS[loss.activation]
        beyond = (finite < bottom - TOLERANCE) | (finite > top + TOLERANCE)
        if beyond.any():
            kind = "beyond_activation"
            told = f"The output goes through {loss.activation}, which reaches from {bottom:g} to {top:g}; "
            told += f"{share(beyond.mean())} of the targets lie outside ({low:.4g} to {high:.4g})."
    if told is not None:
        yield notice("DATA505", kind, ERROR, _place(loss), told, source=loss.source)


def _scale(loss: LossFacts, targets: Array) -> Iterator[Notice]:
    if loss.kind not in ("squared_error", "absolute_error", "difference") or targets.dtype.kind == "b":
        return
    columns = channels_of(targets, -1)
    if not columns:
        return
    worst = max(columns, key=lambda column: column.rms)
    outputs = max((column.rms for column in channels_of(loss.predictions, -1)), default=0.0)
    if worst.rms > FAR and worst.rms > 10 * outputs:
        yield notice(
            "DATA509", "scale", WARNING, _place(loss),
            f"Targets have a mean of {worst.mean:.4g} and a standard deviation of {worst.std:.4g}; the model begins "
            f"with outputs of a root mean square of {outputs:.3g}.",
            source=loss.source,
        )  # fmt: skip
    spread = [column.std for column in columns if column.std > 0]
    if targets.ndim == 2 and 1 < len(spread) <= MOST_COLUMNS and max(spread) > 100 * min(spread) and max(spread) > 1:
        yield notice(
            "DATA509", "target_scales", WARNING, _place(loss),
            f"Standard deviations of the targets' columns reach from {min(spread):.3g} to {max(spread):.3g}: the loss "
            "sees the largest only.",
            source=loss.source,
        )  # fmt: skip


def _far_off(loss: LossFacts) -> Iterator[Notice]:
    targets = loss.all_targets  # of the data; a target that a step computes may be rare
    if targets is None or loss.kind not in REGRESSING | {"poisson"} or targets.dtype.kind not in "fiu":
        return
    amounts = targets if targets.dtype.kind == "f" else targets.astype(np.float64)
    for found in outlying(InputFacts(name=_place(loss), values=amounts, row_numbers=loss.row_numbers)):
        kind = "sentinel_label" if found.kind == "sentinel" else found.kind
        yield replace(found, code="DATA504", kind=kind, source=loss.source)


def _single_class(loss: LossFacts) -> Iterator[Notice]:
    targets = loss.all_targets  # what a step makes itself, as adversaries do, is meant to be constant
    if targets is None or loss.kind not in CLASSIFYING or len(targets) < FEWEST_ROWS or not np.isfinite(targets).all():
        return
    several = targets.ndim > 1 and targets.shape[-1] > 1
    if several and loss.kind == "binary_cross_entropy":
        return  # several labels at once: each may be rare
    labels = targets.argmax(-1) if several and loss.kind == "soft_cross_entropy" else targets
    if loss.ignore_index is not None:
        labels = labels[labels != loss.ignore_index]
    if labels.size and is_whole(labels) and np.all(labels == labels.flat[0]):
        yield notice(
            "DATA510", "single_class", WARNING, _place(loss),
            f"All {len(targets)} rows that were read have the label {labels.flat[0]:g}.", source=loss.source,
        )  # fmt: skip
