"""The batches of a laboratory: their parts by role, their rows, and the changes that trials make to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from nan_callbacks.diagnosis.batch_evidence import NamedArray
from nan_callbacks.diagnosis.evidence import Role
from nan_callbacks.diagnosis.lab import FEWEST_TIME_STEPS
from nan_callbacks.keras.replay_batch import ROLES, named_parts

_ROLES = dict(zip(ROLES, (Role.INPUT, Role.TARGET, Role.WEIGHT), strict=True))


def role_of(name: str) -> Role:
    """What a part of a batch is for, by the name that :func:`.named_parts` gives it."""
    return _ROLES.get(name.partition("[")[0], Role.UNKNOWN)


def map_parts(batch: Any, change: Callable[[str, Any], Any]) -> Any:
    """A batch of the same structure with every part replaced.

    Args:
        batch: What a train step is handed.
        change: Gets the name of a part, such as ``x['image']`` or ``y``, and the part.
    """
    names = iter([name for name, _ in named_parts(batch)])
    return keras.tree.map_structure(lambda leaf: None if leaf is None else change(next(names), leaf), batch)


def own_tensors(batch: Any) -> Any:
    """A batch in containers and, on torch, tensors of its own: a step may write into what it is fed."""
    return keras.tree.map_structure(lambda leaf: leaf.clone() if hasattr(leaf, "clone") else leaf, batch)


def as_numpy(part: Any) -> np.ndarray | None:
    """A part on the host; None if it holds no dense numbers."""
    if is_sparse(part):
        return None
    try:
        array = np.asarray(ops.convert_to_numpy(part))
    except (TypeError, ValueError, RuntimeError, AttributeError):
        return None
    if array.dtype.kind in "fiub":
        return array
    # bfloat16 and the like are no types of numpy's own; float32 holds them exactly.
    return array.astype(np.float32) if array.dtype.name in ("bfloat16",) or "float8" in array.dtype.name else None


def is_sparse(part: Any) -> bool:
    """Whether a part is a sparse or ragged tensor of TensorFlow, or a sparse array of JAX."""
    return hasattr(part, "dense_shape") or hasattr(part, "row_splits") or hasattr(part, "nse")


def dtype_of(part: Any) -> str:
    """The dtype of a part by its neutral name; empty if it has none."""
    try:
        return str(keras.backend.standardize_dtype(part.dtype))
    except (AttributeError, TypeError, ValueError):
        return ""


def is_floating(part: Any) -> bool:
    """Whether a part holds real floating point numbers."""
    return "float" in dtype_of(part)


def named_arrays(batch: Any) -> list[NamedArray]:
    """The parts of a batch for the neutral rooms."""
    found = []
    for name, part in named_parts(batch):
        array = as_numpy(part)
        if array is not None:
            found.append(NamedArray(name=name, values=array, dtype=dtype_of(part)))
    return found


def like(part: Any, array: np.ndarray, dtype: str | None = None) -> Any:
    """An array as a backend tensor, in the dtype of a part (or another one)."""
    return ops.convert_to_tensor(array, dtype or dtype_of(part) or None)


def select_rows(batch: Any, rows: Sequence[int], count: int) -> Any:
    """Some rows of a batch.

    Args:
        batch: The batch.
        rows: Which.
        count: Rows that the batch has; parts of another length are passed on as they are.
    """

    def change(name: str, part: Any) -> Any:
        shape = tuple(getattr(part, "shape", ()) or ())
        if not shape or shape[0] != count:
            return part
        if isinstance(part, np.ndarray):
            return part[list(rows)]
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            return tf.gather(part, list(rows))  # ragged parts and text as well
        return ops.take(part, np.asarray(rows, "int32"), axis=0)

    return map_parts(batch, change)


class Changes:
    """The changes of one trial to the values of batches.

    Args:
        recent: Recent accepted batches, from which the usual range is read; may be empty.
        failed: The failed batch, read in their place if there are none.
    """

    def __init__(self, recent: Sequence[Any], failed: Any) -> None:
        self._yardstick = list(recent) or [failed]
        self.has_recent = bool(recent)
        """Whether there are recent batches to read a usual range from."""

    def has(self, role: Role, *, floating: bool) -> bool:
        """Whether the batch has a part of this role (and of floating dtype, if asked for)."""
        parts = named_parts(self._yardstick[-1])
        return any(role_of(n) is role and (is_floating(p) or not floating) for n, p in parts)

    def scale(self, batch: Any, role: Role, factor: float) -> Any:
        """Floating parts of a role times a factor."""

        def change(name: str, part: Any) -> Any:
            array = as_numpy(part)
            if role_of(name) is not role or array is None or not is_floating(part):
                return part
            with np.errstate(over="ignore", invalid="ignore"):
                return like(part, array * array.dtype.type(factor))

        return map_parts(batch, change)

    def clip_targets(self, batch: Any) -> Any:
        """Targets clipped to the range of the yardstick."""

        def change(name: str, part: Any) -> Any:
            array = as_numpy(part)
            if role_of(name) is not Role.TARGET or array is None or array.dtype.kind == "b":
                return part
            known = [each[np.isfinite(each)] for each in self._same_part(name)]
            usual = np.concatenate(known) if known else np.empty(0)
            return like(part, array.clip(usual.min(), usual.max())) if usual.size else part

        return map_parts(batch, change)

    def reverse_time(self, batch: Any) -> Any:
        """Inputs with a long second axis in the opposite order along it."""

        def change(name: str, part: Any) -> Any:
            array = as_numpy(part)
            if role_of(name) is not Role.INPUT or array is None or array.ndim < 2 or array.shape[1] < FEWEST_TIME_STEPS:
                return part
            return like(part, np.ascontiguousarray(array[:, ::-1]))

        return map_parts(batch, change)

    def standardise(self, batch: Any) -> Any:
        """Floating inputs at mean 0 and standard deviation 1 per feature."""

        def change(name: str, part: Any) -> Any:
            array = as_numpy(part)
            if role_of(name) is not Role.INPUT or array is None or not is_floating(part) or array.ndim < 2:
                return part
            axis = 1 if array.ndim >= 4 and keras.config.image_data_format() == "channels_first" else array.ndim - 1
            columns = [np.moveaxis(each, axis, -1).reshape(-1, each.shape[axis]) for each in self._same_part(name)]
            known = np.concatenate(columns).astype(np.float64)
            known = known[np.isfinite(known).all(axis=1)]
            if not known.size:
                return part
            std = known.std(axis=0)
            with np.errstate(invalid="ignore", over="ignore"):
                moved = (np.moveaxis(array, axis, -1) - known.mean(axis=0)) / np.where(std > 0, std, 1.0)
                return like(part, np.moveaxis(moved, -1, axis).astype(array.dtype))

        return map_parts(batch, change)

    def _same_part(self, name: str) -> list[np.ndarray]:
        arrays = [as_numpy(part) for batch in self._yardstick for place, part in named_parts(batch) if place == name]
        return [array for array in arrays if array is not None]


def cast_batch(batch: Any, dtype: str) -> Any:
    """A batch with its floating parts in another dtype."""

    def change(name: str, part: Any) -> Any:
        array = as_numpy(part) if is_floating(part) else None
        return part if array is None else like(part, array.astype(dtype), dtype)

    return map_parts(batch, change)
