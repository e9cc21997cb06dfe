"""A step written down: batch, weights and what is known, in formats that hold nothing but numbers and text.

A folder with ``step.json`` (structure and facts) and ``arrays.npz`` (all arrays, loaded without pickle).
"""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nan_callbacks.core.events import from_json_line, to_json_line
from nan_callbacks.errors import NaNCallbacksError

LAYOUT = 1
"""Version of the folder's layout; raised when a reader of the old one would go wrong."""

FACTS = "step.json"
ARRAYS = "arrays.npz"


@dataclass(frozen=True)
class StoredArray:
    """One tensor on its way to a file or back."""

    values: NDArray[Any]
    dtype: str
    """As the framework calls it. For one that numpy lacks (``bfloat16``), ``values`` hold its bits as whole numbers."""


@dataclass
class SavedStep:
    """What is written and read."""

    batches: list[Any]
    """The batches of the failed step; nested containers with :class:`StoredArray` for tensors."""
    recent: list[Any] = field(default_factory=list)
    """Batches of recent accepted steps, oldest first."""
    batch_indices: list[int] = field(default_factory=list)
    """Of the batches of the failed step, within their epoch."""
    weights: dict[str, StoredArray] = field(default_factory=dict)
    """Parameters and buffers by name, as they were before the step."""
    random_streams: dict[str, Any] = field(default_factory=dict)
    """Plain containers with :class:`StoredArray`; empty if unknown."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What is known about the incident: plain JSON."""
    left_out: list[str] = field(default_factory=list)
    """Parts of the batches that are neither numbers nor text and could not be written."""


def write_step(folder: str | Path, step: SavedStep) -> None:
    """Write a step down.

    Args:
        folder: Created if need be; an older step in it is replaced.
        step: The step. Leaves that cannot be written are left out and named in ``left_out``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    writer = _Writer()
    content = {
        "layout": LAYOUT,
        "facts": step.facts,
        "batches": writer.encode(step.batches, "batches"),
        "recent": writer.encode(step.recent, "recent"),
        "batch_indices": step.batch_indices,
        "weights": writer.encode(step.weights, "weights"),
        "random_streams": writer.encode(step.random_streams, "random_streams"),
    }
    content["left_out"] = writer.left_out
    arrays: dict[str, Any] = writer.arrays
    np.savez(folder / ARRAYS, **arrays)
    (folder / FACTS).write_text(to_json_line(content) + "\n", encoding="utf-8")


def read_step(folder: str | Path) -> SavedStep:
    """Read a step that :func:`write_step` wrote.

    Raises:
        NaNCallbacksError: If the folder holds none, or one of a layout that this version cannot read.
    """
    folder = Path(folder)
    try:
        content = from_json_line((folder / FACTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NaNCallbacksError(f"{folder} holds no saved step ({FACTS} is missing).") from None
    except (ValueError, json.JSONDecodeError) as error:
        raise NaNCallbacksError(f"{folder / FACTS} cannot be read: {error}") from None
    if content.get("layout") != LAYOUT:
        raise NaNCallbacksError(
            f"expected a saved step of layout {LAYOUT} in {folder}, received {content.get('layout')!r}; "
            "read it with the version of nan-callbacks that wrote it."
        )
    try:
        with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
            known = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as error:
        raise NaNCallbacksError(f"{folder / ARRAYS} cannot be read: {error}") from None
    return SavedStep(
        batches=_decode(content["batches"], known),
        recent=_decode(content["recent"], known),
        batch_indices=list(content["batch_indices"]),
        weights=_decode(content["weights"], known),
        random_streams=_decode(content["random_streams"], known),
        facts=content["facts"],
        left_out=list(content["left_out"]),
    )


def map_leaves(tree: Any, change: Callable[[StoredArray], Any]) -> Any:
    """A tree with every stored array replaced, as a framework makes tensors of them again."""
    if isinstance(tree, StoredArray):
        return change(tree)
    if isinstance(tree, dict):
        return {key: map_leaves(item, change) for key, item in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_leaves(item, change) for item in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(map_leaves(item, change) for item in tree)
    return tree


class _Writer:
    def __init__(self) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}
        self.left_out: list[str] = []

    def encode(self, item: Any, place: str) -> Any:
        """The structure of an item, its arrays put aside."""
        if isinstance(item, StoredArray):
            return self._array(item)
        if isinstance(item, np.ndarray) and item.dtype.kind in "fiubc":
            return self._array(StoredArray(item, f"numpy.{item.dtype}"))
        if isinstance(item, Mapping):
            pairs = [[self.encode(key, place), self.encode(value, f"{place}[{key!r}]")] for key, value in item.items()]
            return {"kind": "mapping", "items": pairs}
        if isinstance(item, tuple) and hasattr(item, "_fields"):
            items = [self.encode(value, f"{place}.{name}") for name, value in zip(item._fields, item, strict=True)]
            return {"kind": "named", "name": type(item).__name__, "fields": list(item._fields), "items": items}
        if is_dataclass(item) and not isinstance(item, type):
            names = [each.name for each in fields(item) if hasattr(item, each.name)]
            items = [self.encode(getattr(item, name), f"{place}.{name}") for name in names]
            return {"kind": "named", "name": type(item).__name__, "fields": names, "items": items}
        if isinstance(item, list | tuple):
            items = [self.encode(value, f"{place}[{index}]") for index, value in enumerate(item)]
            return {"kind": "list" if isinstance(item, list) else "tuple", "items": items}
        if item is None or isinstance(item, bool | int | str):
            return {"kind": "value", "value": item}
        if isinstance(item, float):
            return {"kind": "float", "value": item.hex() if np.isfinite(item) else str(item)}
        self.left_out.append(f"{place}: {type(item).__name__}")
        return {"kind": "value", "value": None}

    def _array(self, item: StoredArray) -> dict[str, Any]:
        name = f"a{len(self.arrays)}"
        self.arrays[name] = item.values
        return {"kind": "array", "name": name, "dtype": item.dtype}


def _decode(told: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    kind = told["kind"]
    if kind == "array":
        values = arrays[told["name"]]
        return values if told["dtype"].startswith("numpy.") else StoredArray(values, told["dtype"])
    if kind == "value":
        return told["value"]
    if kind == "float":
        return float.fromhex(told["value"])
    if kind == "mapping":
        return {_decode(key, arrays): _decode(value, arrays) for key, value in told["items"]}
    items = [_decode(item, arrays) for item in told["items"]]
    if kind == "named":
        return namedtuple(told["name"], told["fields"])(*items)
    return items if kind == "list" else tuple(items)
