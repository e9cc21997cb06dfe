"""Nested batches: their tensors by name, their rows, and the changes that trials make to them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nan_callbacks.diagnosis.batch_evidence import NamedArray
from nan_callbacks.diagnosis.evidence import Role
from nan_callbacks.diagnosis.lab import FEWEST_TIME_STEPS
from nan_callbacks.torch.data_classes import is_instance_of_one, with_fields

DEPTH = 6
"""Containers within each other that are looked into."""

TARGET_WORDS = ("label", "target", "truth", "annotation", "mask_true")
TARGET_NAMES = ("y", "ys", "y_true", "gt", "t", "tgt")
INPUT_NAMES = ("x", "xs", "input", "inputs", "image", "images", "input_ids", "features", "data", "src", "pixel_values")


def map_tensors(batch: Any, change: Callable[[str, Tensor], Any], name: str = "batch", depth: int = DEPTH) -> Any:
    """A batch of the same structure with every tensor replaced.

    Args:
        batch: Tensors in dictionaries, lists, tuples, named tuples, data classes and mappings. Anything else is
            passed on as it is.
        change: Gets the place of a tensor, such as ``batch[1]`` or ``batch['mask']``, and the tensor.
        name: What the batch is called.
        depth: Containers within each other that are looked into.
    """
    if isinstance(batch, Tensor):
        return change(name, batch)
    if depth == 0:
        return batch

    def inner(item: Any, place: str) -> Any:
        return map_tensors(item, change, place, depth - 1)

    if isinstance(batch, dict):
        changed = {key: inner(value, f"{name}[{key!r}]") for key, value in batch.items()}
        return changed if type(batch) is dict else _refilled(batch, changed)
    if isinstance(batch, Mapping):
        return _refilled(batch, {key: inner(value, f"{name}[{key!r}]") for key, value in batch.items()})
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(
            *(inner(value, f"{name}.{field}") for field, value in zip(batch._fields, batch, strict=True))
        )
    if type(batch) in (list, tuple):
        return type(batch)(inner(value, f"{name}[{index}]") for index, value in enumerate(batch))
    if is_instance_of_one(batch):
        return with_fields(batch, lambda key, value: inner(value, f"{name}.{key}"))
    return batch


def _refilled(mapping: Any, contents: dict[Any, Any]) -> Any:
    """A copy of a mapping of the user's class with other contents; ``BatchEncoding`` is one."""
    twin = copy.copy(mapping)
    if isinstance(getattr(twin, "data", None), dict):
        twin.data = dict(contents)  # collections.UserDict shares its dictionary with its copies
        return twin
    for key, value in contents.items():
        twin[key] = value
    return twin


