"""Running a training step again without anybody hearing of it: logs, metrics, callbacks, progress, other ranks."""

from __future__ import annotations

import contextlib
import io
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nan_callbacks.lightning.namespace import LIBRARIES
from nan_callbacks.torch.lab_hands import Unsupported

MUTED = ("log", "log_dict", "print")
"""Methods of the module that do nothing during a trial."""

COLLECTIVES = ("c10d", "_c10d_functional", "c10d_functional")
"""Namespaces of operations that wait for other processes."""


@contextlib.contextmanager
def muted(trainer: Any, module: nn.Module, *, global_step: int | None = None) -> Iterator[None]:
    """Logs, loggers, callbacks and the terminal hear nothing; whatever was changed for that is put back.

    Args:
        trainer: The trainer.
        module: Its module.
        global_step: What ``trainer.global_step`` shall say; None: what it says.
    """
    with contextlib.ExitStack() as stack:
        for name in MUTED:
            stack.enter_context(_attribute(module, name, _nothing))
        folder = stack.enter_context(_passing_folder())
        loggers = [_dummy_logger(folder) for _ in trainer.loggers]
        stack.enter_context(_attribute(trainer, "_loggers", [each for each in loggers if each is not None]))
        stack.enter_context(_deaf_callbacks(trainer))
        stack.enter_context(_attribute(trainer, "should_stop", trainer.should_stop))
        stack.enter_context(_step_counter(trainer, module, global_step))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(_eager())
        yield


@contextlib.contextmanager
def as_in_training(module: nn.Module, *, alone: bool) -> Iterator[None]:
    """The module in training mode, and nothing that waits for another process.

    Entered where changes of the module are put back by somebody else.

    Args:
        module: The module.
        alone: Whether this is the only process.
    """
    if not module.training:
        module.train()
    if alone:
        yield
        return
    for each in module.modules():
        if isinstance(each, nn.SyncBatchNorm):
            vars(each)["forward"] = types.MethodType(nn.modules.batchnorm._BatchNorm.forward, each)
    with _NoCollectives():
        yield


class _NoCollectives(TorchDispatchMode):
    """Refuses every operation that waits for other processes, which are not doing this step again."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in COLLECTIVES:
            raise Unsupported("the training step talks to the other processes, which are not doing it again")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _deaf_callbacks(trainer: Any) -> Iterator[None]:
    """Callbacks hear of no hook, and are still there: a step may read what its checkpoint callback knows."""
    calls = [getattr(library.trainer, "call", None) for library in LIBRARIES]
    with contextlib.ExitStack() as stack:
        if not all(hasattr(each, "_call_callback_hooks") for each in calls):  # a private corner that has moved
            stack.enter_context(_attribute(trainer, "callbacks", []))
        for each in calls:
            stack.enter_context(_attribute(each, "_call_callback_hooks", _nothing))
        yield


def _nothing(*_: Any, **__: Any) -> None:
    """In place of a method that would be heard."""


@contextlib.contextmanager
def _attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An instance attribute for a while."""
    attributes = vars(owner)
    had, before = name in attributes, attributes.get(name)
    attributes[name] = value
    try:
        yield
    finally:
        if had:
            attributes[name] = before
        else:
            attributes.pop(name, None)


@contextlib.contextmanager
def _step_counter(trainer: Any, module: Any, global_step: int | None) -> Iterator[None]:
    """``trainer.global_step`` as the step saw it: Lightning has counted the step by the time its batch ends."""
    loop = getattr(getattr(trainer, "fit_loop", None), "epoch_loop", None)
    try:
        if module.automatic_optimization:
            progress = loop.automatic_optimization.optim_progress.optimizer.step.total  # type: ignore[union-attr]
        else:
            progress = loop.manual_optimization.optim_step_progress.total  # type: ignore[union-attr]
        before = progress.completed
    except AttributeError:  # a private corner of Lightning that has moved: the step sees the present number
        progress, before = None, 0
    if progress is None or global_step is None:
        yield
        return
    progress.completed = before - (trainer.global_step - global_step)
    try:
        yield
    finally:
        progress.completed = before


@contextlib.contextmanager
def _eager() -> Iterator[None]:
    """Compiled parts run uncompiled: a trial must neither compile anew nor add to anybody's cache."""
    set_stance = getattr(torch.compiler, "set_stance", None)
    if set_stance is None:
        yield
        return
    with set_stance("force_eager"):
        yield


@contextlib.contextmanager
def _passing_folder() -> Iterator[Callable[[], str]]:
    """Makes a folder when it is first asked for; it is gone afterwards."""
    made: list[tempfile.TemporaryDirectory[str]] = []

    def folder() -> str:
        if not made:
            made.append(tempfile.TemporaryDirectory(prefix="nan_callbacks_", ignore_cleanup_errors=True))
        return made[0].name

    try:
        yield folder
    finally:
        for each in made:
            each.cleanup()


def _dummy_logger(folder: Callable[[], str]) -> Any:
    """A logger that hears nothing.

    Args:
        folder: Returns where steps may write, such as images into ``trainer.log_dir``.
    """
    for library in LIBRARIES:
        dummy = getattr(library.loggers.logger, "DummyLogger", None)
        if dummy is not None:
            where = property(lambda _: folder())
            return type("SilentLogger", (dummy,), {"save_dir": where, "log_dir": where, "root_dir": where})()
    return None
