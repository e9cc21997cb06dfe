"""Whether model and loss agree about the last activation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nan_callbacks.checkup.advice import ERROR, WARNING, notice
from nan_callbacks.checkup.facts import LossFacts
from nan_callbacks.checkup.notice import Notice

ENTROPIES = frozenset({"cross_entropy", "soft_cross_entropy", "binary_cross_entropy"})
SQUASHING = {"cross_entropy": ("softmax",), "soft_cross_entropy": ("softmax",), "binary_cross_entropy": ("sigmoid",)}
"""What each loss applies itself if it takes logits. Applied twice, a softmax of one kind behind another one as well."""

FEWEST_ROWS = 4
"""Rows that agree by more than chance."""

CLOSE = 0.02
"""By how much probabilities of a row may miss a sum of 1: half precision, an epsilon."""


def examine_losses(losses: tuple[LossFacts, ...]) -> Iterator[Notice]:
    """Every notice about output activations."""
    for loss in losses:
        if _is_one_for_ever(loss):
            yield _of_one_unit(loss)
        elif _is_of_one_class(loss):
            yield _of_one_class(loss)
        elif loss.kind in ENTROPIES and loss.from_logits:
            yield from _twice(loss)
        elif loss.kind in ENTROPIES and loss.takes_log:
            yield from _no_logarithms(loss)
        elif loss.kind in ENTROPIES and loss.from_logits is False:
            yield from _no_probabilities(loss)
        elif loss.kind in ("kl_divergence", "alignment") and loss.takes_log:
            yield from _no_logarithms(loss)
        elif loss.kind == "poisson" and loss.from_logits is False:
            yield from _negative_rates(loss)


def _name(loss: LossFacts) -> str:
    return loss.name or loss.kind


def _is_one_for_ever(loss: LossFacts) -> bool:
    """Whether the outputs are a softmax over a single unit: exp(x) / exp(x), whatever x is, without a gradient."""
    seen = loss.predictions
    constant = {"softmax": 1.0, "log_softmax": 0.0}.get(loss.activation)
    return constant is not None and seen.size >= FEWEST_ROWS and bool((seen == constant).all())


def _of_one_unit(loss: LossFacts) -> Notice:
    return notice(
        "LOSS404", "single_unit", ERROR, _name(loss),
        f"The model's output is a {loss.activation} over a single unit, which is {loss.predictions.flat[0]:g} whatever "
        "the unit says, without a gradient: the sigmoid is missing.",
        source=loss.source,
        remedy="Take the sigmoid of a single unit, or two units with a softmax.",
    )  # fmt: skip


def _is_of_one_class(loss: LossFacts) -> bool:
    """Whether probabilities are brought to a sum of 1 over a single class, which then has all of it."""
    if loss.kind != "soft_cross_entropy" or loss.takes_log or loss.class_axis is None:
        return False
    return loss.predictions.ndim >= 2 and loss.classes == 1


def _of_one_class(loss: LossFacts) -> Notice:
    return notice(
        "LOSS404", "single_class", ERROR, _name(loss),
        f"The loss compares probabilities of classes that add up to 1, and the outputs {loss.predictions.shape} have "
        "one class only: it has all the probability whatever the model says, and there is no gradient.",
        source=loss.source,
        remedy="Take a binary cross-entropy for a single unit, or as many units as there are classes.",
    )  # fmt: skip


def _twice(loss: LossFacts) -> Iterator[Notice]:
    seen = loss.predictions
    if loss.activation in ("softmax", "sigmoid"):
        told = f"The model's output went through {loss.activation}"
    elif loss.kind != "binary_cross_entropy" and len(seen) >= FEWEST_ROWS and _adds_up(seen, loss.class_axis):
        told = "The model's outputs lie between 0 and 1 and add up to 1 in every row: they are probabilities"
    else:
        return
    yield notice(
        "LOSS403", "twice", WARNING, _name(loss),
        f"{told}, and the loss takes logits: it applies {SQUASHING[loss.kind][0]} once more.",
        source=loss.source,
    )  # fmt: skip


def _adds_up(seen: np.ndarray, axis: int | None) -> bool:
    """Whether outputs of several classes are a distribution in every row, to the precision of their dtype."""
    if (
        axis is None
        or not seen.size
        or seen.ndim < 2
        or seen.shape[axis] < 2
        or not np.isfinite(seen).all()
        or seen.min() < 0
    ):
        return False
    rounding = 1e-2 if seen.dtype.itemsize < 4 else 1e-4
    return bool(np.abs(seen.astype(np.float64).sum(axis=axis) - 1).max() <= rounding)


def _no_logarithms(loss: LossFacts) -> Iterator[Notice]:
    seen = loss.predictions
    if loss.activation in ("log_softmax", "log_sigmoid") or not seen.size or not np.isfinite(seen).all():
        return
    axis = loss.class_axis if loss.class_axis is not None else -1
    with np.errstate(over="ignore"):
        sums = np.exp(seen.astype(np.float64)).sum(axis=axis)
    if seen.max() <= CLOSE and np.abs(sums - 1).max() <= CLOSE:
        return
    if loss.kind == "kl_divergence" and seen.max() <= CLOSE:
        return
    are_probabilities = loss.activation in ("softmax", "sigmoid") or _is_distribution(seen, axis)
    what = "probabilities" if are_probabilities else "raw scores"
    yield notice(
        "LOSS404", "logarithm", ERROR, _name(loss),
        f"The loss takes logarithms of probabilities; it was given {what} from {seen.min():.3g} to {seen.max():.3g}.",
        source=loss.source,
    )  # fmt: skip


def _no_probabilities(loss: LossFacts) -> Iterator[Notice]:
    seen = loss.predictions
    if loss.activation in ("softmax", "sigmoid") or not seen.size or not np.isfinite(seen).all():
        return
    axis = loss.class_axis if loss.class_axis is not None else -1
    outside = seen.min() < -1e-6 or seen.max() > 1 + CLOSE
    several = loss.kind != "binary_cross_entropy" and seen.shape[axis] > 1
    if not outside and (not several or _is_distribution(seen, axis)):
        return
    yield notice(
        "LOSS404", "probability", ERROR, _name(loss),
        f"The loss takes probabilities; it was given "
        f"{'raw scores' if loss.activation in ('', 'linear') else 'the output of ' + loss.activation} from "
        f"{seen.min():.3g} to {seen.max():.3g}.",
        source=loss.source,
    )  # fmt: skip


def _is_distribution(seen: np.ndarray, axis: int) -> bool:
    return bool(seen.min() >= 0) and bool(np.abs(seen.sum(axis=axis) - 1).max() <= CLOSE)


def _negative_rates(loss: LossFacts) -> Iterator[Notice]:
    seen = loss.predictions
    if seen.size and np.isfinite(seen).all() and seen.min() < 0:
        yield notice(
            "LOSS404", "rate", ERROR, _name(loss),
            f"The loss takes rates, which are positive; it was given values down to {seen.min():.3g}.",
            source=loss.source,
        )  # fmt: skip
