"""The gate: an update that must not happen loses its gradients. A selection, never a multiplication by zero."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import update_wrapper, wraps
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
    their averages by such a count). So they are not to go on at all, unless they have begun: who moves the weights in
    order to evaluate a loss (sharpness-aware minimisation) must move them back.
    """

    def __init__(self) -> None:
        self._inside: dict[int, _Begun] = {}
        self._withheld: set[int] = set()

    def wrap(self, optimizer: Optimizer) -> Callable[..., Any]:
        """What takes the place of ``optimizer.step``."""
        found = optimizer.step
        step = getattr(found, "__func__", None) or (lambda _, *args, **kwargs: found(*args, **kwargs))

        def step_unless_withheld(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
            if id(self) in steps._withheld:
                steps._withheld.discard(id(self))
                return None
            begun = steps._inside[id(self)] = _Begun(self)
            arguments = [begun.counting(each) for each in args]
            named = {name: begun.counting(each) for name, each in kwargs.items()}
            try:
                return step(self, *arguments, **named)
            except StepWithheld:
                return None
            finally:
                steps._inside.pop(id(self), None)

        steps = self
        update_wrapper(step_unless_withheld, found)
        del step_unless_withheld.__wrapped__  # type: ignore[attr-defined]
        with suppress(ValueError, TypeError):
            first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
            given = inspect.signature(found)
            step_unless_withheld.__signature__ = given.replace(  # type: ignore[attr-defined]
                parameters=[first, *given.parameters.values()]
            )
        return MethodType(step_unless_withheld, optimizer)  # a method, as torch's schedulers expect

    def forget(self) -> None:
        """No step is coming that is withheld: a gradient scaler may have left the last one out by itself."""
        self._withheld.clear()

    def withhold(self, optimizer: Optimizer) -> None:
        """Leave the step that a wrapped optimizer is in, at its closure; or let its coming step be none."""
        begun = self._inside.get(id(optimizer))
        if begun is None:
            self._withheld.add(id(optimizer))
        elif not begun.has_done_anything:
            raise StepWithheld


class _Begun:
    """A step that an optimizer is in."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._parameters = optimizer_parameters(optimizer)
        self._versions = [parameter._version for parameter in self._parameters]
        self._evaluations = 0

    def counting(self, argument: Any) -> Any:
        """A closure that counts its calls in place of one; anything else as it is."""
        if not callable(argument):
            return argument

        @wraps(argument)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._evaluations += 1
            return argument(*args, **kwargs)

        return counted

    @property
    def has_done_anything(self) -> bool:
        """Whether it has moved weights, or evaluated the loss before."""
        moved = any(p._version != seen for p, seen in zip(self._parameters, self._versions, strict=True))
        return moved or self._evaluations > 1


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
