"""One forward pass taken down: every call of a torch function, what went in, what came out, and in which module."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any, Self

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nan_callbacks.torch.replay.call_sites import Place, current_place
from nan_callbacks.torch.replay.module_paths import ModulePaths, module_type

REVERSED = {"radd": "add", "rsub": "sub", "rmul": "mul", "rtruediv": "div", "rdiv": "div", "rpow": "pow"}
OPERATORS = {"truediv": "div", "matmul": "matmul", "itruediv": "div", "iadd": "add", "imul": "mul", "isub": "sub"}

MAKE_NOTHING = frozenset({"__set__", "__delete__", "__len__", "size", "dim", "backward", "requires_grad_", "item"})

WRAPPERS = ("torch._tensor", "torch.functional")
"""Modules in which operators and functions are merely handed on."""


@dataclass(eq=False)
class Call:
    """One call of a torch function; functions that it calls itself are a part of it."""

    name: str
    """Without underscores: ``x.relu_()``, ``torch.relu(x)`` and ``F.relu(x)`` are all ``relu``."""
    module: str
    """Path of the innermost running module."""
    module_type: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    place: Place | None
    """The user's line."""
    parents: dict[int, Call]
    """What made the tensors that went in, by their ``id``; those of the batch and parameters have no maker."""
    caller: str = ""
    """Name of the Python module that called it: the user's, or a library's."""
    is_reversed: bool = False
    """Whether it is an operator with its operands the other way round, as ``1 / x``."""
    output: Any = None
    """None while it runs, and if it raised an error."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What was measured while the tensors were as they are: the next call may change them in place."""

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors that went in, in order."""
        return tensors_in((self.args, self.kwargs))

    @property
    def result(self) -> Tensor | None:
        """The tensor that came out, of several the first."""
        return next(_tensors(self.output), None)

    @property
    def results(self) -> list[Tensor]:
        """All tensors that came out."""
        return tensors_in(self.output)

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """One argument, given by position or by name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)


class Recorder(TorchFunctionMode):
    """Takes calls down while it is entered.

    Args:
        module: The module whose forward pass runs.
        stop: Code of the function at which the search for the user's line ends.
        measure: Called with every call when it has returned.
    """

    def __init__(self, module: nn.Module, stop: CodeType, measure: Any = None) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._paths = ModulePaths({"": module})
        self._stop, self._measure = stop, measure
        self._makers: dict[int, Call] = {}

    def __enter__(self) -> Self:
        self._paths.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._paths.__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Take one call down."""
        kwargs = kwargs or {}
        if func is Tensor.__iter__ and args[0].dim():  # what an iterator will give cannot be followed
            return iter(self.__torch_function__(Tensor.unbind, types, args))
        call = self._begin(func, args, kwargs)
        output = func(*args, **kwargs)
        if call is not None:
            self._end(call, output)
        return output

    def maker(self, tensor: Tensor) -> Call | None:
        """The call that made a tensor; None for parameters and the batch."""
        return self._makers.get(id(tensor))

    def _begin(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Call | None:
        native = getattr(func, "__name__", "")
        if native in (
            "__set__",
            "__delete__",
            "__len__",
            "size",
            "dim",
            "backward",
            "requires_grad_",
            "item",
            "tolist",
        ):
            return None
        parents = {id(t): self._makers[id(t)] for t in _tensors((args, kwargs)) if id(t) in self._makers}
        name = native.strip("_")
        known = REVERSED.get(name) if native.startswith("__") else None
        module = self._paths.current
        call = Call(
            name=known or OPERATORS.get(name, name),
            module=self._paths.path(module),
            module_type=module_type(module),
            args=tuple(args),
            kwargs=dict(kwargs),
            place=current_place(sys._getframe(2), self._stop),
            caller=_caller(sys._getframe(2)),
            parents=parents,
            is_reversed=known is not None,
        )
        self.calls.append(call)  # before it runs: it may raise an error
        return call

    def _end(self, call: Call, output: Any) -> None:
        made = list(_tensors(output))
        if not made:
            self.calls.remove(call) if self.calls[-1] is not call else self.calls.pop()
            return
        call.output = output
        for tensor in made:
            self._makers[id(tensor)] = call
        if self._measure is not None:
            self._measure(call)


def _caller(frame: FrameType | None) -> str:
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name not in WRAPPERS:
            return name
        frame = frame.f_back
    return ""


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors of a nested structure, in order."""
    return list(_tensors(value))


def _tensors(value: Any, depth: int = 3) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part, depth - 1)
    elif depth and isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part, depth - 1)
