"""What a layer takes: shapes, kinds and names of its inputs and targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nan_callbacks.errors import ConfigurationError

Arrays: TypeAlias = dict[str, NDArray[Any]]
"""Inputs and targets by name, in the order of the arguments."""

KINDS = ("numbers", "positive", "probabilities", "mask", "indices")


@dataclass(frozen=True)
class InputSpec:
    """One input of a layer.

    Args:
        shape: With the batch dimension, such as ``(8, 16)``.
        kind: ``numbers``; ``positive`` numbers; ``probabilities``, which sum to 1 along the last dimension (unless that
            has a single entry); a ``mask`` of zeros and ones, 1 where a position counts; or integer ``indices``.
        dtype: Type of the numbers. Default: ``float32``; for indices ``int64``.
        high: Of indices: one more than the largest. Default: 2.
        name: How reports call it. Default: by its position.
    """

    shape: tuple[int, ...]
    kind: str = "numbers"
    dtype: str = "float32"
    high: int = 2
    name: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigurationError.of("kind", f"one of {', '.join(KINDS)}", self.kind, "See InputSpec.")
        if not self.shape or any(not isinstance(size, (int, np.integer)) or size < 1 for size in self.shape):
            raise ConfigurationError.of(
                "shape", "positive sizes, the batch dimension first", self.shape, "Write for example (8, 16)."
            )
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        if self.kind == "indices" and not np.issubdtype(np.dtype(self.dtype), np.integer):
            object.__setattr__(self, "dtype", "int64")

    @property
    def is_float(self) -> bool:
        """Whether the numbers are floats, which can be differentiated."""
        return np.dtype(self.dtype).kind == "f"


@dataclass(frozen=True)
class Signature:
    """All that a layer is called with."""

    inputs: tuple[InputSpec, ...]
    targets: tuple[InputSpec, ...] = ()
    by_name: bool = False
    """Whether the inputs were given as a dict."""

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """Inputs, then targets."""
        return (*self.inputs, *self.targets)

    @property
    def rows(self) -> int:
        """Size of the batch."""
        return self.inputs[0].shape[0]


def signature_of(input_spec: Any, target_spec: Any = None) -> Signature:
    """A signature, with a name for every part.

    Args:
        input_spec: A shape, an :class:`InputSpec`, or a list or dict of them.
        target_spec: Likewise; None: the layer takes no target.

    Raises:
        ConfigurationError: If it is none of these.
    """
    inputs = _named(input_spec, "input")
    targets = () if target_spec is None else _named(target_spec, "target")
    names = [spec.name for spec in (*inputs, *targets)]
    if len(set(names)) < len(names):
        raise ConfigurationError.of("name", "different for every input and target", names, "Rename one of them.")
    return Signature(inputs, targets, isinstance(input_spec, Mapping))


def _named(given: Any, role: str) -> tuple[InputSpec, ...]:
    if isinstance(given, Mapping) and given:
        return tuple(replace(_single(spec, role), name=str(name)) for name, spec in given.items())
    if isinstance(given, InputSpec) or _is_shape(given):
        spec = _single(given, role)
        return (replace(spec, name=spec.name or role),)
    if isinstance(given, Sequence) and not isinstance(given, str) and given:
        specs = [_single(spec, role) for spec in given]
        return tuple(replace(spec, name=spec.name or f"{role}[{index}]") for index, spec in enumerate(specs))
    return (_single(given, role),)


def _single(given: Any, role: str) -> InputSpec:
    if isinstance(given, InputSpec):
        return given
    if _is_shape(given):
        return InputSpec(tuple(given))
    raise ConfigurationError.of(
        f"{role}_spec", "a shape such as (8, 16), an InputSpec, or a list or dict of them", given, "See check_layer."
    )


def _is_shape(given: Any) -> bool:
    return (
        isinstance(given, (tuple, list)) and bool(given) and all(isinstance(size, (int, np.integer)) for size in given)
    )
