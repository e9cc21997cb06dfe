"""What an adapter hands to the torch laboratory: the step as its framework runs it, and how to keep it quiet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from nan_callbacks.torch.rng import RngState


@dataclass(frozen=True)
class Fed:
    """One batch as the training step received it."""

    batch: Any
    index: int = 0
    """Of the batch within its epoch: a training step may look at it."""


Window = tuple[Fed, ...]
"""The batches of one optimizer step: one, or as many as are accumulated."""


class Hands(Protocol):
    """What a step that does its own backward passes and updates calls instead of the framework."""

    def backward(self, loss: Tensor, **options: Any) -> None:
        """In place of ``loss.backward()``."""

    def step(self, optimizer: Optimizer, closure: Callable[[], Any] | None = None) -> Any:
        """In place of ``optimizer.step()``."""


@dataclass
class Bench:
    """One incident as the torch laboratory needs it."""

    module: nn.Module
    failed: Window
    loss_of: Callable[[Fed], Tensor | None]
    """Runs the forward pass and returns the raw loss, shape []; None if the step has none for this batch. Not called
    if there is :attr:`by_hand`."""
    by_hand: Callable[[Fed, Hands], Any] | None = None
    """Runs a step that differentiates and updates by itself; None if the framework does that."""
    optimizers: Sequence[Optimizer] = ()
    recent: Sequence[Window] = ()
    """Windows of accepted steps, oldest first."""
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext
    """The run's own precision, such as autocast."""
    surroundings: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Mutes logs, metrics and callbacks."""
    inside: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Entered after the stand-ins are in place: what it changes on modules is put back with them."""
    clip: Callable[[Optimizer], None] = field(default=lambda optimizer: None)
    """The run's own gradient clipping."""
    loss_scale: float = 1.0
    trusted: Callable[[], dict[str, Any] | None] = field(default=lambda: None)
    """``state_dict()`` of the last known-good snapshot, whose module is called ``model``; None without one."""
    random_streams: RngState | None = None
    """Where the streams were when the failed step began; None: where they are."""
    objects: Sequence[Any] = ()
    """Objects other than modules whose attributes a step may change."""
    may_call_backward: bool = True
    """False where ``loss.backward()`` would wait for other processes."""
