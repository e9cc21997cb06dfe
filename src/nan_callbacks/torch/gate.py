"""The gate: an update that must not happen loses its gradients. A selection, never a multiplication by zero."""

from __future__ import annotations

from typing import Any

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
