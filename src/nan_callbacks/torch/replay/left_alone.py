"""What a replay touches and puts back: gradients, gradient hooks of parameters, random streams."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from nan_callbacks.torch.rng import RngState


@contextlib.contextmanager
def random_streams() -> Iterator[None]:
    """Random streams go on as if nothing had been drawn inside."""
    state = RngState()
    try:
        yield
    finally:
        state.restore()


@contextlib.contextmanager
def gradients(parameters: Iterable[Tensor], *, copies: bool) -> Iterator[None]:
    """Whatever is written to ``p.grad`` inside is gone afterwards, and no hook acts on accumulated gradients.

    Args:
        parameters: Whose gradients.
        copies: Begin with copies of the gradients as they are (accumulation over several batches) rather than without.
    """
    kept = [(p, p.grad, _post_hooks(p)) for p in parameters if p.is_leaf]
    silenced = [] if copies else [(hooks, dict(hooks)) for _, _, hooks in kept if hooks]
    try:
        for parameter, grad, _ in kept:
            parameter.grad = grad.clone() if copies and grad is not None else None
        for hooks, _ in silenced:
            hooks.clear()  # autograd holds this very dictionary, so it is emptied rather than replaced
        yield
    finally:
        for hooks, entries in silenced:
            hooks.update(entries)
        for parameter, grad, _ in kept:
            parameter.grad = grad


def _post_hooks(parameter: Tensor) -> dict[Any, Any]:
    return getattr(parameter, "_post_accumulate_grad_hooks", None) or {}


@contextlib.contextmanager
def watched_backward(watch: Callable[[Tensor], None]) -> Iterator[None]:
    """Show each tensor that ``backward`` is called on, before it is."""
    original = torch.autograd.backward

    def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        for tensor in [tensors] if isinstance(tensors, Tensor) else list(tensors):
            watch(tensor)
        return original(tensors, *args, **kwargs)

    torch.autograd.backward = backward
    try:
        yield
    finally:
        torch.autograd.backward = original


@contextlib.contextmanager
def run_eagerly() -> Iterator[None]:
    """Inside, compiled modules run as they were written, and nothing is compiled.

    Without torch's compiler in memory nothing can have been compiled, and importing it would take seconds.
    """
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        yield
        return
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        # Compiled modules warn of our hooks on all modules; whoever trains can do nothing about them.
        warnings.filterwarnings("ignore", message="Using `torch.compile")
        yield
