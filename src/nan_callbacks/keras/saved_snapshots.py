"""Snapshots in a file beside a backup, so that a resumed run can roll back beyond the resume."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from nan_callbacks.keras.backend import Backend
from nan_callbacks.keras.snapshot import Snapshot

MAX_BYTES = 256 * 2**20
"""Size up to which snapshots are saved by default: the backup of a small model may triple, that of a large one must
not."""

_WIDTHS = {"bool": 1, "int8": 1, "uint8": 1, "float16": 2, "bfloat16": 2, "float32": 4, "int32": 4, "uint32": 4}

FILE_NAME = "nan_callbacks_snapshots.npz"


def save(folder: Path, model: Any, backend: Backend, choice: str) -> bool:
    """Write the snapshots of a fit.

    Args:
        folder: Folder of the backup.
        model: The model.
        backend: Its guarded step.
        choice: ``auto`` up to 256 MiB, ``always``, ``never``.

    Returns:
        Whether they were written. Those of a distributed model never are.
    """
    distributed = keras.distribution.distribution() is not None or getattr(model, "_distribute_strategy", None)
    if choice == "never" or distributed or not backend.slots:
        return False
    if choice == "auto" and _size(backend.slots) > MAX_BYTES:
        return False
    arrays: dict[str, np.ndarray] = {}
    header = {slot: _pack(f"{slot}", snapshot, arrays) for slot, snapshot in backend.slots.items()}
    arrays["header"] = np.asarray(json.dumps(header))
    unfinished = folder / (FILE_NAME + ".part")
    with unfinished.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    os.replace(unfinished, folder / FILE_NAME)  # a killed run leaves the old file or the new one, never half of it
    return True


def load(folder: Path, backend: Backend, epoch: int) -> bool:
    """Take over the snapshots of a file if they are of this model.

    Args:
        folder: Folder of the backup.
        backend: The guarded step, ready to run.
        epoch: The present epoch.

    Returns:
        Whether the snapshots are there now.
    """
    with np.load(folder / FILE_NAME, allow_pickle=False) as file:
        header = json.loads(str(file["header"]))
        slots = {int(slot): _unpack(slot, about, file) for slot, about in header.items()}
    probe = -1
    backend.capture(probe, epoch)
    expected = _shapes(backend.slots.pop(probe))
    if any(_shapes(snapshot) != expected for snapshot in slots.values()):
        return False
    backend.slots.update(slots)
    return True


def _pack(prefix: str, snapshot: Snapshot, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Put the values of a snapshot among the arrays, and describe them."""
    grouped = bool(snapshot.values) and isinstance(snapshot.values[0], list)
    values = tree.flatten(snapshot.values)
    for index, value in enumerate(values):
        array = ops.convert_to_numpy(value)
        # bfloat16 and the like are no types of numpy's own; float32 holds them exactly.
        arrays[f"{prefix}/{index}"] = array if array.dtype.isbuiltin else array.astype(np.float32)
    streams = [] if snapshot.rng is None else [snapshot.rng[0], *(snapshot.rng[1] or [])]
    for index, stream in enumerate(streams):
        arrays[f"{prefix}/rng/{index}"] = ops.convert_to_numpy(stream)
    return {
        "epoch": snapshot.epoch,
        "dtypes": [_dtype(value) for value in values],
        "groups": [len(group) for group in snapshot.values] if grouped else None,
        "streams": len(streams),
    }


def _unpack(prefix: str, about: dict[str, Any], file: Any) -> Snapshot:
    arrays = [file[f"{prefix}/{index}"] for index in range(len(about["dtypes"]))]
    values = [ops.convert_to_tensor(array, dtype) for array, dtype in zip(arrays, about["dtypes"], strict=True)]
    if about["groups"] is not None:
        rest = iter(values)
        values = [[next(rest) for _ in range(length)] for length in about["groups"]]
    streams = [ops.convert_to_tensor(file[f"{prefix}/rng/{i}"], "uint8") for i in range(about["streams"])]
    streams = [stream.cpu() for stream in streams]  # only torch has them, and its generators take them from there
    return Snapshot(about["epoch"], values, (streams[0], streams[1:] or None) if streams else None)


def _shapes(snapshot: Snapshot) -> list[Any]:
    return [(tuple(value.shape), _dtype(value)) for value in tree.flatten(snapshot.values)]


def _size(slots: dict[int, Snapshot]) -> int:
    """Bytes in memory; no element is larger than eight."""
    values = [value for snapshot in slots.values() for value in tree.flatten(snapshot.values)]
    return sum(math.prod(value.shape) * _WIDTHS.get(_dtype(value), 8) for value in values)


def _dtype(value: Any) -> str:
    return str(keras.backend.standardize_dtype(value.dtype))
