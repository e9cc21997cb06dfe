"""Rows of a data set whose reading has no consequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset
from torch.utils.data._utils.collate import default_collate

MOST_ROWS = 4096


def rows_of_data(loader: Any) -> tuple[list[Any], np.ndarray] | None:
    """Rows of the whole data set as one batch, and their numbers; None if reading could change anything.

    Only data sets of tensors are read (parts and chains of them as well): any other may count, draw random numbers or
    move on when it is asked for a row.

    Args:
        loader: The data loader of a fit.
    """
    if not isinstance(loader, DataLoader) or loader.collate_fn is not default_collate:
        return None
    dataset = loader.dataset
    count = _length(dataset)
    if not count:
        return None
    chosen = torch.linspace(0, count - 1, min(count, MOST_ROWS)).round().long()
    tensors = _rows(dataset, chosen)
    return None if tensors is None else (list(tensors), chosen.numpy())


def _length(dataset: Any) -> int:
    return len(dataset) if isinstance(dataset, TensorDataset | Subset | ConcatDataset) else 0


def _rows(dataset: Any, chosen: torch.Tensor) -> tuple[torch.Tensor, ...] | None:
    if type(dataset) is TensorDataset:
        return tuple(tensor[chosen.to(tensor.device)] for tensor in dataset.tensors)
    if type(dataset) is Subset:
        indices = torch.as_tensor(list(dataset.indices))
        return _rows(dataset.dataset, indices[chosen])
    if type(dataset) is ConcatDataset and all(type(part) is TensorDataset for part in dataset.datasets):
        ends = torch.as_tensor(dataset.cumulative_sizes)
        starts = torch.cat([torch.zeros(1, dtype=torch.long), ends[:-1]])
        parts = []
        for part, start, end in zip(dataset.datasets, starts.tolist(), ends.tolist(), strict=True):
            parts.append(_rows(part, chosen[(chosen >= start) & (chosen < end)] - start) or ())
        return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))
    return None
