"""Where a failure began: what a replay of the failed step under an operation tracer finds."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from nan_callbacks.core.tensor_summary import TensorSummary


class Phase(enum.StrEnum):
    """In which part of the step the failure began."""

    FORWARD = "forward"
    """From the batch to the loss."""
    BACKWARD = "backward"
    """From the loss to the gradients; the source line is that of the forward operation."""
    OPTIMIZER = "optimizer"
    """From finite gradients to the new parameters."""


class OriginKind(enum.StrEnum):
    """What the failure began with."""

    OPERATION = "operation"
    """Finite operands went in, a NaN or an Inf came out."""
    BATCH = "batch"
    """The batch held it already."""
    PARAMETERS = "parameters"
    """A parameter or buffer held it already before the step."""
    EXCEPTION = "exception"
    """The step raised an error (a label out of range, a negative scale of a distribution)."""


WRITTEN_BY_HAND = "no optimizer writes it, but the forward pass of an earlier step or other code"
"""The detail of a buffer or a frozen parameter that was non-finite before the step."""


@dataclass(frozen=True, kw_only=True)
class SourceLine:
    """A line of the user's own code: the innermost frame outside of installed libraries and of this package."""

    file: str
    line: int
    function: str = ""
    text: str = ""
    """The line itself, stripped; empty if the source cannot be read."""

    def describe(self) -> str:
        """As tracebacks name it: ``model.py:31 in forward: return torch.log(x)``."""
        name = self.file.replace("\\", "/").rsplit("/", 1)[-1]
        place = f"{name}:{self.line}" + (f" in {self.function}" if self.function else "")
        return f"{place}: {self.text}" if self.text else place


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The first thing that was wrong, on the way to the loss or to a gradient."""

    kind: OriginKind
    operation: str = ""
    """Neutral name such as ``log``, ``divide``, ``sqrt``, ``exp``, ``power``, ``cast``: :mod:`.operations` lists them.
    For the backward phase the *forward* operation whose derivative failed. Of a batch: the part's name, of a
    parameter: its name, of an exception: its class."""
    native_operation: str = ""
    """As the framework calls it: ``aten.log.default``, ``Log``, ``jax.lax.log``."""
    phase: Phase = Phase.FORWARD
    module: str = ""
    """Path of the module or layer that was running; empty outside of all of them, as in a loss written by hand."""
    module_type: str = ""
    """Class of that module."""
    module_is_custom: bool = False
    """Whether that module's class is the user's own (outside of the installed frameworks)."""
    custom_gradient: bool = False
    """Whether a hand-written gradient (autograd function, ``custom_gradient``, ``custom_vjp``) produced it."""
    is_trained: bool = True
    """Of ``PARAMETERS``: whether an optimizer updates it. A buffer or a frozen parameter is written by other code."""
    source: SourceLine | None = None
    operands: tuple[TensorSummary, ...] = ()
    """What went in. For the backward phase: the operands of the forward operation, then the incoming gradient, named
    ``gradient``."""
    result: TensorSummary | None = None
    """What came out."""
    rows: tuple[int, ...] | None = None
    """Rows of the batch (first dimension) in which the result is non-finite; None if it has no batch dimension."""
    time_step: int | None = None
    """Of a recurrent layer: how often its operation had run when it failed, counted from 0."""
    absorbed_by: str = ""
    """For the backward phase: the operation that made a finite number of the infinite one that the forward operation
    gave, as ``exp`` does of -Inf. Empty if it gave none, or what it gave was masked."""
    detail: str = ""
    """One more sentence for people, such as the message of an exception."""


@dataclass(frozen=True, kw_only=True)
class ReplayResult:
    """What one traced replay of a step found."""

    origin: Origin | None = None
    """None: nothing non-finite reached loss or gradients, or it could not be told where it began (see ``note``)."""
    reproduced: bool = False
    """Whether loss or gradients of the replay were non-finite (or the step raised)."""
    loss: float | None = None
    grad_norm: float | None = None
    non_finite_gradients: tuple[str, ...] = ()
    """Names of the parameters with a non-finite gradient."""
    others: tuple[Origin, ...] = ()
    """Further origins on independent ways to the loss or the gradients, in the order in which they occurred."""
    operations: int = 0
    """Operations looked at."""
    seconds: float = 0.0
    note: str = ""
    """If there is no origin: what is known all the same."""

    @property
    def error(self) -> Origin | None:
        """The error that ended the replayed step, whatever led to it; None if it ran to its end."""
        known = (self.origin, *self.others)
        return next((each for each in known if each is not None and each.kind is OriginKind.EXCEPTION), None)
