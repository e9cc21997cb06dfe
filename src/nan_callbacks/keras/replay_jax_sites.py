"""Names for the operations of a JAX program, given while it is traced and found again in the traced program.

Every operation that the program calls gets a number, and its equations, those of its derivative included, carry that
number in their name stack: JAX keeps name stacks through differentiation and transposition.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import CodeType, FrameType
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax._src import core, source_info_util
from jax.extend import core as jex

from nan_callbacks.diagnosis.origin import SourceLine
from nan_callbacks.keras.replay_layers import OUTSIDE
from nan_callbacks.keras.replay_sites import Site, SiteFinder
from nan_callbacks.keras.replay_source import is_user_file, source_line

_MARK = "nan_callbacks_op_"
_MARKED = re.compile(_MARK + r"(\d+)")
_JITS = ("jit", "pjit")
_CUSTOM = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
_JIT_CALL = tuple(f"jax/_src/{name}.py" for name in ("pjit", "traceback_util", "api", "core", "profiler", "util"))
NAMED = {"softmax", "log_softmax", "logsumexp"}
"""Functions of JAX that stand for one operation, as they do on the other backends."""


@dataclass(frozen=True)
class _Inlining:
    """A jitted function whose equations are being bound."""

    context: str
    """Of its call."""
    function: str
    around: _Inlining | None

    def named(self) -> str:
        """The outermost function that stands for one operation, if any does."""
        outer = self.around.named() if self.around else ""
        return outer or (self.function if self.function in NAMED else "")


class SiteMarks:
    """Marks operations while a program is traced.

    Args:
        finder: Reads sites from the live stack.
    """

    def __init__(self, finder: SiteFinder) -> None:
        self.sites: list[Site] = []
        self._finder = finder
        self._thread = threading.get_ident()
        self._inside = False
        self._inlining: _Inlining | None = None
        self._bind = core.Primitive.bind

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Operations are marked inside the block, in this thread."""
        marks = self

        def bind(primitive: Any, *args: Any, **params: Any) -> Any:
            if threading.get_ident() != marks._thread:
                return marks._bind(primitive, *args, **params)
            return marks._marked(primitive, args, params)

        setattr(core.Primitive, "bind", bind)  # noqa: B010 - a plain assignment is none to the type checker
        try:
            yield
        finally:
            setattr(core.Primitive, "bind", self._bind)  # noqa: B010

    def site(self, name_stack: Any) -> tuple[int | None, bool]:
        """Which operation an equation belongs to.

        Returns:
            Its number in :attr:`sites`, if any, and whether the equation was made by transposition.
        """
        text = str(name_stack)
        found = _MARKED.findall(text)
        return (int(found[-1]) if found else None), "transpose(" in text

    def _marked(self, primitive: Any, args: Any, params: Any) -> Any:
        context = _context(sys._getframe(2), self._finder.below, of_jit=primitive.name in _JITS)
        inlining = self._inlining if context == "inlined" else None
        context = inlining.context if inlining else context
        if context == "jit trace" or (self._inside and context != "user gradient"):
            return self._bind(primitive, *args, **params)
        if primitive.name in _JITS:
            # A jitted function was traced long ago for another caller; inlined, it is traced here and now.
            if _is_opaque(args):
                return self._bind(primitive, *args, **params)
            outer, self._inlining = self._inlining, _Inlining(context, str(params.get("name", "")), self._inlining)
            try:
                return _inlined(params["jaxpr"], args)
            finally:
                self._inlining = outer
        if context == "transposition":
            return self._bind(primitive, *args, **params)
        return self._number(primitive, args, params, context)

    def _number(self, primitive: Any, args: Any, params: Any, context: str) -> Any:
        hand_written = context in ("user gradient", "user transposition")
        inlining = self._inlining
        name = primitive.name
        if name in _CUSTOM:
            name = _function_name(params) or name
        else:
            name = (inlining.named() if inlining else "") or _named_function() or name
        source = _line_of_inlined() if inlining else None
        site = self._finder.site(f"jax.{name}", source=source, custom_gradient=hand_written)
        if hand_written and site.place is OUTSIDE:
            around, _ = self.site(source_info_util.current_name_stack())
            site = site if around is None else replace(site, place=self.sites[around].place)
        self.sites.append(site)
        inside, self._inside = self._inside, True
        try:
            with jax.named_scope(f"{_MARK}{len(self.sites) - 1}"):
                return self._bind(primitive, *args, **params)
        finally:
            self._inside = inside


def _inlined(closed: Any, args: Any) -> Any:
    """The equations of a jitted function, bound one by one."""
    return jex.jaxpr_as_fun(closed)(*args)


def _context(frame: FrameType | None, below: CodeType, *, of_jit: bool) -> str:
    """What the live stack says about where a bind comes from, looking outwards."""
    while of_jit and frame is not None and frame.f_code.co_filename.endswith(_JIT_CALL):
        frame = frame.f_back  # the call of the jitted function itself
    user = False
    while frame is not None and frame.f_code is not below:
        code = frame.f_code
        file = code.co_filename
        if code is _inlined.__code__:
            return "inlined"
        if file.endswith("jax/_src/pjit.py"):
            return "jit trace"
        if code.co_name.startswith("backward_pass") and file.endswith("interpreters/ad.py"):
            return "user transposition" if user else "transposition"
        if user and file.endswith("jax/_src/custom_derivatives.py"):
            return "user gradient"
        user = user or is_user_file(file)
        frame = frame.f_back
    return ""


def _is_opaque(args: Any) -> bool:
    """Random streams: hundreds of integer operations that cannot go wrong."""

    def is_key(value: Any) -> bool:
        dtype = getattr(value, "dtype", None)
        return dtype is not None and (jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == np.uint32)

    return any(is_key(value) for value in args)


def _function_name(params: Any) -> str:
    subfuns = params.get("subfuns") or ()
    info = getattr(subfuns[0], "debug_info", None) if subfuns else None
    return str(getattr(info, "func_name", "") or "").split(".")[-1].split(" ")[0]


def _named_function() -> str:
    frame: FrameType | None = sys._getframe(3)
    while frame is not None and not is_user_file(frame.f_code.co_filename):
        if frame.f_code.co_name in NAMED and "/jax/_src/" in frame.f_code.co_filename:
            return frame.f_code.co_name
        frame = frame.f_back
    return ""


def _line_of_inlined() -> SourceLine | None:
    """The user's line inside of a jitted function of his own, if it is one."""
    trace = source_info_util.current().traceback
    return line_of_traceback(trace, until="pjit.py") if trace is not None else None


def line_of_traceback(trace: Any, until: str = "") -> SourceLine | None:
    """The user's innermost line in a traceback that JAX kept.

    Args:
        trace: The traceback.
        until: Frames outside of the first one in this file don't count.
    """
    for frame in getattr(trace, "frames", ()):
        if until and frame.file_name.endswith(until):
            return None
        if is_user_file(frame.file_name):
            return source_line(frame.file_name, frame.line_num, frame.function_name.split(".")[-1])
    return None
