"""Which module is running right now."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

from nan_callbacks.torch.replay.call_sites import is_users_class

_WRAPPER = "_orig_mod"
"""Name of the module inside of what ``torch.compile`` returns; no part of a path that people know."""


class ModulePaths:
    """Keeps the stack of running modules while it is entered, by global forward hooks.

    Args:
        roots: Root modules by name.
    """

    def __init__(self, roots: Mapping[str, nn.Module]) -> None:
        self.roots = dict(roots)
        self._names: dict[int, str] = {}
        for root_name, root in roots.items():
            for name, module in root.named_modules():
                self._names.setdefault(id(module), clean_path(root_name, name))
        self._stack: list[nn.Module] = []
        self.calls: dict[int, int] = {}
        """How often each module was called, by id."""
        self.raised_in: tuple[BaseException, nn.Module] | None = None
        """The last error and the innermost module that it passed."""

    def __enter__(self) -> ModulePaths:
        self._handles = [
            torch_module.register_module_forward_pre_hook(self._begin),
            torch_module.register_module_forward_hook(self._end, always_call=True),
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._stack.clear()

    def _begin(self, module: nn.Module, args: Any) -> None:
        self._stack.append(module)
        self.calls[id(module)] = self.calls.get(id(module), 0) + 1

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None and (self.raised_in is None or self.raised_in[0] is not error):
            self.raised_in = (error, module)
        # A module whose own pre-hook raised never came onto the stack; one whose hooks were skipped is still on it.
        if module in self._stack:
            while self._stack.pop() is not module:
                pass

    @property
    def current(self) -> nn.Module | None:
        """The innermost running module that belongs to a root; None outside of all of them."""
        for module in reversed(self._stack):
            if id(module) in self._names:
                return module
        return None

    def path(self, module: nn.Module | None) -> str:
        """Path of a module; empty for None and for a root named ``""``."""
        return "" if module is None else self._names.get(id(module), "")


def clean_path(*names: str) -> str:
    """A dotted path without empty parts and without the wrapper of ``torch.compile``."""
    parts = [part for name in names for part in name.split(".")]
    return ".".join(part for part in parts if part and part != _WRAPPER)


def module_type(module: nn.Module | None) -> str:
    """Class of a module, of the wrapped one for a compiled module; empty for None."""
    return "" if module is None else type(_unwrapped(module)).__name__


def is_custom(module: nn.Module | None) -> bool:
    """Whether the module's class is the user's own."""
    return module is not None and is_users_class(type(_unwrapped(module)))


def _unwrapped(module: nn.Module) -> nn.Module:
    inner = module._modules.get(_WRAPPER)
    return module if inner is None else inner
