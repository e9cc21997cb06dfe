"""Manual optimisation in the laboratory: stand-ins for what a training step gets from its module."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from nan_callbacks.torch.lab_bench import Hands


class HandedOptimizer:
    """What ``self.optimizers()`` returns during a trial: the optimizer, whose step is the laboratory's.

    ``isinstance`` takes it for what stands there in the run.

    Args:
        optimizer: The optimizer.
        hands: The laboratory's.
        module: The module.
        original: What ``self.optimizers()`` returns outside of trials.
    """

    def __init__(self, optimizer: Optimizer, hands: Hands, module: Any, original: Any) -> None:
        self._optimizer, self._hands, self._module = optimizer, hands, module
        self._original = original

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._original)

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer itself."""
        return self._optimizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)

    def step(self, closure: Callable[[], Any] | None = None, **_: Any) -> Any:
        """Leave the step to the laboratory."""
        return self._hands.step(self._optimizer, closure)

    @contextlib.contextmanager
    def toggle_model(self, sync_grad: bool = True) -> Iterator[None]:
        """As Lightning's optimizers do it."""
        self._module.toggle_optimizer(self._optimizer)
        yield
        self._module.untoggle_optimizer(self._optimizer)


class HandedScheduler:
    """What ``self.lr_schedulers()`` returns during a trial: the scheduler, which does not step."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._scheduler)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def step(self, *_: Any, **__: Any) -> None:
        """Nothing: the schedule goes on with the run."""


@contextlib.contextmanager
def handed(
    module: Any, hands: Hands, optimizers: Sequence[Optimizer], schedulers: Sequence[Any] = ()
) -> Iterator[None]:
    """Within this context the module hands out stand-ins.

    Args:
        module: The module.
        hands: The laboratory's.
        optimizers: The module's optimizers.
        schedulers: Their schedulers.
    """
    handed_optimizers = [
        HandedOptimizer(optimizer, hands, module, original)
        for optimizer, original in zip(optimizers, _originals(module, optimizers), strict=True)
    ]
    handed_schedulers = [HandedScheduler(scheduler) for scheduler in schedulers]

    def backward(loss: Tensor, *_: Any, **options: Any) -> None:
        hands.backward(loss, **options)

    replaced: dict[str, Any] = {
        "optimizers": lambda use_pl_optimizer=True: _one_or_all(handed_optimizers),
        "lr_schedulers": lambda: _one_or_all(handed_schedulers) if schedulers else None,
        "manual_backward": backward,
    }
    attributes = vars(module)
    before = {name: attributes[name] for name in replaced if name in attributes}
    attributes.update(replaced)
    try:
        yield
    finally:
        for name in replaced:
            attributes.pop(name, None)
        attributes.update(before)


def _originals(module: Any, optimizers: Sequence[Optimizer]) -> list[Any]:
    """What the module hands out for its optimizers; they themselves outside of a fit."""
    handed_out: Any = None
    with contextlib.suppress(Exception):  # without a trainer Lightning raises
        handed_out = module.optimizers()
    found = handed_out if isinstance(handed_out, list) else [handed_out]
    return found if len(found) == len(optimizers) and None not in found else list(optimizers)


def _one_or_all(items: list[Any]) -> Any:
    return items[0] if len(items) == 1 else items
