"""Exact in-memory snapshots, restored in place: compiled functions, DDP and fused optimizers keep their tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nan_callbacks.torch.rng import RngState
from nan_callbacks.torch.snapshot_home import SnapshotHome


@dataclass
class TrainingState:
    """References to everything that a training step may change."""

    modules: dict[str, nn.Module]
    """The model, and any averaged copies of it."""
    optimizers: Sequence[Optimizer]
    schedulers: Sequence[Any] = ()
    """Objects with ``state_dict`` and ``load_state_dict``."""
    scaler: Any = None
    """A ``torch.amp.GradScaler``, or None."""
    extra: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = field(default_factory=dict)
    """Further plain state by name: a function that returns it and one that takes it back."""


class Snapshot:
    """One copy of a training state; its memory is reused by every later capture.

    Args:
        state: What to copy. The objects must stay the same ones over the life of the snapshot.
        home: Where the copies are kept.
    """

    def __init__(self, state: TrainingState, home: SnapshotHome) -> None:
        self._state = state
        self._home = home
        self._copies: dict[str, Tensor] = {}
        self._devices: dict[str, torch.device] = {}
        """Where the originals are."""
        self._plain: dict[str, Any] = {}

    @property
    def nbytes(self) -> int:
        """Size of the copied tensors in bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._copies.values())

    @torch.no_grad()
    def capture(self, rng: RngState | None = None) -> None:
        """Copy the present state.

        Args:
            rng: Random streams to go back to, if not the present ones.
        """
        live = dict(self._live_tensors())
        self._home.look(live.values())
        self._devices = {key: tensor.device for key, tensor in live.items()}
        pairs = []
        for key, tensor in live.items():
            kept = self._copies.get(key)
            if kept is None or not _alike(kept, tensor) or kept.device != self._home.device_of(tensor):
                self._copies[key] = self._home.copy_of(tensor)
            else:
                pairs.append((kept, tensor.detach()))
        for key in self._copies.keys() - live.keys():
            del self._copies[key]
        copy_pairs(pairs)
        self._plain = {
            "groups": [
                [_without_tensors(group, skip=("params",)) for group in optimizer.param_groups]
                for optimizer in self._state.optimizers
            ],
            "states": [_plain_optimizer_state(optimizer) for optimizer in self._state.optimizers],
            "schedulers": [clone_tree(scheduler.state_dict()) for scheduler in self._state.schedulers],
            "scaler": None if self._state.scaler is None else clone_tree(self._state.scaler.state_dict()),
            "extra": {name: clone_tree(get()) for name, (get, _) in self._state.extra.items()},
            "rng": rng or RngState(),
        }

    @torch.no_grad()
    def restore(self, *, rng: bool = True) -> None:
        """Put the captured state back into the same tensors and objects. Gradients are dropped.

        Args:
            rng: Whether the random number streams go back as well.
        """
        live = dict(self._live_tensors())
        pairs = []
        for key, kept in self._copies.items():
            tensor = live.get(key)
            if tensor is not None and _alike(tensor, kept):
                pairs.append((tensor.detach(), kept))
            else:
                self._put(key, kept)
        copy_pairs(pairs)
        for index, optimizer in enumerate(self._state.optimizers):
            self._restore_plain_optimizer(index, optimizer)
            optimizer.zero_grad(set_to_none=True)
        for scheduler, state in zip(self._state.schedulers, self._plain["schedulers"], strict=True):
            scheduler.load_state_dict(clone_tree(state))
        if self._state.scaler is not None:
            restore_scaler(self._state.scaler, self._plain["scaler"])
        for name, (_, put) in self._state.extra.items():
            if name in self._plain["extra"]:
                put(clone_tree(self._plain["extra"][name]))
        if rng:
            self._plain["rng"].restore()

    def settle(self) -> None:
        """Bring copies that were made before to where they belong now."""
        settled = self._home.settled(list(self._copies.values()))
        self._copies = dict(zip(self._copies, settled, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Plain containers and tensors (shared with the snapshot), for a checkpoint; :func:`original` copies them."""
        return {
            "tensors": dict(self._copies),
            "devices": {key: str(device) for key, device in self._devices.items()},
            "plain": {**self._plain, "rng": self._plain["rng"].state_dict()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`; tensors move to where copies of the live ones belong."""
        live, saved = dict(self._live_tensors()), state["tensors"]
        self._home.look(live.values())
        self._devices = {key: live.get(key, tensor).device for key, tensor in saved.items()}
        self._copies = {
            key: tensor.to(self._home.device_of(live[key])) if key in live else tensor for key, tensor in saved.items()
        }
        self._plain = {**state["plain"], "rng": RngState.from_state_dict(state["plain"]["rng"])}

    def _live_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of the state under a stable key."""
        for label, module in self._state.modules.items():
            for name, parameter in module.named_parameters():
                yield f"parameter/{label}/{name}", parameter
            for name, buffer in module.named_buffers():
                yield f"buffer/{label}/{name}", buffer
        for index, optimizer in enumerate(self._state.optimizers):
            for where, entry in _optimizer_entries(optimizer):
                for key, value in entry.items():
                    if isinstance(value, Tensor):
                        yield f"optimizer/{index}/{where}/{key}", value

    def _put(self, key: str, kept: Tensor) -> None:
        """Restore a tensor whose live counterpart is gone or has another shape or dtype."""
        kept = kept.to(self._devices.get(key, kept.device), copy=True)
        kind, rest = key.split("/", 1)
        if kind == "optimizer":
            index, where, name = rest.split("/", 2)
            optimizer = self._state.optimizers[int(index)]
            entry = dict(_optimizer_entries(optimizer, create=True)).get(where)
            if entry is not None:
                entry[name] = kept
            return
        label, name = rest.split("/", 1)
        owner_name, _, attribute = name.rpartition(".")
        owner = self._state.modules[label].get_submodule(owner_name)
        if kind == "buffer":
            owner._buffers[attribute] = kept
        else:
            getattr(owner, attribute).data = kept

    def _restore_plain_optimizer(self, index: int, optimizer: Optimizer) -> None:
        for group, saved in zip(optimizer.param_groups, self._plain["groups"][index], strict=False):
            group.update(clone_tree(saved))
        saved_states = self._plain["states"][index]
        for where, entry in list(_optimizer_entries(optimizer, groups=False)):
            saved = saved_states.get(where)
            if saved is None:  # it did not exist yet when the snapshot was taken
                del optimizer.state[_parameter_at(optimizer, where)]
                continue
            kept = {key.rsplit("/", 1)[1] for key in self._copies if key.startswith(f"optimizer/{index}/{where}/")}
            for key in [key for key in entry if key not in saved and key not in kept]:
                del entry[key]
            entry.update(clone_tree(saved))


def original(saved: dict[str, Any], key: str) -> Tensor:
    """A copy of one of a snapshot's tensors, on the device that the original was on.

    Args:
        saved: The snapshot's ``state_dict()``.
        key: Of the tensor.
    """
    kept: Tensor = saved["tensors"][key]
    return kept.to(saved["devices"].get(key, kept.device), copy=True)


def restore_scaler(scaler: Any, state: dict[str, Any]) -> None:
    """Put a gradient scaler back in place; its lazily created tensors are kept.

    Args:
        scaler: A ``torch.amp.GradScaler``.
        state: Its ``state_dict()`` from before; empty if it is disabled.
    """
    if not state:
        return
    scaler.load_state_dict(state)
    if isinstance(scaler._scale, Tensor):
        scaler._scale.fill_(state["scale"])
    if isinstance(scaler._growth_tracker, Tensor):
        scaler._growth_tracker.fill_(state["_growth_tracker"])


def clone_tree(value: Any) -> Any:
    """A copy that shares nothing with the original: tensors cloned, containers rebuilt, the rest deep-copied."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: clone_tree(item) for key, item in value.items()}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(clone_tree(item) for item in value)
    return copy.deepcopy(value)


def _optimizer_entries(
    optimizer: Optimizer, *, groups: bool = True, create: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Group options and per-parameter states of an optimizer under stable names."""
    for g, group in enumerate(optimizer.param_groups):
        if groups:
            yield f"group{g}", group
        for p, parameter in enumerate(group["params"]):
            if create or parameter in optimizer.state:
                yield f"{g}.{p}", optimizer.state[parameter]


def _parameter_at(optimizer: Optimizer, where: str) -> Tensor:
    group, position = where.split(".")
    return optimizer.param_groups[int(group)]["params"][int(position)]


def _plain_optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    return {where: _without_tensors(entry, skip=()) for where, entry in _optimizer_entries(optimizer, groups=False)}


def _without_tensors(entry: dict[str, Any], skip: tuple[str, ...]) -> dict[str, Any]:
    return {key: clone_tree(value) for key, value in entry.items() if key not in skip and not isinstance(value, Tensor)}


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


@torch.no_grad()
def copy_pairs(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Copy the second into the first of each pair, in as few kernels as possible."""
    for targets, sources in grouped(pairs):
        if targets[0].device == sources[0].device:
            torch._foreach_copy_(targets, sources)
        else:
            for target, source in zip(targets, sources, strict=True):
                target.copy_(source)


def grouped(pairs: Iterable[tuple[Tensor, Tensor]]) -> list[tuple[list[Tensor], list[Tensor]]]:
    """Targets and sources by devices and dtype, as the fused copy wants them."""
    groups: dict[tuple[Any, ...], tuple[list[Tensor], list[Tensor]]] = {}
    for target, source in pairs:
        lists = groups.setdefault((target.device, source.device, target.dtype), ([], []))
        lists[0].append(target)
        lists[1].append(source)
    return list(groups.values())
