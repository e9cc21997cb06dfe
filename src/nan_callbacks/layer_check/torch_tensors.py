"""Between numpy and torch, and a module that is put back after a call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray


def as_tensor(array: NDArray[Any], precision: str, device: Any) -> Any:
    """A new tensor; floats in another precision if one is named."""
    import torch

    tensor = torch.tensor(array, device=device)
    return tensor.to(getattr(torch, precision)) if precision and tensor.is_floating_point() else tensor


def as_array(tensor: Any) -> NDArray[Any]:
    """A copy of a tensor's numbers; bfloat16, which numpy lacks, as float32."""
    import torch

    tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()
    return np.array(tensor.cpu().numpy())


def non_leaf(tensor: Any) -> Any:
    """A tensor that may be written to, with the gradient of the one that it was made from."""
    return tensor.clone()


def float_tensors(output: Any) -> list[Any]:
    """Floating-point tensors of an output, whatever holds them; complex ones as pairs of real numbers."""
    import torch

    if isinstance(output, torch.Tensor):
        if output.is_complex():
            return [torch.view_as_real(output)]
        return [output] if output.is_floating_point() else []
    if isinstance(output, dict):
        return [tensor for part in output.values() for tensor in float_tensors(part)]
    if isinstance(output, (list, tuple)):
        return [tensor for part in output for tensor in float_tensors(part)]
    return [tensor for part in vars(output).values() for tensor in float_tensors(part)] if _is_record(output) else []


def _is_record(output: Any) -> bool:
    import dataclasses

    return dataclasses.is_dataclass(output) and not isinstance(output, type)


@contextmanager
def default_dtype(precision: str) -> Iterator[None]:
    """Tensors that code makes without naming a type have this one inside, so that they fit the rest."""
    import torch

    before = torch.get_default_dtype()
    if precision == "float64":
        torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def module_kept(module: Any) -> Iterator[None]:
    """Parameters, buffers and modes of a module are afterwards what they were before."""
    import torch
    from torch.nn.parameter import is_lazy

    modes = [(each, each.training) for each in module.modules()]
    held = [
        (table, name, tensor, None if is_lazy(tensor) else tensor.detach().clone())
        for each in module.modules()
        for table in (each._parameters, each._buffers)
        for name, tensor in table.items()
        if tensor is not None
    ]
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training
        with torch.no_grad():
            for table, name, tensor, values in held:
                if values is not None:  # a lazy one that has been built stays built
                    table[name] = tensor
                    tensor.copy_(values)
