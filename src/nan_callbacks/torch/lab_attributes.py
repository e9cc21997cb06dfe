"""What a step may change on Python objects beside tensors that are registered: counters, lists, metric states."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nan_callbacks.diagnosis.kept_arrays import KeptArrays
from nan_callbacks.torch.same_bits import same_bits

DEPTH = 4
"""Containers and plain objects within each other that are looked into: a dictionary of lists of meters is three."""

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)

FOREIGN = ("torch", "lightning", "pytorch_lightning", "lightning_fabric", "numpy", "builtins", "keras", "jax")
"""Top-level packages whose objects are kept by reference: their insides are no state of the user's step. Modules and
torchmetrics are looked into wherever they come from, because the caller names them."""


class Attributes:
    """The attributes of some objects as they are now, put back where they have changed.

    Containers are remembered with their contents, tensors with a copy, random generators with their state; so are the
    attributes of the users' own classes, where counters and lists live as well. What has not changed is not touched.

    Args:
        owners: Objects with a ``__dict__``, each of which is remembered.
        skip: Names of attributes that somebody else looks after.
    """

    def __init__(self, owners: Iterable[Any], skip: Iterable[str] = ()) -> None:
        self._skip = frozenset(skip)
        owners = list(owners)
        self._known = {id(owner) for owner in owners}
        self._seen: set[int] = set()
        self._objects: list[tuple[Any, dict[str, Any]]] = []
        self._classes: list[tuple[type, dict[str, Any]]] = []
        self._containers: list[tuple[Any, Any]] = []
        self._tensors: list[tuple[Tensor, Tensor, Tensor]] = []
        self._arrays = KeptArrays()
        self._generators: list[tuple[Any, Any]] = []
        for owner in owners:
            self._remember_object(owner, DEPTH)

    def restore(self) -> None:
        """Put everything back."""
        for owner, attributes in self._objects:
            present = vars(owner)
            for name in [name for name in present if name not in attributes and name not in self._skip]:
                del present[name]
            for name, value in attributes.items():
                if name not in present or present[name] is not value:
                    present[name] = value
        for kind, attributes in self._classes:
            present = _class_attributes(kind)
            for name in present.keys() - attributes.keys():
                delattr(kind, name)
            for name, value in attributes.items():
                if name not in present or present[name] is not value:
                    setattr(kind, name, value)
        for container, contents in self._containers:
            if not _same(container, contents):
                _refill(container, contents)
        with torch.no_grad():
            for tensor, alias, kept in self._tensors:
                if tensor.data_ptr() != alias.data_ptr() or tensor.shape != alias.shape:
                    tensor.data = alias
                if not same_bits(alias, kept):
                    alias.copy_(kept)
        self._arrays.restore()
        for generator, state in self._generators:
            _set_state(generator, state)

    def _remember_object(self, owner: Any, depth: int) -> None:
        if id(owner) in self._seen:
            return
        self._seen.add(id(owner))
        attributes = {name: value for name, value in vars(owner).items() if name not in self._skip}
        self._objects.append((owner, attributes))
        for value in attributes.values():
            self._remember(value, depth)
        for kind in type(owner).__mro__:
            if id(kind) not in self._seen and kind.__module__.partition(".")[0] not in FOREIGN:
                self._seen.add(id(kind))
                self._classes.append((kind, _class_attributes(kind)))
                for value in self._classes[-1][1].values():
                    self._remember(value, depth)

    def _remember(self, value: Any, depth: int) -> None:
        known = value is None or isinstance(value, str | bytes | int | float | type) or id(value) in self._known
        if depth == 0 or known:
            return
        if isinstance(value, torch.nn.Module):
            self._remember_hidden(value)
        elif isinstance(value, Tensor):
            self._remember_tensor(value)
        elif isinstance(value, list | dict | set | deque | tuple):
            self._remember_container(value, depth)
        elif isinstance(value, np.ndarray):
            self._arrays.keep(value)
        elif isinstance(value, GENERATORS):
            self._generators.append((value, _get_state(value)))
        elif hasattr(value, "__dict__") and not callable(value) and _is_the_users(value):
            self._remember_object(value, depth - 1)

    def _remember_hidden(self, module: torch.nn.Module) -> None:
        """A module that is not registered, such as a teacher in a list, or a metric in a plain dictionary."""
        for each in module.modules():
            if id(each) not in self._seen and id(each) not in self._known:
                self._remember_object(each, DEPTH)
                for tensor in (*each._parameters.values(), *each._buffers.values()):
                    if tensor is not None:
                        self._remember_tensor(tensor, hidden=True)

    def _remember_tensor(self, tensor: Tensor, *, hidden: bool = False) -> None:
        # A parameter is a leaf that requires a gradient: somebody else's, unless a module that is hidden holds it.
        # What has a graph is not written in place.
        ours = hidden or not tensor.requires_grad
        plain = tensor.layout is torch.strided and ours and tensor.device.type != "meta"
        if plain and id(tensor) not in self._seen:
            self._seen.add(id(tensor))
            self._tensors.append((tensor, tensor.detach(), tensor.detach().clone()))

    def _remember_container(self, value: Any, depth: int) -> None:
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        if not isinstance(value, tuple):
            self._containers.append((value, _contents(value)))
        for item in value.values() if isinstance(value, dict) else list(value):
            self._remember(item, depth - 1)


def _is_the_users(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] not in FOREIGN


def _class_attributes(kind: type) -> dict[str, Any]:
    """The data of a class itself: neither methods and other descriptors, nor what Python keeps there."""
    return {n: v for n, v in vars(kind).items() if not n.startswith("__") and not hasattr(v, "__get__")}


def _contents(container: Any) -> Any:
    if isinstance(container, dict):
        return dict(container)
    return set(container) if isinstance(container, set) else list(container)


def _same(container: Any, contents: Any) -> bool:
    if len(container) != len(contents):
        return False
    if isinstance(container, dict):
        return all(key in container and container[key] is value for key, value in contents.items())
    if isinstance(container, set):
        return bool(container == contents)
    return all(one is other for one, other in zip(container, contents, strict=True))


def _refill(container: Any, contents: Any) -> None:
    container.clear()
    if isinstance(container, dict | set):
        container.update(contents)
    else:
        container.extend(contents)


def _get_state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.RandomState):
        return generator.get_state()
    return generator.bit_generator.state if isinstance(generator, np.random.Generator) else generator.getstate()


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator | np.random.RandomState):
        generator.set_state(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.setstate(state)
