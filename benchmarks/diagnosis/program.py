"""What a program of the corpus is: how it is built, and the truth about what goes wrong in it."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

BACKENDS = ("tensorflow", "jax", "torch")


class Part(enum.StrEnum):
    """The parts of the corpus."""

    TUNING = "tuning"
    """Seen while the diagnosis was made."""
    HELD_OUT = "held_out"
    """Written last, scored once."""
    FRESH = "fresh"
    """Written later by somebody who had not seen the rules, and scored before the rules were changed again."""
    UNSEEN = "unseen"
    """Written by another hand than the rules', after the earlier parts were spent, and scored before rules were
    changed."""
    LATEST = "latest"
    """Written blind after UNSEEN had been scored and the rules mended by it: what forums see every week."""
    POSTED = "posted"
    """Written blind after LATEST had been scored and the rules mended by it: complete models, as they are posted."""
    RECENT = "recent"
    """Written blind after POSTED had been scored and the rules mended by it: mistakes in the models of many trades."""
    FURTHER = "further"
    """Written blind after RECENT had been scored and the rules mended by it: mistakes told in question threads."""
    BEYOND = "beyond"
    """Written blind after FURTHER had been scored and the rules mended by it: models that no part had."""
    NOVEL = "novel"
    """Written blind after BEYOND had been scored and the rules mended by it, and by other people's models."""


class Happens(enum.StrEnum):
    """What an unguarded run shows."""

    NON_FINITE = "non-finite"
    """Loss or weights end non-finite, after at least one good step."""
    SPIKE = "spike"
    """One step's loss or gradient is at least 10 times the median of the steps before it, and finite."""
    DIVERGENCE = "divergence"
    """Losses end at least 10 times above where they began, or non-finite."""
    STALL = "stall"
    """Everything is finite, and the loss does not fall by a tenth; the program asks for a diagnosis at the end."""
    EXCEPTION = "exception"
    """The framework raises in the middle of the training."""
    NOTHING = "nothing"
    """Healthy or borderline: the loss is lower at the end than at the beginning."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What a perfect diagnosis would say. A field that is None is not scored."""

    happens: Happens
    causes: tuple[str, ...] = ()
    """Codes that people would accept as the first verdict; empty for a healthy program."""
    kind: str | None = None
    """What the failure began with: ``operation``, ``batch``, ``parameters``, ``exception``; empty string: no origin."""
    operations: tuple[str, ...] | None = None
    """Accepted neutral names of the operation in which it began (of an exception: its class)."""
    phase: str | None = None
    modules: tuple[str, ...] | None = None
    """Accepted ends of the path of the module or layer; the empty string is "outside of every layer"."""
    line: str | tuple[str, ...] | None = None
    """A fragment of the guilty source line, unique in the program's file. Several if people would accept either, such
    as the line of a hand-written gradient and the line that called it."""
    rows: tuple[int, ...] | None = ()
    """Guilty rows of the failed batch; empty: no few rows are to blame."""


@dataclass(frozen=True)
class LightningRun:
    """Parts of a Lightning run, as people make them."""

    module: Any
    loader: Any
    trainer: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the Trainer."""


@dataclass(frozen=True)
class KerasRun:
    """Parts of a Keras run: a compiled model and the arguments of ``fit``."""

    model: Any
    x: Any
    y: Any = None
    fit: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """One program of the corpus."""

    build: Callable[[], Any]
    truth: Truth
    sources: tuple[str, ...]
    """Public threads about this kind of bug; the code is our own."""
    framework: str
    backends: tuple[str, ...]
    """Empty for Lightning."""
    part: Part
    guard: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the guard that this program needs, such as a shorter warm-up for a short run."""
    by_backend: Mapping[str, Truth] = field(default_factory=dict)
    """Where backends differ in what they do with the same mistake."""

    @property
    def name(self) -> str:
        """Unique name, in snake_case."""
        return self.build.__name__

    @property
    def is_healthy(self) -> bool:
        return not self.truth.causes

    @property
    def note(self) -> str:
        """What goes wrong, in a line."""
        return (inspect.getdoc(self.build) or "").partition("\n")[0]

    @cached_property
    def file(self) -> Path:
        """The file in which the program stands."""
        return Path(inspect.getsourcefile(inspect.unwrap(self.build)) or "")

    def truth_on(self, backend: str) -> Truth:
        return self.by_backend.get(backend, self.truth)

    def guilty_lines(self, truth: Truth) -> tuple[int, ...]:
        """Numbers of the accepted lines in the file, counted from 1.

        Raises:
            ValueError: If a fragment stands in none of the lines, or in several.
        """
        lines = self.file.read_text().splitlines()
        return tuple(self._find(fragment, lines) for fragment in _tuple(truth.line or ()))

    def _find(self, fragment: str, lines: list[str]) -> int:
        found = [
            number for number, line in enumerate(lines, start=1) if fragment in line and f'"{fragment}' not in line
        ]
        if len(found) != 1:
            raise ValueError(
                f"{self.name}: the fragment {fragment!r} stands in {len(found)} lines of {self.file.name}; 1 needed."
            )
        return found[0]


