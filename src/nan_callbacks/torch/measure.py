"""One fused measurement a step: per-parameter gradient norms, loss and batch statistics in a single read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Measurement:
    """The numbers of one attempted step, on the host."""

    loss: float | None
    grad_norm: float | None
    statistics_jump: float | None
    non_finite: tuple[int, ...]
    """Places of all gradients that hold a NaN or an Inf."""
    norms_beside: tuple[float, ...] = ()
    """Norms of the tensors that were measured besides the gradients."""


def measure(
    gradients: Sequence[Tensor],
    *,
    loss: Tensor | None,
    statistics_jump: Tensor | None = None,
    beside: Sequence[Tensor] = (),
    inverse_scale: float = 1.0,
) -> Measurement:
    """Measure a step with one device-to-host read.

    Args:
        gradients: Gradients, dense, sparse or distributed, of any floating dtype.
        loss: Raw loss, shape [], any floating dtype; None if unknown.
        statistics_jump: Growth factor of the running variances, shape []; None if there are none.
        beside: Further dense floating tensors, whose norms are wanted as well.
        inverse_scale: Factor that takes a loss scale off the gradients.

    Returns:
        The measurement. Norms are computed in float32 at least: in float16 a norm above 65504 would read as Inf.
    """
    norms = _norms_of_both(gradients, beside)
    extras = [item for item in (loss, statistics_jump) if item is not None]
    values = _read([*norms, *extras])
    each, others, tail = values[: len(gradients)], values[len(gradients) : len(norms)], values[len(norms) :]
    total, non_finite = _combine(gradients, each) if gradients else (None, ())
    return Measurement(
        loss=_take(tail, loss),
        grad_norm=total * inverse_scale if total is not None and math.isfinite(total) else total,
        statistics_jump=_take(tail, statistics_jump),
        non_finite=non_finite,
        norms_beside=tuple(others),
    )


def _norms_of_both(gradients: Sequence[Tensor], beside: Sequence[Tensor]) -> list[Tensor]:
    if gradients and hasattr(gradients[0], "full_tensor"):  # distributed ones share no kernel with ordinary ones
        return [*parameter_norms(gradients), *(parameter_norms(beside) if beside else [])]
    both = [*gradients, *beside]
    return parameter_norms(both) if both else []


@torch.no_grad()
def parameter_norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """L2 norm of each tensor.

    Args:
        tensors: Any floating or complex dtype, dense, sparse or distributed.

    Returns:
        One tensor of shape [] each, in float32 (float64 if an input is float64), still on its device.
    """
    dense = [
        tensor if tensor.layout is torch.strided and not tensor.is_complex() else _dense(tensor) for tensor in tensors
    ]
    dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in dense) else torch.float32
    norms: list[Tensor] = list(torch._foreach_norm(dense, 2, dtype=dtype))
    sharded = norms and hasattr(norms[0], "full_tensor")
    return [norm.full_tensor() if hasattr(norm, "full_tensor") else norm for norm in norms] if sharded else norms


def non_finite_tensors(names: Sequence[str], tensors: Sequence[Tensor]) -> tuple[str, ...]:
    """Names of the tensors that hold a NaN or an Inf; cheap when there are none.

    Args:
        names: Name of each tensor.
        tensors: Floating tensors of any dtype and device.
    """
    if not tensors:
        return ()
    norms = _read(parameter_norms(tensors))
    return tuple(names[place] for place in _combine(tensors, norms)[1])


def total_norm(tensors: Sequence[Tensor]) -> float:
    """Global L2 norm of some tensors, accumulated in double precision on the host."""
    return math.hypot(*_read(parameter_norms(tensors))) if tensors else 0.0


def _combine(tensors: Sequence[Tensor], norms: Sequence[float]) -> tuple[float, tuple[int, ...]]:
    """Norm of all, and the places of those that hold a NaN or an Inf."""
    total = math.hypot(*norms)
    if math.isfinite(total):
        return total, ()
    # A float32 norm overflows at about 1e19 with finite elements: look before saying "non-finite".
    exact, non_finite = [], []
    for place, (tensor, norm) in enumerate(zip(tensors, norms, strict=True)):
        if not math.isfinite(norm):
            dense = _dense(tensor)
            if bool(torch.isfinite(dense).all()):
                exact.append(float(torch.linalg.vector_norm(dense.double())))
            else:
                non_finite.append(place)
                exact.append(norm)
        else:
            exact.append(norm)
    return math.hypot(*exact), tuple(non_finite)


def _dense(tensor: Tensor) -> Tensor:
    if tensor.layout is not torch.strided:
        tensor = (tensor.coalesce() if tensor.layout is torch.sparse_coo else tensor).values()
    tensor = tensor.detach()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _read(scalars: list[Tensor]) -> list[float]:
    if not scalars:
        return []
    device = scalars[0].device
    if all(scalar.dtype == torch.float32 and scalar.device == device and not scalar.dim() for scalar in scalars):
        return torch.stack(scalars).tolist()
    dtype = torch.float64 if any(scalar.dtype == torch.float64 for scalar in scalars) else torch.float32
    return torch.stack([scalar.detach().reshape(()).to(device, dtype) for scalar in scalars]).tolist()


def _take(tail: list[float], wanted: Tensor | None) -> float | None:
    return tail.pop(0) if wanted is not None else None
