"""What a replay of one step met: every operation with a non-finite result, and the verdict on where it began."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.blame import ELEMENTWISE, BlameGraph, Node, has_fresh
from nan_callbacks.diagnosis.operations import neutral_name
from nan_callbacks.diagnosis.origin import WRITTEN_BY_HAND, Origin, OriginKind, Phase
from nan_callbacks.keras.replay_layers import OUTSIDE, Place
from nan_callbacks.keras.replay_sites import Site

MAX_REMEMBERED = 64
"""Possible origins whose operands are summarised; an explosion in a long loop can have thousands."""
MAX_OTHERS = 8
"""Further origins that are told."""


class OutOfTimeError(Exception):
    """The replay's time is spent."""


@dataclass
class Happening:
    """One operation that made something non-finite."""

    native: str
    site: Site
    derivative: bool = False
    """Whether it computes a derivative of the site's operation."""
    late: bool = False
    """Whether it ran after the first gradient was computed."""
    optimizer: bool = False
    operands: tuple[TensorSummary, ...] = ()
    gradient: TensorSummary | None = None
    result: TensorSummary | None = None
    rows: tuple[int, ...] | None = None
    detail: str = ""


@dataclass(frozen=True)
class Given:
    """A part of the batch or a variable that was non-finite before the step."""

    name: str
    value: np.ndarray
    dtype: str
    place: Place = OUTSIDE
    is_trained: bool = True


@dataclass
class Ends:
    """Nodes of the non-finite values that a step ended in."""

    loss: list[int] = field(default_factory=list)
    gradients: list[int] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)


