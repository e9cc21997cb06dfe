"""The line of the user's own code that is running right now."""

from __future__ import annotations

import linecache
import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from types import CodeType, FrameType, TracebackType

import torch

from nan_callbacks.diagnosis.origin import SourceLine

Place = tuple[str, int, str]
"""File, line, function."""

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_TYPED_IN = ("<ipython-input", "<stdin>", "<console>", "<doctest", "<python-input")
"""File names of code that a person typed into a prompt."""
_FRAMEWORKS = ("torch", "functorch", "lightning", "pytorch_lightning", "lightning_fabric", "keras", "torchmetrics")


def _folders(names: Iterator[str | None]) -> tuple[str, ...]:
    return tuple({os.path.join(os.path.abspath(name), "") for name in names if name})


_OURS_AND_TORCH = _folders(iter((_PACKAGE, os.path.dirname(torch.__file__))))
_STANDARD_LIBRARY = _folders(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
_INSTALLED = _folders(iter((sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages())))

_USER, _OTHER_LIBRARY, _SKIP = 0, 1, 2
_known: dict[str, int] = {}


def file_rank(file: str) -> int:
    """0: the user's own code; 1: an installed library that is no framework; 2: frameworks, Python, this package."""
    rank = _known.get(file)
    if rank is None:
        rank = _known[file] = _judge(file)
    return rank


def _judge(file: str) -> int:
    if file.startswith("<"):
        return _USER if file.startswith(_TYPED_IN) else _SKIP
    path = os.path.abspath(file)
    if path.startswith(_OURS_AND_TORCH):
        return _SKIP
    parts = path.replace("\\", "/").split("/")
    for folder in ("site-packages", "dist-packages"):
        if folder in parts:
            return _installed_rank(parts[parts.index(folder) + 1 :])
    if path.startswith(_INSTALLED):
        return _OTHER_LIBRARY
    return _SKIP if path.startswith(_STANDARD_LIBRARY) else _USER


def _installed_rank(below: list[str]) -> int:
    return _SKIP if below and below[0].removesuffix(".py") in _FRAMEWORKS else _OTHER_LIBRARY


def is_users_class(kind: type) -> bool:
    """Whether a class is the user's own: written outside of every installed package."""
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    if file is None:  # `__main__` of a notebook or a prompt
        return kind.__module__ == "__main__"
    return file_rank(file) == _USER


def current_place(frame: FrameType | None, stop: CodeType) -> Place | None:
    """The innermost line of user code from a frame outwards, up to the function that started the replay.

    Args:
        frame: Where to begin.
        stop: Code of the function at which to end: what called it is not part of the step.

    Returns:
        The innermost line of user code; if there is none, that of an installed library that is no framework; else None.
    """
    second: Place | None = None
    while frame is not None and frame.f_code is not stop:
        code = frame.f_code
        rank = _known.get(code.co_filename)
        if rank is None:
            rank = file_rank(code.co_filename)
        if rank == _USER:
            return code.co_filename, frame.f_lineno, code.co_name
        if rank == _OTHER_LIBRARY and second is None:
            second = code.co_filename, frame.f_lineno, code.co_name
        frame = frame.f_back
    return second


def place_of_error(traceback: TracebackType | None) -> Place | None:
    """The innermost line of user code in a traceback that begins inside of the replay."""
    found: dict[int, Place] = {}
    while traceback is not None:
        code = traceback.tb_frame.f_code
        found[file_rank(code.co_filename)] = code.co_filename, traceback.tb_lineno, code.co_name
        traceback = traceback.tb_next
    return found.get(_USER) or found.get(_OTHER_LIBRARY)


def source_line(place: Place | None) -> SourceLine | None:
    """A place with the text of its line."""
    if place is None:
        return None
    file, line, function = place
    return SourceLine(file=file, line=line, function=function, text=linecache.getline(file, line).strip())
