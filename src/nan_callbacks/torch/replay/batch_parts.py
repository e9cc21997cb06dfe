"""The tensors of a batch, each with the name by which a person would reach it."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from nan_callbacks.torch.data_classes import is_instance_of_one, with_fields

_DEPTH = 8
"""Deeper nestings are not followed; also the guard against objects that hold themselves."""


def batch_leaves(batch: Any, name: str = "batch", depth: int = _DEPTH) -> Iterator[tuple[str, Any]]:
    """Tensors, arrays and floats of a batch with their names, such as ``batch[0]`` or ``batch['image']``."""
    if isinstance(batch, (Tensor, np.ndarray, float)):
        yield name, batch
    elif depth > 0:
        for part_name, part in _parts(batch, name):
            yield from batch_leaves(part, part_name, depth - 1)


def _parts(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield f"{name}[{key!r}]", part
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for field in value._fields:
            yield f"{name}.{field}", getattr(value, field)
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield f"{name}[{i}]", part
    elif is_instance_of_one(value):
        for each in dataclasses.fields(value):
            yield f"{name}.{each.name}", getattr(value, each.name, None)
    elif hasattr(value, "__dict__") and not isinstance(value, (type, torch.nn.Module)) and not callable(value):
        for key, part in vars(value).items():
            yield f"{name}.{key}", part


def batch_size(batch: Any) -> int:
    """Rows of a batch: the most common first dimension of its tensors; 0 if it has none.

    Args:
        batch: A tensor or any nesting of mappings, sequences, dataclasses and objects.
    """
    if isinstance(batch, PackedSequence):
        return int(batch.batch_sizes[0])
    lengths = [leaf.shape[0] for _, leaf in batch_leaves(batch) if not isinstance(leaf, float) and len(leaf.shape) > 0]
    return Counter(lengths).most_common(1)[0][0] if lengths else 0


def select_rows(batch: Any, rows: Sequence[int]) -> Any:
    """A batch of the same structure with some of the rows only.

    Tensors, arrays and lists whose length is :func:`batch_size` are indexed; everything else is taken over.

    Args:
        batch: A tensor or any nesting of mappings, sequences and dataclasses.
        rows: Indices of the rows to keep, in order.
    """
    return _select(batch, list(rows), batch_size(batch), _DEPTH)


def _select(value: Any, rows: list[int], size: int, depth: int) -> Any:
    if isinstance(value, Tensor):
        if value.dim() == 0 or value.shape[0] != size:
            return value
        return value[torch.as_tensor(rows, dtype=torch.long, device=value.device)]
    if isinstance(value, np.ndarray):
        return value[rows] if value.ndim and value.shape[0] == size else value
    if depth == 0:
        return value
    return _select_parts(value, rows, size, depth - 1)


def _select_parts(value: Any, rows: list[int], size: int, depth: int) -> Any:
    if isinstance(value, dict):
        return type(value)({key: _select(part, rows, size, depth) for key, part in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_select(part, rows, size, depth) for part in value))
    if isinstance(value, (list, tuple)):
        holds_tensors = any(isinstance(part, (Tensor, np.ndarray)) and len(part.shape) for part in value)
        if len(value) == size and not holds_tensors:
            return type(value)(value[row] for row in rows)
        return type(value)(_select(part, rows, size, depth) for part in value)
    if is_instance_of_one(value):
        return with_fields(value, lambda name, part: _select(part, rows, size, depth))
    return value


def non_finite_rows(values: Any) -> tuple[int, ...] | None:
    """Rows (first dimension) of an array or tensor that hold a NaN or an Inf; None without a first dimension."""
    if isinstance(values, float) or len(values.shape) == 0:
        return None
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values.detach()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    bad = ~torch.isfinite(tensor if tensor.dtype.is_complex or tensor.dtype.itemsize > 2 else tensor.float())
    return tuple(bad.reshape(bad.shape[0], -1).any(1).nonzero().flatten().tolist())


def is_non_finite_number(value: Any) -> bool:
    """Whether a value is a Python float that is NaN or Inf."""
    return isinstance(value, float) and not math.isfinite(value)
