"""Which line of the user's own code is at work, read from the live stack."""

from __future__ import annotations

import functools
import importlib.util
import linecache
import os
import sysconfig
from types import CodeType, FrameType, TracebackType

import nan_callbacks
from nan_callbacks.diagnosis.origin import SourceLine

_FRAMEWORKS = ("keras", "tensorflow", "jax", "jaxlib", "torch", "numpy", "ml_dtypes")
_INTERACTIVE = ("<stdin>", "<console>", "<ipython")


@functools.cache
def _foreign_folders() -> tuple[str, ...]:
    """Folders of the standard library, of installed packages, of the frameworks and of this package."""
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    for name in _FRAMEWORKS:
        spec = importlib.util.find_spec(name)
        if spec is not None:
            folders.update(spec.submodule_search_locations or [])
    folders.update(nan_callbacks.__path__)
    return tuple(os.path.join(folder, "") for folder in folders if folder)


@functools.cache
def is_user_file(file: str) -> bool:
    """Whether a code object's file belongs to the user."""
    if file.startswith("<"):
        return file.startswith(_INTERACTIVE)
    path = os.path.abspath(file)
    return not path.startswith(_foreign_folders()) and f"{os.sep}site-packages{os.sep}" not in path


def source_line(file: str, line: int, function: str) -> SourceLine:
    """A line of code with its text."""
    return SourceLine(file=file, line=line, function=function, text=linecache.getline(file, line).strip())


def line_of_frame(frame: FrameType) -> SourceLine:
    """The line at which a frame stands."""
    code = frame.f_code
    return source_line(code.co_filename, frame.f_lineno, getattr(code, "co_qualname", code.co_name).split(".")[-1])


def line_of_error(error: BaseException, below: CodeType) -> SourceLine | None:
    """The user's innermost line in the traceback of an error.

    Args:
        error: The error.
        below: The function that ran the step; frames outside of it are not part of the step.
    """
    found, inside = None, False
    entry: TracebackType | None = error.__traceback__
    while entry is not None:
        code = entry.tb_frame.f_code
        inside = inside or code is below
        if inside and is_user_file(code.co_filename):
            found = source_line(code.co_filename, entry.tb_lineno, code.co_name)
        entry = entry.tb_next
    return found
