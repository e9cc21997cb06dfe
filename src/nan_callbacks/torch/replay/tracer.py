"""The tracer: every tensor operation of a step, with its module, its source line and its part of the step.

It judges nothing. Whoever wants to know something of each operation gives it an observer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from nan_callbacks.diagnosis.origin import Phase
from nan_callbacks.torch.replay.call_sites import Place, current_place
from nan_callbacks.torch.replay.forward_records import ForwardRecord, ForwardRecords
from nan_callbacks.torch.replay.module_paths import ModulePaths
from nan_callbacks.torch.replay.op_facts import OpFacts, facts

_current_node = torch._C._current_autograd_node
_sequence_number = torch._C._autograd._get_sequence_nr
_ENGINE = "graph.py", "_engine_run_backward"
"""Python function from which autograd's own derivatives are called (torch/autograd/graph.py)."""


@dataclass(slots=True)
class Operation:
    """One operation as it runs."""

    index: int
    func: Any
    facts: OpFacts
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    inputs: list[Tensor]
    """All tensors among the arguments, those in lists too."""
    phase: Phase
    module: nn.Module | None
    place: Place | None
    site_count: int
    """How often this operation has run at this place in this module, counted from 1."""
    node: Any = None
    """The autograd node whose derivative this is a part of; None in the forward pass."""
    forward: ForwardRecord | None = None
    """Of a derivative: the forward operation."""
    python_gradient: bool = False
    """Whether Python code of a custom autograd function or of a gradient hook called it."""

    @property
    def custom_function(self) -> str:
        """Class of the custom autograd function whose backward is running; empty if it is none."""
        is_custom = isinstance(self.node, BackwardCFunction)
        return self.node.name().removesuffix("Backward") if is_custom else ""


class Observer(Protocol):
    """Looks at operations."""

    def before(self, operation: Operation) -> None:
        """The operands are as the operation will find them."""

    def after(self, operation: Operation, outputs: list[Tensor]) -> None:
        """The operation has run."""

    def failed(self, operation: Operation, error: Exception) -> None:
        """The operation raised an error."""


class OutOfTimeError(BaseException):
    """The budget is spent. No ``Exception``, so that no handler of the traced code takes it."""


class Tracer(TorchDispatchMode):
    """Shows every operation to an observer while it is entered.

    Args:
        modules: Root modules by name.
        observer: Who looks at the operations.
        stop: Code of the function that runs the step: source lines are not searched beyond it.
        deadline: Of ``time.perf_counter``, in seconds; None: no limit.
    """

    def __init__(
        self, modules: Mapping[str, nn.Module], observer: Observer, stop: CodeType, deadline: float | None = None
    ) -> None:
        super().__init__()
        self.modules = ModulePaths(modules)
        self.records = ForwardRecords()
        self.operations = 0
        self.internal_error: Exception | None = None
        """The first error of the observer, if any: the step goes on without it."""
        self._observer, self._stop, self._deadline = observer, stop, deadline
        self._sites: dict[tuple[int, Place | None, str], int] = {}
        self._in_optimizer = 0

    def __enter__(self) -> Tracer:
        self.modules.__enter__()
        self._handles = [
            register_optimizer_step_pre_hook(self._optimizer_begins),
            register_optimizer_step_post_hook(self._optimizer_ends),
        ]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            super().__exit__(*error)
        finally:
            for handle in self._handles:
                handle.remove()
            self.modules.__exit__()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Torch would wrap `__torch_dispatch__` to keep its compiler out, at twice the cost of an operation. Where the
        # compiler can be told to stay out (`run_eagerly`), that is not needed.
        return not hasattr(torch.compiler, "set_stance")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation between the observer's two looks."""
        if self._deadline is not None and time.perf_counter() > self._deadline:
            raise OutOfTimeError
        kwargs = kwargs or {}
        operation = self._describe(func, args, kwargs, sys._getframe(1))
        self._show(self._observer.before, operation)
        try:
            result = func(*args, **kwargs)
        except Exception as error:
            self._show(self._observer.failed, operation, error)
            raise
        self._show(self._observer.after, operation, _tensors(result))
        return result

    def executions(self, module: nn.Module | None, place: Place | None, native: str) -> int:
        """How often an operation has run at one place in one module up to now, derivatives left out."""
        return self._sites.get(_site(module, place, native), 0)

    def _show(self, look: Any, *what: Any) -> None:
        # What we fail to understand must not change the step; the replay's note tells of it.
        try:
            look(*what)
        except Exception as error:
            self.internal_error = self.internal_error or error

    def _describe(self, func: Any, args: Any, kwargs: dict[str, Any], frame: FrameType) -> Operation:
        self.operations += 1
        known = facts(func)
        node = _current_node()
        frame = _beyond_wrapper(frame)
        derivative = node is not None and _is_engine(frame)
        # In Python code inside the backward pass gradients are enabled only while a checkpoint recomputes its segment.
        python_gradient = node is not None and not derivative and not torch.is_grad_enabled()
        module = None if derivative else self.modules.current
        place = None if derivative else current_place(frame, self._stop)
        backward = derivative or python_gradient
        operation = Operation(
            index=self.operations,
            func=func,
            facts=known,
            arguments=args,
            keywords=kwargs,
            inputs=_tensors(*args, *kwargs.values()) if kwargs else _tensors(*args),
            phase=Phase.BACKWARD if backward else Phase.OPTIMIZER if self._in_optimizer else Phase.FORWARD,
            module=module,
            place=place,
            site_count=0,
            node=node if backward else None,
            python_gradient=python_gradient,
        )
        if backward:
            self._complete_backward(operation)
        else:
            site = _site(module, place, known.native)
            operation.site_count = self._sites[site] = self._sites.get(site, 0) + 1
        self.records.note(_sequence_number() - 1, operation)
        return operation

    def _complete_backward(self, operation: Operation) -> None:
        operation.forward = record = self.records.of_node(operation.node)
        if record is not None and operation.module is None:
            operation.module = record.module
        if record is not None and operation.place is None:
            operation.place = record.place

    def _optimizer_begins(self, *args: Any) -> None:
        self._in_optimizer += 1

    def _optimizer_ends(self, *args: Any) -> None:
        self._in_optimizer = max(0, self._in_optimizer - 1)


def _site(module: nn.Module | None, place: Place | None, native: str) -> tuple[int, Place | None, str]:
    return id(module), place, native


def _beyond_wrapper(frame: FrameType) -> FrameType:
    """The frame below the one that torch wraps around every dispatch mode."""
    while frame.f_back is not None and frame.f_code.co_filename.endswith(("eval_frame.py", "_compile.py")):
        frame = frame.f_back
    return frame


def _is_engine(frame: FrameType) -> bool:
    code = frame.f_code
    if code.co_name == _ENGINE[1]:
        return code.co_filename.endswith(_ENGINE[0])
    # On an accelerator derivatives run in a thread of autograd's own, without Python frames of the step.
    return frame.f_back is None


def _tensors(*values: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            if value:
                found += _tensors(*value)
        elif isinstance(value, dict) and value:
            found += _tensors(*value.values())
    return found
