"""What belongs to a metric: it tells how well a model does, and nothing is learned from it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from nan_callbacks.torch.call_kinds import ancestors
from nan_callbacks.torch.recorder import Call, Recorder

LIBRARY = "torchmetrics"


def is_metric(module: nn.Module) -> bool:
    """Whether a module is a metric of torchmetrics, or of a user's class that is made of one."""
    return any(_is_of_library(base.__module__) for base in type(module).__mro__)


def told_only(recorder: Recorder, module: nn.Module, loss: Tensor | None) -> set[int]:
    """``id`` of the calls by which metrics tell how well the model does: the loss is not made of them.

    Args:
        recorder: The recorded step.
        module: The module.
        loss: What the step returned.
    """
    maker = None if loss is None else recorder.maker(loss)
    if loss is None or maker is None:  # a loss that was made unseen may be made of anything
        return set()
    inside = _metric_paths(module)
    of_metrics = [call for call in recorder.calls if call.module in inside or _is_of_library(call.caller)]
    if not of_metrics:
        return set()
    needed = {id(call) for call in ancestors([maker], lambda _: False)}
    graph = _graph_of(loss)  # the record knows of no tensor that was written into another
    return {id(call) for call in of_metrics if id(call) not in needed and not _is_part(call, graph)}


def _is_of_library(name: str) -> bool:
    return name.partition(".")[0] == LIBRARY


def _metric_paths(module: nn.Module) -> frozenset[str]:
    metrics = [(path, each) for path, each in module.named_modules() if is_metric(each)]
    return frozenset(path for outer, each in metrics for path, _ in each.named_modules(prefix=outer))


def _graph_of(loss: Tensor) -> set[Any]:
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return seen


def _is_part(call: Call, graph: Collection[Any]) -> bool:
    return any(each.grad_fn is not None and each.grad_fn in graph for each in call.results)