class Trace:
    """Notes of one replay.

    Args:
        to_numpy: Makes a numpy array of a backend's array.
        is_float: Whether a backend's array holds floating point or complex numbers.
        all_finite: Whether a floating point array is finite, the quickest way.
        rows: Rows of the batch, if it has a batch dimension.
        deadline: When to stop, on the clock of :func:`time.monotonic`.
    """

    def __init__(
        self,
        to_numpy: Callable[[Any], np.ndarray],
        is_float: Callable[[Any], bool],
        all_finite: Callable[[Any], bool],
        rows: int | None,
        deadline: float | None,
    ) -> None:
        self.graph = BlameGraph()
        self.operations = 0
        self._numpy, self._is_float, self._all_finite = to_numpy, is_float, all_finite
        self._rows = rows
        self._deadline = deadline
        self._remembered = 0

    def is_bad(self, value: Any) -> bool:
        """Whether a backend's array holds a NaN or an Inf."""
        return self._is_float(value) and not self._all_finite(value)

    def given(
        self,
        kind: OriginKind,
        name: str,
        value: Any,
        *,
        maskable: bool,
        place: Place = OUTSIDE,
        is_trained: bool = True,
    ) -> int | None:
        """Note something that was there before the step.

        Args:
            kind: ``BATCH`` or ``PARAMETERS``.
            name: Of the part or the variable.
            value: A backend's array.
            maskable: Whether -Inf in it may be a mask.
            place: The layer that holds it.
            is_trained: Whether an optimizer writes it.

        Returns:
            Its node, or None if it is finite.
        """
        if not self.is_bad(value):
            return None
        array = self._numpy(value)
        legal = maskable and not bool(np.isnan(array).any() or np.isposinf(array).any())
        return self.graph.given(kind, Given(name, array, dtype_name(value), place, is_trained), legal=legal)

    def count(self) -> None:
        """One more operation was looked at.

        Raises:
            OutOfTimeError: If the time is spent.
        """
        self.operations += 1
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise OutOfTimeError

    def operation(
        self, operands: Sequence[tuple[Any, int | None]], results: Sequence[Any], describe: Callable[[], Happening]
    ) -> list[int | None]:
        """Note one operation.

        Args:
            operands: Backend arrays that went in, each with its node if it is known to be non-finite.
            results: Backend arrays that came out.
            describe: Tells about the operation; called only if a result is non-finite.

        Returns:
            The node of each result, None for the finite ones.
        """
        bad = [self.is_bad(each) for each in results]
        if not any(bad):
            return [None] * len(bad)
        causes = [node for _, node in operands if node is not None]
        strangers = [value for value, node in operands if node is None and self.is_bad(value)]
        causes += [self.graph.constant() for _ in strangers]
        happening = describe()
        arrays = [self._numpy(value) for value, is_bad in zip(results, bad, strict=True) if is_bad]
        name = neutral_name(happening.native)
        fresh = not causes
        if causes and name in ELEMENTWISE:
            inputs = [self._numpy(value) for value, _ in operands]
            fresh = any(has_fresh(inputs, array) for array in arrays)
        has_nan = any(bool(np.isnan(array).any()) for array in arrays)
        node = self.graph.operation(name, causes, has_nan=has_nan, fresh=fresh, payload=happening)
        if self.graph.is_root(node) and self._remembered < MAX_REMEMBERED:
            self._remembered += 1
            result = next(value for value, is_bad in zip(results, bad, strict=True) if is_bad)
            happening.result = self.summary(result)
            happening.rows = bad_rows(arrays[0], self._rows)
            if not happening.operands:
                happening.operands = tuple(self.summary(value) for value, _ in operands)
        return [node if is_bad else None for is_bad in bad]

    def summary(self, value: Any, name: str = "") -> TensorSummary:
        """A backend's array in numbers."""
        return TensorSummary.of(self._numpy(value), name=name, dtype=dtype_name(value))

    def verdict(self, ends: Ends) -> tuple[Origin | None, tuple[Origin, ...]]:
        """Where the step's failure began.

        Returns:
            The origin, and others on independent ways.
        """
        for nodes in (ends.loss, ends.gradients, ends.weights):
            roots = self.graph.roots(nodes)
            if roots:
                origins = [self._origin(root, reached_loss=nodes is ends.loss) for root in roots]
                return origins[0], _distinct(origins)[: MAX_OTHERS + 1]
        return None, ()

    def _origin(self, node: Node, *, reached_loss: bool) -> Origin:
        if isinstance(node.payload, Given):
            given = node.payload
            assert node.kind is not None
            return Origin(
                kind=node.kind,
                operation=given.name,
                module=given.place.path,
                module_type=given.place.kind,
                module_is_custom=given.place.is_custom,
                is_trained=given.is_trained,
                detail="" if given.is_trained or node.legal else WRITTEN_BY_HAND,
                result=TensorSummary.of(given.value, name=given.name, dtype=given.dtype),
                rows=bad_rows(given.value, self._rows) if node.kind is OriginKind.BATCH else None,
            )
        if node.payload is None:
            return Origin(kind=OriginKind.OPERATION, operation="constant", detail="A constant of the program.")
        return self._of_operation(node.payload, reached_loss=reached_loss)

    def _of_operation(self, what: Happening, *, reached_loss: bool) -> Origin:
        site = what.site
        phase = Phase.FORWARD
        detail = what.detail
        if what.optimizer:
            phase = Phase.OPTIMIZER
        elif what.derivative or (what.late and not reached_loss):
            phase = Phase.BACKWARD
        elif not reached_loss:
            detail = detail or "The loss does not depend on its result, but the gradient does."
        operands = what.operands
        if what.gradient is not None:
            operands = (*operands, replace(what.gradient, name="gradient"))
        return Origin(
            kind=OriginKind.OPERATION,
            operation=neutral_name(site.native if what.derivative and not site.custom_gradient else what.native),
            native_operation=what.native,
            phase=phase,
            module=site.place.path,
            module_type=site.place.kind,
            module_is_custom=site.place.is_custom,
            custom_gradient=site.custom_gradient and phase is Phase.BACKWARD,
            source=site.source,
            operands=operands,
            result=what.result,
            rows=what.rows,
            time_step=site.time_step,
            detail=detail,
        )


def dtype_name(value: Any) -> str:
    """The dtype in the field's short form."""
    dtype = getattr(value, "dtype", None)
    return str(getattr(dtype, "name", dtype))


def bad_rows(array: np.ndarray, rows: int | None) -> tuple[int, ...] | None:
    """Rows with something non-finite, if the first dimension is the batch's."""
    if rows is None or array.ndim == 0 or array.shape[0] != rows:
        return None
    flat = ~np.isfinite(array.reshape(rows, -1))
    return tuple(int(row) for row in np.flatnonzero(flat.any(axis=1)))


def _distinct(origins: Iterable[Origin]) -> tuple[Origin, ...]:
    """All but the first, each operation of the program once."""
    first, *rest = list(origins)
    known = {_identity(first)}
    others = []
    for origin in rest:
        if _identity(origin) not in known:
            known.add(_identity(origin))
            others.append(origin)
    return tuple(others)


def _identity(origin: Origin) -> tuple[Any, ...]:
    return origin.kind, origin.operation, origin.module, origin.source