def tensors_of(batch: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a batch with their places, in order."""
    found: list[tuple[str, Tensor]] = []

    def note(name: str, tensor: Tensor) -> Tensor:
        found.append((name, tensor))
        return tensor

    map_tensors(batch, note)
    return iter(found)


def roles_of(batch: Any, targets: Collection[str] = (), picking: Collection[str] = ()) -> dict[str, Role]:
    """What each tensor of a batch is for, by its name, or by its place in a pair (input, target).

    Args:
        batch: The batch.
        targets: Parts that the step was seen to treat as targets, whatever they are called. Beside them the second of
            several parts is no target.
        picking: Parts by which it was seen to move values between its layers: inputs.
    """
    names = [name for name, _ in tensors_of(batch)]
    roles = {name: _role_by_name(name) for name in names}
    if type(batch) in (list, tuple) and len(batch) >= 2 and all(role is Role.UNKNOWN for role in roles.values()):
        roles = {name: Role.TARGET if name.startswith("batch[1]") else Role.UNKNOWN for name in names}
        if targets and len(batch) > 2:
            roles = dict.fromkeys(names, Role.UNKNOWN)
        roles.update({name: Role.INPUT for name in names if name.startswith("batch[0]")})
    elif Role.TARGET in roles.values():
        roles = {name: Role.INPUT if role is Role.UNKNOWN else role for name, role in roles.items()}
    if names == ["batch"]:
        roles["batch"] = Role.INPUT
    return {**roles, **dict.fromkeys(picking, Role.INPUT), **dict.fromkeys(targets, Role.TARGET)}


def _role_by_name(name: str) -> Role:
    last = name.rpartition("[")[2] if name.endswith("']") else name.rpartition(".")[2]
    key = last.strip("]'\"").lower()
    if key in TARGET_NAMES or any(word in key for word in TARGET_WORDS):
        return Role.TARGET
    if "weight" in key:
        return Role.WEIGHT
    return Role.INPUT if key in INPUT_NAMES else Role.UNKNOWN


def named_arrays(batch: Any) -> list[NamedArray]:
    """The tensors of a batch for the neutral rooms: on the host, detached, bfloat16 widened."""
    arrays = []
    for name, tensor in tensors_of(batch):
        if tensor.layout is not torch.strided or tensor.is_complex() or tensor.is_quantized:
            continue
        host = tensor.detach().cpu()
        told = str(host.dtype).removeprefix("torch.")
        if host.dtype in (torch.bfloat16,) or "float8" in told:
            host = host.float()
        arrays.append(NamedArray(name=name, values=host.numpy(), dtype=told))
    return arrays


def nbytes_of(batch: Any) -> int:
    """Size of all tensors of a batch in bytes."""
    return sum(tensor.numel() * tensor.element_size() for _, tensor in tensors_of(batch))


def is_shared(batch: Any) -> bool:
    """Whether a tensor of a batch lives in memory shared between processes, as those of loader workers do."""
    return any(tensor.device.type == "cpu" and tensor.is_shared() for _, tensor in tensors_of(batch))


class Changes:
    """The changes of one trial to the values of batches.

    Args:
        recent: Recent accepted batches, from which the usual range is read; may be empty.
        failed: The failed batch, read in their place if there are none.
    """

    def __init__(self, recent: Sequence[Any], failed: Any) -> None:
        self._yardstick = list(recent) or [failed]
        self._has_recent = bool(recent)
        self._failed = failed
        self._roles = roles_of(failed)

    def learn(self, targets: Collection[str], picking: Collection[str] = ()) -> None:
        """Parts that the step was seen to treat as targets, or to pick by, whatever they are called."""
        self._roles = roles_of(self._failed, targets, picking)

    @property
    def has_recent(self) -> bool:
        """Whether there are recent batches to read a usual range from."""
        return self._has_recent

    def has(self, role: Role, *, floating: bool) -> bool:
        """Whether the batch has a part of this role (and of real floating dtype, if asked for)."""
        parts = tensors_of(self._yardstick[-1])
        return any(self._role(n) is role and (t.is_floating_point() or not floating) for n, t in parts)

    def scale(self, batch: Any, role: Role, factor: float) -> Any:
        """Floating parts of a role times a factor."""

        def change(name: str, tensor: Tensor) -> Tensor:
            return tensor * factor if self._role(name) is role and tensor.is_floating_point() else tensor

        return map_tensors(batch, change)

    def clip_targets(self, batch: Any) -> Any:
        """Targets clipped to the range of the yardstick."""

        def change(name: str, tensor: Tensor) -> Tensor:
            if self._role(name) is not Role.TARGET or tensor.dtype == torch.bool or tensor.is_complex():
                return tensor
            known = [_finite(part) for part in self._same_part(name)]
            usual = torch.cat(known) if known else tensor.new_empty(0)
            return tensor.clamp(usual.min(), usual.max()) if usual.numel() else tensor

        return map_tensors(batch, change)

    def standardise(self, batch: Any) -> Any:
        """Floating inputs at mean 0 and standard deviation 1 per feature."""

        def change(name: str, tensor: Tensor) -> Tensor:
            if self._role(name) is not Role.INPUT or not tensor.is_floating_point() or tensor.dim() < 2:
                return tensor
            axis = 1 if tensor.dim() >= 4 else tensor.dim() - 1  # images: channels first
            columns = [part.movedim(axis, -1).flatten(0, -2) for part in self._same_part(name) if part.dim() > 1]
            known = torch.cat(columns).float()
            known = known[torch.isfinite(known).all(1)]
            if not known.numel():
                return tensor
            mean, std = known.mean(0), known.std(0, correction=0)
            moved = (tensor.movedim(axis, -1) - mean) / torch.where(std > 0, std, torch.ones_like(std))
            return moved.movedim(-1, axis).to(tensor.dtype)

        return map_tensors(batch, change)

    def reverse_time(self, batch: Any) -> Any:
        """Inputs with a long second axis in the opposite order along it."""

        def change(name: str, tensor: Tensor) -> Tensor:
            is_long = tensor.dim() >= 2 and tensor.shape[1] >= FEWEST_TIME_STEPS
            return tensor.flip(1) if is_long and self._role(name) is Role.INPUT else tensor

        return map_tensors(batch, change)

    def _role(self, name: str) -> Role:
        return self._roles.get(name, Role.UNKNOWN)

    def _same_part(self, name: str) -> list[Tensor]:
        return [tensor for batch in self._yardstick for place, tensor in tensors_of(batch) if place == name]


def cast_batch(batch: Any, dtype: torch.dtype) -> Any:
    """A batch with its real floating tensors in another dtype."""
    return map_tensors(batch, lambda name, tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)


def _finite(tensor: Tensor) -> Tensor:
    flat = tensor.detach().flatten()
    return flat[torch.isfinite(flat)] if flat.is_floating_point() else flat
