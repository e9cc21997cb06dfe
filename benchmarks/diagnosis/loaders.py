"""Loaders of the programs for Lightning."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset


def in_order(*arrays: np.ndarray, size: int) -> DataLoader[Any]:
    """Batches in the order of the arrays."""
    return DataLoader(TensorDataset(*map(torch.from_numpy, arrays)), batch_size=size)
