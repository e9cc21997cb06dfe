"""What a failed batch looks like beside the batches that the run digested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.evidence import BatchPart, Role
from nan_callbacks.diagnosis.moved import moved_share
from nan_callbacks.diagnosis.outlying import outlying_rows, over
from nan_callbacks.diagnosis.unlike import unlike_rows

MOST_VALUES = 1 << 21
"""Values of one tensor that statistics look at; of larger ones, rows (then values) at an even stride (16 MiB).
The test for NaN and Inf, and the range of the failed batch, look at every value."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class NamedArray:
    """One tensor of a batch, as a numpy array."""

    name: str
    """Where it is in the batch: ``input``, ``batch[0]``, ``batch['mask']``."""
    values: NDArray[Any]
    """Rows (samples) along the first axis; a zero-dimensional array has no rows."""
    dtype: str = ""
    """The dtype to tell, if the array had to be widened for numpy (``bfloat16``); the array's own if empty."""


def batch_parts(
    failed: Sequence[NamedArray], recent: Sequence[Sequence[NamedArray]], roles: Sequence[Role]
) -> tuple[BatchPart, ...]:
    """The parts of a failed batch beside the same parts of recent batches.

    Args:
        failed: The tensors of the failed batch. Tensors that hold no numbers are passed over.
        recent: The tensors of recent accepted batches, oldest first; they are matched to the failed one's by name.
        roles: What each tensor of the failed batch is for.

    Raises:
        ValueError: If there are not as many roles as tensors.
    """
    if len(roles) != len(failed):
        raise ValueError(f"expected one role for each of the {len(failed)} tensors, received {len(roles)}.")
    return tuple(
        _part(part, [other.values for batch in recent for other in batch if other.name == part.name], role)
        for part, role in zip(failed, roles, strict=True)
        if part.values.dtype.kind in "fiub"
    )


def _part(failed: NamedArray, recent: list[NDArray[Any]], role: Role) -> BatchPart:
    past = [values for values in recent if values.size and values.dtype.kind in "fiub"]
    sampled = _sample(failed.values)
    remembered = [_sample(values, MOST_VALUES // len(past)) for values in past]
    former = remembered[: len(remembered) // 2]
    finite = sampled[np.isfinite(sampled)]
    known = _finite(remembered)
    worst, ratio = outlying_rows(failed.values, remembered)
    farthest, far = outlying_rows(failed.values, remembered, centred=True) if remembered else ((), 1.0)
    return BatchPart(
        role=role,
        failed=_summary(failed.values, failed.name, failed.dtype),
        recent=_summary_of_all(past, remembered, failed.name, failed.dtype),
        mean=_mean(finite),
        std=_std(finite),
        recent_mean=_mean(known),
        recent_std=_std(known),
        former_std=_std(_finite(former)),
        non_finite_rows=_non_finite_rows(failed.values, past),
        outlier_rows=worst,
        outlier_ratio=ratio,
        far_rows=farthest,
        far_ratio=far,
        feature_std_ratio=_feature_std_ratio(remembered or [sampled]),
        moved_share=moved_share(sampled, remembered),
        moved_lately=moved_share(sampled, former),
        unlike_rows=unlike_rows(sampled, remembered) if sampled.shape == failed.values.shape else (),
        is_integral=bool(finite.size) and bool(np.all(finite == np.rint(finite))),
    )


def _finite(batches: list[Numbers]) -> Numbers:
    return np.concatenate([values[np.isfinite(values)] for values in batches]) if batches else np.empty(0)


def _sample(values: NDArray[Any], most: int = MOST_VALUES) -> Numbers:
    """Whole rows at an even stride, as float64; of a few huge rows, values at an even stride."""
    if values.size > most and values.ndim:
        values = values[:: -(-values.size // most)] if len(values) > 1 else values
        if values.size > most:
            values = values.reshape(len(values), -1)[:, :: -(-values.size // most)]
    return values.astype(np.float64)


def _summary(values: NDArray[Any], name: str, dtype: str) -> TensorSummary:
    return (
        TensorSummary.of(values, name=name, dtype=dtype) if values.size <= MOST_VALUES else _large(values, name, dtype)
    )


def _large(values: NDArray[Any], name: str, dtype: str) -> TensorSummary:
    """Every value counts, a slice of rows at a time, so that no copy of the whole is made."""
    flat = values.reshape(-1)
    slices = [TensorSummary.of(flat[at : at + MOST_VALUES]) for at in range(0, flat.size, MOST_VALUES)]
    return _joined(slices, values.shape, name, dtype or str(values.dtype))


def _summary_of_all(past: list[NDArray[Any]], remembered: list[Numbers], name: str, dtype: str) -> TensorSummary | None:
    if not past:
        return None
    rows = sum(len(values) if values.ndim else 1 for values in past)
    shape = (rows, *past[0].shape[1:])
    return _joined([TensorSummary.of(values) for values in remembered], shape, name, dtype or str(past[0].dtype))


def _joined(summaries: list[TensorSummary], shape: tuple[int, ...], name: str, dtype: str) -> TensorSummary:
    lows = [each.minimum for each in summaries if each.minimum is not None]
    highs = [each.maximum for each in summaries if each.maximum is not None]
    smallest = [each.smallest_magnitude for each in summaries if each.smallest_magnitude is not None]
    return TensorSummary(
        name=name,
        shape=shape,
        dtype=dtype,
        nan=sum(each.nan for each in summaries),
        positive_inf=sum(each.positive_inf for each in summaries),
        negative_inf=sum(each.negative_inf for each in summaries),
        zeros=sum(each.zeros for each in summaries),
        minimum=min(lows, default=None),
        maximum=max(highs, default=None),
        smallest_magnitude=min(smallest, default=None),
    )


def _non_finite_rows(values: NDArray[Any], past: list[NDArray[Any]]) -> tuple[int, ...]:
    if values.dtype.kind != "f" or not values.ndim or np.isfinite(values).all():
        return ()
    rows = values.reshape(len(values), -1)
    broken = np.isnan(rows) | (rows == np.inf)
    if not _is_mask(rows, past):
        broken |= rows == -np.inf
    return tuple(int(row) for row in np.flatnonzero(broken.any(axis=1)))


def _is_mask(rows: NDArray[Any], past: list[NDArray[Any]]) -> bool:
    """Whether -Inf is written on purpose: recent batches hold it too, or there is nothing but it and zero."""
    if past:
        return any(bool((values == -np.inf).any()) for values in past)
    return bool(np.isin(rows, (0.0, -np.inf)).all())


def _feature_std_ratio(batches: list[Numbers]) -> float:
    shaped = [batch.reshape(-1, batch.shape[-1]) for batch in batches if batch.ndim > 1 and batch.shape[-1] > 1]
    if not shaped or len({batch.shape[1] for batch in shaped}) > 1:
        return 1.0
    together = np.concatenate(shaped)
    together = together[np.isfinite(together).all(axis=1)]
    with np.errstate(over="ignore", invalid="ignore"):
        spread = together.std(axis=0) if len(together) > 1 else np.empty(0)
    spread = spread[np.isfinite(spread) & (spread > 0)]
    return float(over(spread.max(keepdims=True), float(spread.min()))[0]) if spread.size else 1.0


def _mean(values: Numbers) -> float | None:
    with np.errstate(over="ignore"):
        mean = float(values.mean()) if values.size else None
    return mean if mean is None or np.isfinite(mean) else None


def _std(values: Numbers) -> float | None:
    with np.errstate(over="ignore", invalid="ignore"):
        std = float(values.std()) if values.size else None
    return std if std is None or np.isfinite(std) else None
