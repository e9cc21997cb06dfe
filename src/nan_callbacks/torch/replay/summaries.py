"""Tensors to numbers: cheap tests for NaN and Inf, and full summaries for people."""

from __future__ import annotations

import cmath
import math

import torch
from torch import Tensor

from nan_callbacks.core.tensor_summary import TensorSummary

NAN, INF = 1, 2
"""Bits of what a tensor holds."""

_NARROW = {torch.float16, torch.bfloat16} | {
    dtype for name in dir(torch) if name.startswith("float8") and isinstance(dtype := getattr(torch, name), torch.dtype)
}
"""Types whose sums overflow or that have no arithmetic of their own."""


def is_floating(tensor: Tensor) -> bool:
    """Whether a tensor can hold NaN or Inf that can be looked at."""
    kind = tensor.dtype
    return (kind.is_floating_point or kind.is_complex) and tensor.device.type != "meta" and tensor.numel() > 0


def special_values(tensor: Tensor) -> int:
    """Bits for NaN and Inf. Two passes only if the sum is not finite: neither can cancel in a sum.

    A sum of finite values may overflow; then the full test decides.
    """
    if not is_floating(tensor):
        return 0
    values = _plain(tensor)
    total = values.sum(dtype=torch.float32) if values.dtype in _NARROW else values.sum()
    if cmath.isfinite(total.item()):
        return 0
    return (NAN if bool(torch.isnan(values).any()) else 0) | (INF if bool(torch.isinf(values).any()) else 0)


def _plain(tensor: Tensor) -> Tensor:
    """Strided values with arithmetic: of a sparse tensor its entries, of a float8 tensor a wider copy."""
    values = tensor.detach()
    if values.layout is not torch.strided:
        values = values.coalesce().values() if values.layout is torch.sparse_coo else values.values()
    return values.float() if values.dtype.itemsize == 1 else values


def non_finite_mask(tensor: Tensor) -> Tensor:
    """True where a value is NaN or Inf; the tensor's own shape."""
    values = tensor.detach()
    return ~torch.isfinite(values.float() if values.dtype in _NARROW else values)


def summarise(tensor: Tensor, name: str = "") -> TensorSummary:
    """Summary of a tensor, computed where the tensor lies.

    Args:
        tensor: Of any type and device. Only shape and type are told of tensors without readable numbers.
        name: How the tensor is called.
    """
    dtype = str(tensor.dtype).removeprefix("torch.")
    shape = tuple(tensor.shape)
    if tensor.device.type == "meta" or tensor.numel() == 0 or tensor.is_quantized:
        return TensorSummary(name=name, shape=shape, dtype=dtype)
    with torch.no_grad():
        values = _plain(tensor)
        if values.dtype.is_complex:
            values = torch.view_as_real(values.resolve_conj())
        if values.dtype is torch.bool:
            values = values.to(torch.uint8)
        if not values.dtype.is_floating_point:
            return _of_integers(values, name, shape, dtype)
        return _of_floats(values.float() if values.dtype in _NARROW else values, name, shape, dtype)


def _of_integers(values: Tensor, name: str, shape: tuple[int, ...], dtype: str) -> TensorSummary:
    magnitudes = values[values != 0].abs()
    return TensorSummary(
        name=name,
        shape=shape,
        dtype=dtype,
        zeros=values.numel() - magnitudes.numel(),
        minimum=float(values.min()),
        maximum=float(values.max()),
        smallest_magnitude=float(magnitudes.min()) if magnitudes.numel() else None,
    )


def _of_floats(values: Tensor, name: str, shape: tuple[int, ...], dtype: str) -> TensorSummary:
    # Reductions over masked copies rather than compressed ones: no shapes that depend on data.
    finite = torch.isfinite(values)
    low = torch.where(finite, values, math.inf).min()
    high = torch.where(finite, values, -math.inf).max()
    zero = values == 0
    least = torch.where(finite & ~zero, values.abs(), math.inf).min()
    counts = [torch.isnan(values).sum(), (values == math.inf).sum(), (values == -math.inf).sum(), zero.sum()]
    nan, positive, negative, zeros = (int(count) for count in counts)
    return TensorSummary(
        name=name,
        shape=shape,
        dtype=dtype,
        nan=nan,
        positive_inf=positive,
        negative_inf=negative,
        zeros=zeros,
        minimum=_finite_or_none(low),
        maximum=_finite_or_none(high),
        smallest_magnitude=_finite_or_none(least),
    )


def _finite_or_none(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
