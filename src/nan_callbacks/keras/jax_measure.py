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
    norms = jnp.sqrt(jnp.stack([jnp.sum(jnp.square(grad.astype(jnp.float32))) for grad in grads])) / scale
    total = jnp.linalg.norm(norms)

    def closer_look() -> tuple[Any, Any]:
        counts = jnp.stack([jnp.sum(~jnp.isfinite(grad)) for grad in grads])
        return exact_norms(grads) / scale, counts.astype(jnp.float32)

    # A float32 sum of squares overflows at a norm of about 1e19 with finite elements.
    norms, counts = jax.lax.cond(jnp.isfinite(total), lambda: (norms, jnp.zeros_like(norms)), closer_look)
    largest = jnp.max(norms)
    safe = jnp.where(largest > 0, largest, 1.0)
    return norms, jnp.where(jnp.isfinite(total), total, jnp.linalg.norm(norms / safe) * safe), counts


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
    norms = [jnp.stack([jnp.linalg.norm(each.astype(jnp.float32)) for each in group]) for group in (after, before)]
    return jnp.max(norms[0] / norms[1])
