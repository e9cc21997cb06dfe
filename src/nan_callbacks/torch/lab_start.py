"""States that a trial begins with: the last good snapshot, fresh weights, another precision."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from nan_callbacks.torch.lab_state import parameters_of
from nan_callbacks.torch.snapshot import clone_tree, original


@torch.no_grad()
def begin_with_snapshot(
    saved: dict[str, Any], module: nn.Module, optimizers: Sequence[Optimizer], *, weights_alone: bool = False
) -> None:
    """Fill the stand-ins from a snapshot's ``state_dict()``; what it does not hold stays as it is.

    So does the learning rate: the run will come to the present one again, and it may be what is under suspicion.

    Args:
        saved: The snapshot, which is not changed. Its module is called ``model``.
        module: The module.
        optimizers: Its optimizers.
        weights_alone: Whether only parameters are filled.
    """
    tensors: dict[str, Tensor] = saved["tensors"]
    for name, parameter in module.named_parameters():
        kept = tensors.get(f"parameter/model/{name}")
        if kept is not None and (parameter.requires_grad or not weights_alone):
            parameter.data = kept.to(parameter.device, copy=True)
    if weights_alone:
        return
    for path, owner in module.named_modules():
        for name in owner._buffers:
            key = f"buffer/model/{path}.{name}" if path else f"buffer/model/{name}"
            if key in tensors:
                owner._buffers[name] = original(saved, key)
    for index, optimizer in enumerate(optimizers):
        _optimizer_of_snapshot(saved, index, optimizer)


def _optimizer_of_snapshot(saved: dict[str, Any], index: int, optimizer: Any) -> None:
    prefix = f"optimizer/{index}/"
    plain = saved["plain"]["states"][index]
    state: Any = defaultdict(dict)
    for g, group in enumerate(optimizer.param_groups):
        if g < len(saved["plain"]["groups"][index]):
            kept = clone_tree(saved["plain"]["groups"][index][g])
            group.update({name: value for name, value in kept.items() if name != "lr"})
        for p, parameter in enumerate(group["params"]):
            if f"{g}.{p}" in plain:
                state[parameter].update(clone_tree(plain[f"{g}.{p}"]))
    for key in saved["tensors"]:
        if not key.startswith(prefix):
            continue
        where, name = key[len(prefix) :].split("/", 1)
        if where.startswith("group"):
            if name != "lr":
                optimizer.param_groups[int(where[5:])][name] = original(saved, key)
        else:
            g, p = where.split(".")
            state[optimizer.param_groups[int(g)]["params"][int(p)]][name] = original(saved, key)
    optimizer.state.clear()
    optimizer.state.update(state)


@torch.no_grad()
def begin_afresh(module: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Newly drawn weights and empty optimizers.

    Layers of torch draw their own (``reset_parameters``). A parameter of the user's own classes, whose scale may be
    what is under suspicion, is drawn from a normal distribution with variance 2 / (fan-in + fan-out) (Glorot and
    Bengio 2010), which does not depend on which dimension is which; a vector is 1 if it is called a weight or a scale,
    0 otherwise.

    Args:
        module: The module, whose tensors are stand-ins.
        optimizers: Its optimizers.
    """
    drawn: set[int] = set()
    for owner in module.modules():
        reset = getattr(type(owner), "reset_parameters", None)
        if reset is not None and getattr(reset, "__module__", "").startswith("torch.") and not _is_parametrized(owner):
            reset(owner)
            drawn.update(id(parameter) for parameter in owner.parameters(recurse=False))
    for name, parameter in module.named_parameters():
        if id(parameter) not in drawn and parameter.is_floating_point():
            _draw(name, parameter)
    for optimizer in optimizers:
        optimizer.state.clear()


def _is_parametrized(owner: nn.Module) -> bool:
    return hasattr(owner, "parametrizations")


def _draw(name: str, parameter: Tensor) -> None:
    if parameter.dim() >= 2:
        field = parameter[0, 0].numel() if parameter.dim() > 2 else 1
        fans = (parameter.shape[0] + parameter.shape[1]) * field
        parameter.normal_(0.0, math.sqrt(2.0 / max(fans, 1)))
    else:
        last = name.rpartition(".")[2]
        parameter.fill_(1.0 if any(word in last for word in ("weight", "scale", "gamma", "original0")) else 0.0)


@torch.no_grad()
def cast_state(dtype: torch.dtype, module: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Bring parameters, buffers and optimizer states of real floating dtype to another one.

    Args:
        dtype: The dtype.
        module: The module, whose tensors are stand-ins.
        optimizers: Its optimizers.
    """
    for parameter in parameters_of(module, optimizers):
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    for owner in module.modules():
        for name, buffer in list(owner._buffers.items()):
            if buffer is not None and buffer.is_floating_point():
                owner._buffers[name] = buffer.to(dtype)
    for optimizer in optimizers:
        for entry in optimizer.state.values():
            for name, value in entry.items() if isinstance(entry, dict) else ():
                entry[name] = _cast(value, dtype)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Moments and the like; counts of steps (shape []) stay as they are."""
    if isinstance(value, list):
        return [_cast(item, dtype) for item in value]
    is_moment = isinstance(value, Tensor) and value.is_floating_point() and value.dim()
    return value.to(dtype) if is_moment else value


NARROWING = ("half", "bfloat16", "float")
"""Methods of tensors that name a dtype."""


class Widened(TorchFunctionMode):
    """Conversions that the model writes out by hand (``x.half()``, ``x.to(torch.float16)``) go to a trial's dtype.

    Args:
        dtype: The dtype of the trial.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace real floating dtypes among the arguments."""
        if getattr(func, "__name__", "") in NARROWING and args and isinstance(args[0], Tensor):
            return args[0].to(self._dtype)
        widened = {key: self._widen(value) for key, value in (kwargs or {}).items()}
        return func(*(self._widen(value) for value in args), **widened)

    def _widen(self, value: Any) -> Any:
        return self._dtype if isinstance(value, torch.dtype) and value.is_floating_point else value
