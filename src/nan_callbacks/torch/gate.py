"""The gate: an update that must not happen loses its gradients. A selection, never a multiplication by zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def optimizer_parameters(optimizer: Optimizer) -> list[Tensor]:
    """All parameters of an optimizer, in order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def has_gradients(optimizer: Optimizer) -> bool:
    """Whether any parameter of an optimizer has a gradient."""
    return any(parameter.grad is not None for group in optimizer.param_groups for parameter in group["params"])


def drop_gradients(optimizer: Optimizer) -> None:
    """Make the coming ``optimizer.step()`` change nothing.

    Every torch optimizer passes over parameters without a gradient: weights, moments and step counts stay, and
    neither momentum nor weight decay acts. Zeroed gradients would let all of them act.

    Args:
        optimizer: The optimizer about to step.
    """
    for parameter in optimizer_parameters(optimizer):
        parameter.grad = None


def is_of_torch(optimizer: Optimizer) -> bool:
    """Whether an optimizer is one of torch's own, which all pass over parameters without a gradient."""
    return type(optimizer).__module__.split(".")[0] == "torch"


def withhold_step(optimizer: Optimizer) -> Callable[[], None]:
    """Make the coming ``step()`` of any other optimizer change nothing, whatever it thinks of a missing gradient.

    It may fail for want of a gradient, or count the step all the same (schedule-free optimizers weight their averages
    by such a count). So it is shown no parameters this once, and its counters are put back.

    Args:
        optimizer: The optimizer about to step, or within its step.

    Returns:
        Undoes it, once; to be called if the step never comes to its end. The end of the step does it as well.
    """
    groups = [(group, group["params"], _numbers(group)) for group in optimizer.param_groups]
    own, shared = _numbers(vars(optimizer)), {k: v for k, v in optimizer.state.items() if not isinstance(k, Tensor)}
    shared_numbers = {key: _numbers(value) for key, value in shared.items() if isinstance(value, dict)}
    for group in optimizer.param_groups:
        group["params"] = []
    handles: list[Any] = []
    done = False

    def undo(*_: Any) -> None:
        nonlocal done
        if done:
            return
        done = True
        for handle in handles:
            handle.remove()
        for group, parameters, numbers in groups:
            group["params"] = parameters
            _put_back(group, numbers)
        vars(optimizer).update(own)
        for key in [key for key in optimizer.state if not isinstance(key, Tensor) and key not in shared]:
            del optimizer.state[key]
        optimizer.state.update(shared)
        for key, numbers in shared_numbers.items():
            _put_back(shared[key], numbers)

    if hasattr(optimizer, "_optimizer_step_post_hooks"):  # not if it was made without `Optimizer.__init__`
        handles.append(optimizer.register_step_post_hook(undo))
    return undo


def _numbers(values: dict[Any, Any]) -> dict[Any, Any]:
    """The counters among some values; what torch's schedulers note about a step being called is none."""
    return {
        key: value.clone() if isinstance(value, Tensor) else value
        for key, value in values.items()
        if key != "_opt_called" and (isinstance(value, int | float) or (isinstance(value, Tensor) and value.dim() == 0))
    }


@torch.no_grad()
def _put_back(values: dict[Any, Any], numbers: dict[Any, Any]) -> None:
    for key in [key for key in _numbers(values) if key not in numbers]:
        del values[key]
    for key, number in numbers.items():
        if isinstance(number, Tensor) and isinstance(values.get(key), Tensor):
            values[key].copy_(number)
        else:
            values[key] = number


def drop_gradients_inside_step(optimizer: Optimizer) -> None:
    """The same for an optimizer that a gradient scaler steps and that unscales by itself (fused).

    The scaler insists on gradients for its own overflow check, so they are dropped between that check and the update.

    Args:
        optimizer: The optimizer about to be stepped by ``GradScaler.step``.
    """

    def drop_once(stepped: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        handle.remove()
        drop_gradients(stepped)

    handle = optimizer.register_step_pre_hook(drop_once)
