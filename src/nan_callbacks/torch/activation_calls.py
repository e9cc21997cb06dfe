"""Activation functions and recurrent functions that are called as such, seen from outside while a model runs."""

from __future__ import annotations

import functools
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn.modules import rnn
from torch.overrides import TorchFunctionMode

from nan_callbacks.torch.gates import RECURRENT

BOUNDED: dict[str, tuple[float, float]] = {
    "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "hardsigmoid": (0.0, 1.0), "hardtanh": (-1.0, 1.0),
}  # fmt: skip
"""Activations with two bounds."""

RECTIFIERS = frozenset({"relu", "relu6", "threshold"})
"""Activations that are exactly zero for negative inputs."""


class Listener(Protocol):
    """Is told what is called."""

    def consume(self, value: Any) -> None:
        """A tensor goes into an activation function."""

    def note_function(self, kind: str, output: Any) -> None:
        """An activation function has returned."""

    def note_recurrent(self, kind: str, args: Any, output: Any) -> None:
        """A recurrent function has returned."""


class FunctionMode(TorchFunctionMode):
    """Sees functions by a mode.

    Args:
        listener: Who is told.
    """

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener
        self._depth = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call."""
        kind = getattr(func, "__name__", "").rstrip("_")
        known = kind in BOUNDED or kind in RECTIFIERS
        if known and args:
            self._listener.consume(args[0])
        self._depth += known
        try:
            output = func(*args, **(kwargs or {}))
        finally:
            self._depth -= known
        if known and self._depth == 0:  # F.relu calls torch.relu
            self._listener.note_function(kind, output)
        if kind in RECURRENT:
            self._listener.note_recurrent(kind, args, output)
        return output


class PatchedFunctions:
    """Sees the same without a mode: by names of torch's that are replaced for a while.

    Args:
        listener: Who is told.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._depth = 0
        self._undo: list[tuple[Any, str, Any]] = []
        self._implementations: dict[str, Any] = {}

    def __enter__(self) -> Self:
        for owner in (torch, nn.functional, Tensor):
            for kind in (*BOUNDED, *RECTIFIERS):
                for name in (kind, f"{kind}_"):
                    original = getattr(owner, name, None)
                    if callable(original):
                        self._replace(owner, name, self._watched(kind, original))
        for kind in RECURRENT:
            original = getattr(torch._VF, kind)
            self._replace(torch._VF, kind, self._watched_recurrent(kind, original))
            if kind.upper() in getattr(rnn, "_rnn_impls", {}):  # nn.RNN goes by a table of its own
                self._implementations[kind.upper()] = rnn._rnn_impls[kind.upper()]
                rnn._rnn_impls[kind.upper()] = getattr(torch._VF, kind)
        return self

    def __exit__(self, *error: Any) -> None:
        for owner, name, own in self._undo:
            if own is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own)
        self._undo.clear()
        if self._implementations:
            rnn._rnn_impls.update(self._implementations)
            self._implementations.clear()

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        self._undo.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, value)

    def _watched(self, kind: str, original: Any) -> Any:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if args:
                self._listener.consume(args[0])
            self._depth += 1
            try:
                output = original(*args, **kwargs)
            finally:
                self._depth -= 1
            if self._depth == 0:  # F.relu calls torch.relu
                self._listener.note_function(kind, output)
            return output

        return call

    def _watched_recurrent(self, kind: str, original: Any) -> Any:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            output = original(*args, **kwargs)
            if not kwargs:  # as torch's own modules call it
                self._listener.note_recurrent(kind, args, output)
            return output

        return call
