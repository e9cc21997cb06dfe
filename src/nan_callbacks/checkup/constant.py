"""The loss of the best prediction that is the same for every sample: a model that does no better has learnt nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nan_callbacks.checkup.facts import Array, LossFacts

AGREEMENT = 0.1
"""Relative difference up to which the loss of the step is the one that is computed here: no weights, no other terms."""

TINY = 1e-7
"""Probability below which none is taken: Keras' own epsilon."""


def loss_of_a_constant(losses: Sequence[LossFacts], total: float | None) -> float | None:
    """What a model would pay that knows the targets' distribution, and nothing of the inputs.

    Args:
        losses: Those of a step.
        total: What the step minimised.

    Returns:
        The variance of the targets, their mean absolute deviation or their entropy; None if the step does not minimise
        the mean of one such loss.
    """
    if len(losses) != 1 or total is None:
        return None
    (loss,) = losses
    targets = loss.targets if loss.all_targets is None else loss.all_targets
    if not targets.size or not loss.predictions.size or targets.dtype.kind not in "fiub":
        return None
    with np.errstate(all="ignore"):
        paid, least = _paid_and_least(loss, targets)
    agrees = paid is not None and abs(paid - total) <= AGREEMENT * abs(total)
    return least if agrees and least is not None and least > 0.0 else None


def _paid_and_least(loss: LossFacts, targets: Array) -> tuple[float | None, float | None]:
    """What the step paid by this loss, and what a constant would; NaN where they cannot be computed."""
    if loss.kind == "cross_entropy":
        return _of_indices(loss, targets)
    given, seen = loss.targets.astype(np.float64), loss.predictions.astype(np.float64)
    if given.shape != seen.shape:
        return None, None
    every = targets.astype(np.float64)
    if loss.kind in ("squared_error", "difference"):
        return float(np.square(seen - given).mean()), float(every.var(axis=0).mean())
    if loss.kind == "absolute_error":
        return float(np.abs(seen - given).mean()), float(np.abs(every - np.median(every, axis=0)).mean())
    if loss.kind == "binary_cross_entropy":
        shares = 1.0 / (1.0 + np.exp(-seen)) if loss.from_logits else seen
        return float(_binary(shares, given).mean()), float(_binary(every.mean(axis=0), every.mean(axis=0)).mean())
    if loss.kind == "soft_cross_entropy" and loss.class_axis is not None:
        logs = _logarithms(loss, seen, loss.class_axis)
        usual = np.moveaxis(every, loss.class_axis, -1).reshape(-1, seen.shape[loss.class_axis]).mean(axis=0)
        return float(-(given * logs).sum(axis=loss.class_axis).mean()), _entropy(usual)
    return None, None


def _of_indices(loss: LossFacts, targets: Array) -> tuple[float | None, float | None]:
    axis = loss.class_axis
    if axis is None or loss.predictions.ndim != loss.targets.ndim + 1:
        return None, None
    logs = np.moveaxis(_logarithms(loss, loss.predictions.astype(np.float64), axis), axis, -1)
    logs, given = logs.reshape(-1, logs.shape[-1]), loss.targets.reshape(-1).astype(np.int64)
    known = (given >= 0) & (given < logs.shape[-1]) & (given != loss.ignore_index)
    if not known.any():
        return None, None
    every = targets.reshape(-1).astype(np.int64)
    counts = np.bincount(every[(every >= 0) & (every != loss.ignore_index)])
    return float(-logs[known, given[known]].mean()), _entropy(counts / counts.sum())


def _logarithms(loss: LossFacts, seen: Array, axis: int) -> Array:
    if loss.takes_log:
        return seen
    if not loss.from_logits:
        return np.log(np.maximum(seen, TINY))
    shifted = seen - seen.max(axis=axis, keepdims=True)
    logarithms: Array = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return logarithms


def _binary(shares: Array, targets: Array) -> Array:
    kept = np.clip(shares, TINY, 1.0 - TINY)
    entropies: Array = -(targets * np.log(kept) + (1.0 - targets) * np.log1p(-kept))
    return entropies


def _entropy(shares: Array) -> float:
    some = shares[shares > 0]
    return float(-(some * np.log(some)).sum())
