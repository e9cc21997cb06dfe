"""Differentiating, clipping and updating in the laboratory, and taking down the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from nan_callbacks.torch.gate import optimizer_parameters
from nan_callbacks.torch.lab_bench import Bench
from nan_callbacks.torch.measure import measure


class Unsupported(Exception):  # noqa: N818 - a trial that cannot be made is no error
    """This trial cannot be made here; the message says why."""


class ModelRaised(Exception):  # noqa: N818
    """Carries what the user's code raised out of a trial."""


@contextmanager
def models_fault() -> Iterator[None]:
    """Exceptions in here are the model's, a result of the trial; others are ours."""
    try:
        yield
    except (Unsupported, torch.OutOfMemoryError, ModelRaised):
        raise
    except Exception as error:
        raise ModelRaised from error


@dataclass
class Outcome:
    """The numbers of a trial as they come."""

    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    parameters_finite: bool = True
    statistics_jump: float | None = None

    @property
    def is_broken(self) -> bool:
        """Whether a loss or a norm was non-finite."""
        return not all(map(math.isfinite, (*self.losses, *self.grad_norms)))


class StandInHands:
    """Implements :class:`nan_callbacks.torch.lab_bench.Hands`, and serves steps that the framework drives as well.

    Args:
        bench: The incident.
        outcome: Where numbers are taken down.
        update: Whether optimizers step.
        clip_norm: Global norm that gradients are clipped to before an update, besides the run's own clipping.
        traced: Whether a tracer is watching, which wants plain backward passes.
    """

    def __init__(
        self,
        bench: Bench,
        outcome: Outcome,
        *,
        update: bool = False,
        clip_norm: float | None = None,
        traced: bool = False,
    ) -> None:
        self._bench, self._outcome = bench, outcome
        self._update, self._clip_norm, self._traced = update, clip_norm, traced
        self._losses: list[float] = []
        self._norms: list[float] = []

    @property
    def losses(self) -> list[float]:
        """Raw losses differentiated so far."""
        return self._losses

    def backward(self, loss: Tensor, **options: Any) -> None:
        """Add the gradients of a raw loss to ``p.grad``."""
        self._losses.append(float(loss.detach()))
        scaled = loss * self._bench.loss_scale if self._bench.loss_scale != 1.0 else loss
        if self._traced:
            scaled.backward(**options)
        else:
            self.differentiate(scaled, **options)

    def differentiate(self, loss: Tensor, **options: Any) -> None:
        """Add the gradients of a loss to ``p.grad`` without any of the hooks that wait for other processes."""
        parameters = [parameter for parameter in self._bench.module.parameters() if parameter.requires_grad]
        if not parameters and loss.requires_grad:
            return  # what the loss depends on is no parameter of the module, and has no place in a trial
        keep = bool(options.get("retain_graph") or options.get("create_graph"))
        seed = options.get("gradient")
        gradients = torch.autograd.grad(loss, parameters, seed, retain_graph=keep, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def unscale(self) -> None:
        """Take the loss scale off the gradients."""
        if self._bench.loss_scale != 1.0:
            for parameter in self._bench.module.parameters():
                if parameter.grad is not None:
                    parameter.grad = parameter.grad / self._bench.loss_scale

    def step(self, optimizer: Optimizer, closure: Callable[[], Any] | None = None) -> Any:
        """One update of a step by hand; a closure differentiates first."""
        result = closure() if closure is not None else None
        self._norms.append(self._ready(optimizer))
        if self._update:
            self._apply(optimizer, closure, clip=False)
        return result

    def end_of_step(self) -> None:
        """Take down one loss and one norm for a step by hand: the worst of its optimizers'."""
        if self._losses:
            self._outcome.losses.append(_worst(self._losses))
        if not self._norms and self._losses:  # no optimizer stepped with this batch
            self._norms.append(self._ready(None))
        if self._norms:
            self._outcome.grad_norms.append(_worst(self._norms))

    def finish(self, optimizer: Optimizer | None, closure: Callable[[], Any]) -> None:
        """One update of a step whose gradients are there.

        Args:
            optimizer: Steps, if updates are asked for; None: only the norm is taken down.
            closure: Differentiates anew, for optimizers that evaluate several times.
        """
        self._outcome.grad_norms.append(self._ready(optimizer))
        if self._update and optimizer is not None:
            self._apply(optimizer, closure, clip=True)

    def _ready(self, optimizer: Optimizer | None) -> float:
        self.unscale()
        parameters = self._bench.module.parameters() if optimizer is None else optimizer_parameters(optimizer)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = measure(gradients, loss=None).grad_norm
        return 0.0 if norm is None else norm

    def _apply(self, optimizer: Optimizer, closure: Callable[[], Any] | None, *, clip: bool) -> None:
        with models_fault():
            if clip:
                self._bench.clip(optimizer)
            if self._clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(optimizer_parameters(optimizer), self._clip_norm)
            if isinstance(optimizer, LBFGS) and closure is not None:
                optimizer.step(closure)
            else:
                optimizer.step()


def _worst(values: list[float]) -> float:
    return next((value for value in values if not math.isfinite(value)), max(values))
