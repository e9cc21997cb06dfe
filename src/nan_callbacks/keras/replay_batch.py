"""The parts of a batch by the names that users know them by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ROLES = ("x", "y", "sample_weight")
"""What Keras takes the members of a batch for, in order."""


def named_parts(batch: Any) -> list[tuple[str, Any]]:
    """Leaves of a batch in the order of ``jax.tree`` and ``keras.tree``, with names such as ``x['image']`` or ``y``.

    Args:
        batch: What a train step is handed: a tuple of up to three members, or anything else, which Keras takes as x.
    """
    if isinstance(batch, list | tuple) and len(batch) <= len(ROLES):
        return [part for role, member in zip(ROLES, batch, strict=False) for part in _leaves(role, member)]
    return list(_leaves("x", batch))


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if value is None:
        return
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from _leaves(f"{name}[{key!r}]", value[key])
    elif isinstance(value, list | tuple):
        for index, member in enumerate(value):
            yield from _leaves(f"{name}[{index}]", member)
    else:
        yield name, value


def batch_rows(batch: Any) -> int | None:
    """Size of the first dimension that the parts of a batch share; None if there is none."""
    sizes = [part.shape[0] for _, part in named_parts(batch) if len(getattr(part, "shape", ()) or ()) > 0]
    return int(sizes[0]) if sizes and all(size == sizes[0] for size in sizes) else None