PROGRAMS: dict[str, Program] = {}
"""All programs by name, filled when the files of the corpus are imported."""


def enter(
    truth: Truth,
    *sources: str,
    backends: tuple[str, ...] | None = None,
    guard: Mapping[str, Any] | None = None,
    by_backend: Mapping[str, Truth] | None = None,
) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Enter a build function in the corpus under its own name.

    Framework and half are told by the file: ``<part>/lightning_*.py`` and ``<part>/keras_*.py``.

    Args:
        truth: What a perfect diagnosis would say.
        sources: Addresses of public threads about this kind of bug.
        backends: Of Keras; all three by default.
        guard: Arguments of the guard that this program needs.
        by_backend: Truths of backends that behave differently.
    """

    def register(build: Callable[[], Any]) -> Callable[[], Any]:
        if build.__name__ in PROGRAMS:
            raise ValueError(f"There are two programs named `{build.__name__}`; give one of them another name.")
        *_, part, file = build.__module__.split(".")
        framework = file.partition("_")[0]
        on = () if framework == "lightning" else (backends or BACKENDS)
        PROGRAMS[build.__name__] = Program(
            build, truth, sources, framework, on, Part(part), dict(guard or {}), dict(by_backend or {})
        )
        return build

    return register


def non_finite(
    code: str | tuple[str, ...],
    operation: str | tuple[str, ...] | None,
    line: str | tuple[str, ...] | None,
    **more: Any,
) -> Truth:
    """Truth of a failure that began in an operation of the forward pass, unless `more` says otherwise."""
    told: dict[str, Any] = {
        "happens": Happens.NON_FINITE,
        "causes": _tuple(code),
        "kind": None if operation is None else "operation",
        "operations": None if operation is None else _tuple(operation),
        "phase": None if operation is None else "forward",
        "line": line,
    }
    return Truth(**{**told, **more})


def bad_batch(part: str | None, rows: tuple[int, ...], code: str = "DATA501") -> Truth:
    """Truth of a batch that held non-finite values already."""
    operations = None if part is None else (part,)
    return Truth(happens=Happens.NON_FINITE, causes=(code,), kind="batch", operations=operations, rows=rows)


def finite(happens: Happens, code: str | tuple[str, ...], rows: tuple[int, ...] | None = ()) -> Truth:
    """Truth of an incident in which every number is finite: there is no origin."""
    return Truth(happens=happens, causes=_tuple(code), kind="", rows=rows)


def runaway(code: str | tuple[str, ...]) -> Truth:
    """Truth of a run that grows until it is caught: which operation overflows first says nothing and is not scored."""
    return Truth(happens=Happens.DIVERGENCE, causes=_tuple(code))


def healthy() -> Truth:
    """Truth of a program in which nothing needs a diagnosis: no incident, or none with a confirmed cause."""
    return Truth(happens=Happens.NOTHING, rows=None)


def _tuple(told: str | tuple[str, ...]) -> tuple[str, ...]:
    return (told,) if isinstance(told, str) else told
