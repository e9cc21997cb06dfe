"""Trials run on copies that stand in for the run's own tensors; afterwards the originals come back, never touched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nan_callbacks.torch.gate import optimizer_parameters
from nan_callbacks.torch.lab_attributes import Attributes
from nan_callbacks.torch.rng import RngState
from nan_callbacks.torch.snapshot import clone_tree

HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
"""Other people's hooks on an optimizer's step, which must not see the steps of a trial."""

REGISTERED = ("_parameters", "_buffers")
OF_OPTIMIZERS = ("state", "param_groups", *HOOKS)


def parameters_of(module: nn.Module, optimizers: Sequence[Optimizer]) -> list[nn.Parameter]:
    """All parameters of a module and of its optimizers, each once, in order."""
    found: dict[int, Any] = {id(parameter): parameter for parameter in module.parameters()}
    for optimizer in optimizers:
        found.update({id(parameter): parameter for parameter in optimizer_parameters(optimizer)})
    return list(found.values())


@contextmanager
def stand_ins(module: nn.Module, optimizers: Sequence[Optimizer], objects: Sequence[Any] = ()) -> Iterator[None]:
    """Within this context every change to the training state is a change to a copy.

    Parameters get copied data, buffers copied tensors, optimizers copied states and groups; gradients are empty.
    Afterwards the original tensors are put back as objects, so that nothing depends on a copy being exact. What a
    step changes on Python attributes, and where the random streams are, is put back as well.

    Args:
        module: The module.
        optimizers: Its optimizers, empty if there are none.
        objects: Further objects whose attributes are put back.
    """
    parameters = parameters_of(module, optimizers)
    modules = list(module.modules())
    kept_parameters = [(p, p.data, p.grad, p.requires_grad) for p in parameters]
    attributes = Attributes([*modules, *objects], skip=REGISTERED)
    every = with_inner(optimizers)
    own = Attributes(every, skip=OF_OPTIMIZERS)
    kept_optimizers = [_Kept(optimizer) for optimizer in every]
    streams = RngState()
    try:
        _copy_parameters(parameters)
        for kept in kept_optimizers:
            kept.replace()
        with buffer_stand_ins(modules):
            yield
    finally:
        for kept in kept_optimizers:
            kept.put_back()
        for parameter, data, gradient, requires_grad in kept_parameters:
            parameter.grad = None  # a gradient must fit its parameter, so it goes before the data change
            parameter.data = data
            parameter.grad = gradient
            parameter.requires_grad_(requires_grad)
        own.restore()
        attributes.restore()
        streams.restore()


def with_inner(optimizers: Sequence[Optimizer]) -> list[Optimizer]:
    """Optimizers and those that they hold and step, such as the one that a lookahead is put around; each once."""
    found: list[Optimizer] = []
    for each in optimizers:
        held = [value for value in vars(each).values() if isinstance(value, Optimizer)]
        found += [other for other in (each, *with_inner(held)) if not any(other is known for known in found)]
    return found


@contextmanager
def buffer_stand_ins(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Within this context every change to the buffers of some modules is a change to a copy."""
    kept_buffers = [(owner._buffers, dict(owner._buffers)) for owner in modules]
    try:
        _copy_buffers(modules)
        yield
    finally:
        for buffers, before in kept_buffers:
            buffers.clear()
            buffers.update(before)


@torch.no_grad()
def _copy_parameters(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None
        parameter.data = parameter.data.clone()


@torch.no_grad()
def _copy_buffers(modules: Sequence[nn.Module]) -> None:
    copies: dict[int, Tensor] = {}  # one copy for a tensor that is registered twice
    for owner in modules:
        for name, buffer in owner._buffers.items():
            if buffer is not None:
                copies.setdefault(id(buffer), buffer.detach().clone())
                owner._buffers[name] = copies[id(buffer)]


class _Kept:
    """One optimizer's own state, groups and hooks, while copies stand in for them."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._state = dict(optimizer.state)
        self._groups = [dict(group) for group in optimizer.param_groups]
        self._hooks = {name: vars(optimizer).get(name) for name in HOOKS}

    def replace(self) -> None:
        optimizer: Any = self._optimizer
        _fill(optimizer.state, {p: clone_tree(entry) for p, entry in self._state.items()})
        for group, saved in zip(optimizer.param_groups, self._groups, strict=True):
            group.update({name: clone_tree(value) for name, value in saved.items() if name != "params"})
            group["params"] = list(saved["params"])
        for name, hooks in self._hooks.items():
            if hooks:
                setattr(optimizer, name, type(hooks)())

    def put_back(self) -> None:
        optimizer: Any = self._optimizer
        _fill(optimizer.state, self._state)
        for group, saved in zip(optimizer.param_groups, self._groups, strict=False):
            group.clear()
            group.update(saved)
        for name, hooks in self._hooks.items():
            if hooks:
                setattr(optimizer, name, hooks)


def _fill(state: dict[Any, Any], entries: dict[Any, Any]) -> None:
    """In place: an optimizer around another one shows that one's state."""
    state.clear()
    state.update(entries)
