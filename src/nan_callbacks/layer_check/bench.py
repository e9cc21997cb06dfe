"""What the checks ask of a framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nan_callbacks.diagnosis.origin import Origin, SourceLine
from nan_callbacks.layer_check.calling import framework_of
from nan_callbacks.layer_check.spec import Arrays, Signature


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one call of the layer gave."""

    outputs: tuple[NDArray[Any], ...] = ()
    """Floating-point outputs, in order."""
    gradients: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """By name of input and parameter; a gradient that does not exist is left out."""
    differentiable: bool = False
    """Whether any output depends on inputs or parameters in a way that can be differentiated."""
    error: Exception | None = None
    """What the layer raised."""

    @property
    def phase(self) -> str:
        """Where numbers are non-finite: ``forward``, ``backward``, or empty."""
        if not all(np.isfinite(output).all() for output in self.outputs):
            return "forward"
        return "" if all(np.isfinite(gradient).all() for gradient in self.gradients.values()) else "backward"


@dataclass(frozen=True, kw_only=True)
class Run:
    """How the layer is to be called."""

    precision: str = ""
    """Number format of inputs and weights; empty: as they are."""
    training: bool = False
    gradients: bool = False
    cotangents: Sequence[NDArray[Any]] | None = None
    """Weights of the outputs in the sum that is differentiated. Default: ones."""
    parameters: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Other values for some of the parameters."""
    may_compile: bool = False
    """Whether a backend may compile the layer, so that many calls are fast but Python code runs only once."""


class Bench(Protocol):
    """A layer, ready to be called with numpy arrays. Every call leaves it as it was."""

    framework: str
    """``torch`` or ``keras``."""
    name: str
    has_modes: bool
    """Whether training and evaluation may differ."""

    def run(self, arrays: Arrays, how: Run) -> Outcome:
        """Call the layer once; random streams begin at the same place every time."""
        ...

    def run_twice(self, arrays: Arrays, how: Run) -> tuple[Outcome, Outcome]:
        """Call the layer twice in a row; random streams and state go on from the first call to the second."""
        ...

    def parameters(self, precision: str) -> dict[str, NDArray[Any]]:
        """Trainable parameters by name, in the number format in which they are held at a precision."""
        ...

    def origin(self, arrays: Arrays, how: Run, phase: str) -> Origin | None:
        """Where the first non-finite number of a call comes from, which was seen in the outputs or in the gradients."""
        ...

    def hand_written_gradient(self, arrays: Arrays) -> tuple[str, SourceLine | None] | None:
        """Name and place of a gradient that was written by hand, if there is one."""
        ...

    def definition(self) -> SourceLine | None:
        """Where the layer's own code begins; None if it is a framework's."""
        ...


def bench_for(layer: Any, signature: Signature, seed: int) -> Bench:
    """The bench for a layer.

    Args:
        layer: A module, layer, loss or function.
        signature: What it takes.
        seed: Of its random numbers.
    """
    if framework_of(layer) == "keras":
        from nan_callbacks.layer_check.keras_bench import KerasBench

        return KerasBench(layer, signature, seed)
    from nan_callbacks.layer_check.torch_bench import TorchBench

    return TorchBench(layer, signature, seed)
