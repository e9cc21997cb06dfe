"""Norms, counts and growth factors as JAX operations."""

from __future__ import annotations

from typing import Any

import jax
from jax import numpy as jnp


def gradients(grads: list[Any], scale: Any) -> tuple[Any, Any, Any]:
    """Measure the gradients of one update.

    Args:
        grads: Arrays of any floating dtype.
        scale: What the gradients must be divided by: the loss scale.

    Returns:
        Norm of each gradient, their global norm, number of non-finite elements of each (zeros if the norm is finite).
    """
    if not grads:
        return jnp.zeros(0), jnp.float32(0.0), jnp.zeros(0)
    norms = _norms(grads) / scale
    total = jnp.linalg.norm(norms)

    def closer_look() -> tuple[Any, Any, Any]:
        counts = jnp.stack([jnp.sum(~jnp.isfinite(grad)) for grad in grads])
        norms = exact_norms(grads) / scale
        largest = jnp.max(norms)
        safe = jnp.where(largest > 0, largest, 1.0)
        return norms, jnp.linalg.norm(norms / safe) * safe, counts.astype(jnp.float32)

    # A float32 sum of squares overflows at a norm of about 1e19 with finite elements.
    measured: tuple[Any, Any, Any] = jax.lax.cond(
        jnp.isfinite(total), lambda: (norms, total, jnp.zeros_like(norms)), closer_look
    )
    return measured


def parameter_norms(arrays: list[Any]) -> Any:
    """L2 norms: non-finite only if an element is. Arrays of which all norms are moderate are read only once."""
    norms = _norms(arrays)
    return jax.lax.cond(jnp.all(jnp.isfinite(norms)), lambda: norms, lambda: exact_norms(arrays))


def exact_norms(arrays: list[Any]) -> Any:
    """L2 norms whose squares cannot overflow: non-finite only if an element is."""
    norms = []
    for array in arrays:
        values = array.astype(jnp.float32)
        largest = jnp.max(jnp.abs(values), initial=0.0)
        safe = jnp.where(largest > 0, largest, 1.0)
        norm = safe * jnp.sqrt(jnp.sum(jnp.square(values / safe)))
        norms.append(jnp.where(jnp.all(jnp.isfinite(values)), norm, jnp.nan))
    return jnp.stack(norms)


def growth(after: list[Any], before: list[Any]) -> Any:
    """Largest factor by which the norm of a running variance grew."""
    return jnp.max(_norms(after) / _norms(before))


def _norms(arrays: list[Any]) -> Any:
    return jnp.sqrt(jnp.stack([jnp.sum(jnp.square(array.astype(jnp.float32))) for array in arrays]))
