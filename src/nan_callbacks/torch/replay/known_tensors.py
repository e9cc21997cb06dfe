"""Tensors that a step reads from outside: parameters, buffers, the batch. Recognised by their memory."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.batchnorm import _NormBase

from nan_callbacks.torch.replay.batch_parts import batch_leaves
from nan_callbacks.torch.replay.module_paths import clean_path


class Source(enum.Enum):
    """Where a tensor came from."""

    BATCH = "batch"
    PARAMETER = "parameter"
    BUFFER = "buffer"
    STATISTICS = "statistics"
    """Running statistics of a normalisation: an Inf in them is never meant."""
    ELSEWHERE = "elsewhere"
    """A constant that the code holds or makes from Python or NumPy numbers."""


@dataclass(frozen=True)
class Label:
    """What a tensor is."""

    source: Source
    name: str
    tensor: Any = None
    owner: nn.Module | None = None


class KnownTensors:
    """Looks tensors up by the address of their storage.

    Args:
        modules: Root modules by name.
        parameters: Parameters by name.
        batch: What the step reads.
    """

    def __init__(self, modules: Mapping[str, nn.Module], parameters: Mapping[str, Tensor], batch: Any) -> None:
        self._labels: dict[int, list[Label]] = {}
        self.batch = [Label(Source.BATCH, name, leaf) for name, leaf in batch_leaves(batch)]
        owners = {
            id(parameter): module
            for root in modules.values()
            for module in root.modules()
            for parameter in module._parameters.values()
            if parameter is not None
        }
        for label in self.batch:
            self._add(label)
        for name, parameter in parameters.items():
            self._add(Label(Source.PARAMETER, name, parameter, owners.get(id(parameter))))
        for root_name, root in modules.items():
            for path, module in root.named_modules():
                self._add_tensors_of(module, clean_path(root_name, path))

    def _add_tensors_of(self, module: nn.Module, path: str) -> None:
        for name, parameter in module._parameters.items():
            self._add(Label(Source.PARAMETER, clean_path(path, name), parameter, module))
        kind = Source.STATISTICS if isinstance(module, _NormBase) else Source.BUFFER
        for name, buffer in module._buffers.items():
            self._add(Label(kind, clean_path(path, name), buffer, module))

    def _add(self, label: Label) -> None:
        address = _address(label.tensor)
        if address:
            known = self._labels.setdefault(address, [])
            if all(other.tensor is not label.tensor for other in known):
                known.append(label)

    def find(self, tensor: Tensor) -> Label:
        """What a tensor is; of several that share its memory the one at its own offset."""
        known = self._labels.get(_storage_address(tensor), [])
        for label in known:
            if isinstance(label.tensor, Tensor) and label.tensor.data_ptr() == tensor.data_ptr():
                return label
        return known[0] if known else Label(Source.ELSEWHERE, "constant", tensor)

    def parameter(self, tensor: Tensor) -> str:
        """Name of a parameter."""
        return self.find(tensor).name


def storage_key(tensor: Tensor) -> int:
    """Identity of a tensor's storage while its :func:`storage_ref` is held; of the tensor itself if it has none."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse, or a subclass that wraps other tensors
        return id(tensor)


def storage_ref(tensor: Tensor) -> object:
    """Keeps the identity of a tensor's storage from being given away again, but not its memory."""
    try:
        return StorageWeakRef(tensor.untyped_storage())
    except (NotImplementedError, RuntimeError):
        return tensor


def _storage_address(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0


def _address(value: Any) -> int:
    if isinstance(value, Tensor):
        return _storage_address(value)
    if isinstance(value, np.ndarray):
        base = value
        while isinstance(base.base, np.ndarray):
            base = base.base
        return int(base.__array_interface__["data"][0])
    return 0
