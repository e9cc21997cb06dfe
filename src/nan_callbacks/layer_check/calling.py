"""How a layer wants to be called, and whose it is; read from its signature and its code alone."""

from __future__ import annotations

import inspect
import linecache
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from typing import Any

from nan_callbacks.diagnosis.origin import SourceLine
from nan_callbacks.errors import ConfigurationError
from nan_callbacks.layer_check.spec import Signature

_KERAS, _TORCH = ("keras", "tensorflow", "jax"), ("torch",)
_KERAS_BASES = {"Layer", "Loss", "Operation"}


def framework_of(layer: Any) -> str:
    """``torch`` or ``keras``.

    A class tells by its bases, a function by the modules that its code refers to. One that refers to none works on
    anything; it is tried on torch, unless only Keras is loaded.

    Raises:
        ConfigurationError: If it cannot be called.
    """
    if not callable(layer) or isinstance(layer, type):
        raise ConfigurationError.of("layer", "a module, layer, loss or function", layer, "Pass an instance.")
    bases = [(base.__name__, base.__module__.partition(".")[0]) for base in type(layer).__mro__]
    if any(name in _KERAS_BASES and package == "keras" for name, package in bases):
        return "keras"
    if any(package == "torch" for _, package in bases):
        return "torch"
    packages = set(_packages(_innermost(layer)))
    if packages & set(_KERAS):
        return "keras"
    if packages & set(_TORCH):
        return "torch"
    return "keras" if "keras" in sys.modules and "torch" not in sys.modules else "torch"


def arguments(layer: Any, call: Callable[..., Any], signature: Signature, values: dict[str, Any]) -> tuple[Any, Any]:
    """Positional and keyword arguments for one call.

    Args:
        layer: The layer.
        call: Its own ``forward`` or ``call``, whose parameters are looked at.
        signature: What it takes.
        values: Tensors by name.
    """
    inputs = {spec.name: values[spec.name] for spec in signature.inputs}
    targets = [values[spec.name] for spec in signature.targets]
    names = _parameters(call)
    if "y_true" in names and "y_pred" in names and targets:  # Keras' order is the other way round than torch's
        return (targets[0], *inputs.values()), {}
    if signature.by_name:
        if all(accepts(call, name) for name in inputs):
            return (), {**inputs, **dict(zip([spec.name for spec in signature.targets], targets, strict=True))}
        return (inputs, *targets), {}
    if len(inputs) > 1 and _takes_a_list(call, signature):
        return (list(inputs.values()), *targets), {}
    return (*inputs.values(), *targets), {}


def accepts(call: Callable[..., Any], name: str) -> bool:
    """Whether a function has a parameter of that name, or takes any name."""
    try:
        parameters = inspect.signature(call).parameters
    except (TypeError, ValueError):
        return False
    return name in parameters or any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())


def definition_of(function: Any) -> SourceLine | None:
    """Where a function is written; None if it is part of an installed package or cannot be told."""
    code = getattr(_innermost(function), "__code__", None)
    if code is None or _is_installed(code.co_filename):
        return None
    file, line = code.co_filename, code.co_firstlineno
    while linecache.getline(file, line).lstrip().startswith("@"):  # the code of a function begins with its decorators
        line += 1
    return SourceLine(file=file, line=line, function=code.co_name, text=linecache.getline(file, line).strip())


def name_of(layer: Any) -> str:
    """Class of a layer, or name of a function."""
    inner = _innermost(layer)
    return getattr(inner, "__name__", "") or type(inner).__name__


def _parameters(call: Callable[..., Any]) -> dict[str, bool]:
    """Names of the positional parameters, and whether each may be left out; ``*`` stands for any number more."""
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):  # a built-in function
        return {"*": True}
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = {each.name: each.default is not each.empty for each in parameters if each.kind in kinds}
    more = any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters)
    return {**named, "*": True} if more else named


def _takes_a_list(call: Callable[..., Any], signature: Signature) -> bool:
    """Whether several inputs go into one parameter: it is the only one, or it has the name that Keras gives to it."""
    names = {name: optional for name, optional in _parameters(call).items() if name != "training"}
    if "*" in names:
        return False
    if len(names) == 1 + len(signature.targets):
        return True
    first, *others = names
    is_masked = any(spec.kind == "mask" for spec in signature.inputs)
    return first == "inputs" and all(names[name] for name in others) and not is_masked


def _innermost(function: Any) -> Any:
    while hasattr(function, "func") or hasattr(function, "__wrapped__"):
        function = getattr(function, "func", None) or function.__wrapped__
    return function


def _packages(function: Any) -> Iterator[str]:
    """Top-level packages that a function belongs to or refers to."""
    owner = getattr(function, "__self__", None)
    owners = [*(owner if isinstance(owner, type) else type(owner)).__mro__] if owner is not None else []
    for each in (function, *owners):
        yield str(getattr(each, "__module__", None) or "").partition(".")[0]
    if not hasattr(function, "__code__") and not inspect.isbuiltin(function):
        function = type(function).__call__  # an object that can be called
    code, known = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    if code is None:
        return
    cells = zip(code.co_freevars, getattr(function, "__closure__", None) or (), strict=False)
    known = {**known, **{name: cell.cell_contents for name, cell in cells if _is_filled(cell)}}
    for name in _names(code):
        value = known.get(name)
        module = getattr(value, "__name__" if inspect.ismodule(value) else "__module__", None)
        yield str(module or "").partition(".")[0]


def _names(code: Any) -> Iterator[str]:
    yield from (*code.co_names, *code.co_freevars)
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            yield from _names(constant)


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _is_installed(file: str) -> bool:
    folders = [os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "purelib", "platlib")]
    return file.startswith("<frozen") or os.path.abspath(file).startswith(tuple(folders))
