"""The gate: an update that must not happen loses its gradients. A selection, never a multiplication by zero."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def optimizer_parameters(optimizer: Optimizer) -> list[Tensor]:
    """All parameters of an optimizer, in order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def learning_rates(optimizer: Optimizer) -> tuple[float, ...]:
    """The rate of every group that has one: some optimizers find theirs by themselves."""
    return tuple(float(group["lr"]) for group in optimizer.param_groups if group.get("lr") is not None)


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


class StepWithheld(BaseException):
    """Leaves the step of an optimizer from within its closure; no error, and none of what catches errors' business."""


class WithheldSteps:
    """Lets the ``step()`` of other optimizers than torch's own be left before it has done anything.

    One of them may fail for want of a gradient, another counts the step all the same (schedule-free optimizers weight
    their averages by such a count). So they are not to go on at all.
    """

    def __init__(self) -> None:
        self._inside: set[int] = set()
        self._withheld: set[int] = set()

    def wrap(self, optimizer: Optimizer) -> Callable[..., Any]:
        """What takes the place of ``optimizer.step``."""
        step, key = optimizer.step, id(optimizer)

        @wraps(step)
        def step_unless_withheld(_: Optimizer, *args: Any, **kwargs: Any) -> Any:
            if key in self._withheld:
                self._withheld.discard(key)
                return None
            self._inside.add(key)
            try:
                return step(*args, **kwargs)
            except StepWithheld:
                return None
            finally:
                self._inside.discard(key)

        return MethodType(step_unless_withheld, optimizer)  # a method, as torch's schedulers expect

    def forget(self, optimizer: Optimizer) -> None:
        """Another step is coming; a gradient scaler may have left the last one out by itself."""
        self._withheld.discard(id(optimizer))

    def withhold(self, optimizer: Optimizer) -> None:
        """Leave the step that a wrapped optimizer is in, at its closure; or let its coming step be none."""
        if id(optimizer) in self._inside:
            raise StepWithheld
        self._withheld.add(id(optimizer))


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
