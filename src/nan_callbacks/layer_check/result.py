"""What a check found."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.origin import SourceLine

_FEW = 8
"""So many numbers are printed one by one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Failure:
    """One thing that a layer does wrong."""

    check: str
    """``finite``, ``gradient``, ``batch invariance``, ``determinism`` or ``call`` (the layer raised an error)."""
    case: str
    """The input with which it happens, such as ``zeros``."""
    phase: str = "forward"
    """``forward`` or ``backward``."""
    severity: str = "failure"
    """``failure``, or ``info``: true, but nothing that the layer could help."""
    mode: str = ""
    """``training`` or ``evaluation``; empty for a function."""
    inputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """The smallest input found with which it still happens, by name."""
    operation: str = ""
    """Neutral name of the operation to blame, such as ``divide``; empty if none is known."""
    source: SourceLine | None = None
    """The line of the user's own code."""
    module: str = ""
    """Path or class of the module that was running."""
    message: str = ""
    remedy: str = ""
    also_in: tuple[str, ...] = ()
    """Other cases in which the same operation fails."""

    @property
    def input(self) -> NDArray[Any]:
        """The first of :attr:`inputs`."""
        return next(iter(self.inputs.values()))

    def describe(self) -> str:
        """A few lines for people."""
        head = f"{self.check} · {self.case}" + (f" (also: {', '.join(self.also_in)})" if self.also_in else "")
        lines = [f"{head}: {self.message}"]
        at = [f"in {self.operation}"] if self.operation else []
        at += [f"of {self.module}"] if self.module else []
        if at:
            lines.append(" ".join(at) + (f", {self.mode} mode" if self.mode else ""))
        if self.source is not None:
            lines.append(f"at {self.source.describe()}")
        lines += [f"with {name} = {_shown(array)}" for name, array in self.inputs.items()]
        if self.remedy:
            lines.append(f"to do: {self.remedy}")
        return textwrap.indent("\n".join(lines), "    ").replace("    ", "  - ", 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerCheckResult:
    """The outcome of all checks of one layer."""

    name: str
    failures: tuple[Failure, ...] = ()
    infos: tuple[Failure, ...] = ()
    """What is true but no fault: plain overflow of the number format, an error raised at a degenerate input."""
    checked: tuple[str, ...] = ()
    """Which checks were made, as ``check · case``."""
    skipped: tuple[str, ...] = ()
    """Which checks could not be made, and why."""

    @property
    def passed(self) -> bool:
        """Whether there are no failures."""
        return not self.failures

    def describe(self) -> str:
        """For people: failures first, then what is worth knowing."""
        said = f"{len(self.failures)} failure{'s' * (len(self.failures) != 1)} in {len(self.checked)} checks"
        lines = [f"{self.name}: {said}"]
        lines += [failure.describe() for failure in self.failures]
        if self.infos:
            lines += ["Worth knowing, no failures:", *(info.describe() for info in self.infos)]
        if self.skipped:
            lines += ["Not checked:", *(f"  - {reason}" for reason in self.skipped)]
        return "\n".join(lines)


def _shown(array: NDArray[Any]) -> str:
    if array.size <= _FEW:
        return f"{array.dtype} {np.array2string(array, separator=', ', max_line_width=200)}".replace("\n", "")
    return TensorSummary.of(array).describe()
