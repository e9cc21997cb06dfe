"""Who passed a NaN or an Inf on, and who made it: the non-finite part of one step as a graph.

A tracer notes every operation with a non-finite result, and which of its inputs were non-finite already. Walking back
from the loss and the gradients then ends at what made them so. Infinities that were written on purpose (the -inf of an
attention mask, the padding of a pooling) travel as *legal* ones: no blame until a NaN comes out of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nan_callbacks.diagnosis.origin import OriginKind

ELEMENTWISE = frozenset({
    "log", "log1p", "exp", "expm1", "exp2", "divide", "reciprocal", "sqrt", "rsqrt", "cbrt", "power", "multiply",
    "add", "subtract", "cast", "acos", "asin", "atan2", "acosh", "atanh", "erfinv", "sinh", "cosh", "tan", "xlogy",
    "lgamma", "digamma", "softplus", "maximum", "minimum", "max", "min", "neg", "negate",
})  # fmt: skip
"""Neutral names of operations that compute each element from the elements at the same place."""

MOVES = frozenset({
    "identity", "reshape", "broadcast_in_dim", "broadcast", "broadcastto", "fill", "tile", "expanddims",
    "expand_dims", "squeeze", "transpose", "slice", "stridedslice", "strided_slice", "dynamic_slice",
    "dynamic_update_slice", "concat", "concatv2", "concatenate", "pack", "unpack", "stack", "split", "splitv",
    "pad", "padv2", "select", "selectv2", "select_n", "gather", "gatherv2", "gathernd", "scatter", "rev", "reverse",
    "reversev2", "copy", "copy_p", "stop_gradient", "stopgradient", "cast", "onehot", "one_hot", "full", "rot90",
    "roll", "reduce_precision", "tensorlistgetitem", "tensorlistsetitem", "tensorliststack", "optimization_barrier",
    "pvary", "ensureshape", "snapshot",
})  # fmt: skip
"""Operations that only move values: a non-finite constant that goes through them is still the constant."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One thing that was non-finite."""

    index: int
    """In the order of occurrence."""
    kind: OriginKind | None
    """None: a constant of the program."""
    causes: tuple[int, ...] = ()
    """Nodes of the inputs that were non-finite already."""
    legal: bool = False
    """Nothing but infinities (or fill values) that were written on purpose."""
    fresh: bool = False
    """Some element is non-finite although all elements that it was computed from were finite."""
    payload: Any = None


@dataclass
class BlameGraph:
    """Nodes and the way back through them."""

    nodes: list[Node] = field(default_factory=list)

    def given(self, kind: OriginKind, payload: Any, *, legal: bool = False) -> int:
        """A part of the batch or a parameter that was non-finite before the step.

        Args:
            kind: ``BATCH`` or ``PARAMETERS``.
            payload: Whatever the tracer wants back.
            legal: Whether it may be a mask: -Inf is all that is wrong with it, and nobody trains it.
        """
        return self._add(kind=kind, payload=payload, legal=legal)

    def constant(self) -> int:
        """A non-finite constant of the program."""
        return self._add(kind=None, legal=True)

    def operation(self, name: str, causes: Iterable[int], *, has_nan: bool, fresh: bool, payload: Any = None) -> int:
        """An operation with a non-finite result.

        Args:
            name: Neutral name.
            causes: Nodes of its non-finite inputs.
            has_nan: Whether there is a NaN in the result.
            fresh: See :attr:`Node.fresh`.
            payload: Whatever the tracer wants back.
        """
        causes = tuple(dict.fromkeys(causes))
        only_legal = bool(causes) and all(self.nodes[cause].legal for cause in causes)
        legal = only_legal and not fresh and (not has_nan or name in MOVES)
        return self._add(kind=OriginKind.OPERATION, causes=causes, legal=legal, fresh=fresh, payload=payload)

    def is_root(self, index: int) -> bool:
        """Whether a walk back would end here (so that it is worth remembering what went in and out)."""
        node = self.nodes[index]
        return node.fresh or (not node.legal and all(self.nodes[cause].legal for cause in node.causes))

    def roots(self, ends: Iterable[int]) -> list[Node]:
        """What made the ends non-finite: first the batch, then parameters, then operations as they occurred.

        Args:
            ends: Nodes of loss, gradients or new parameters.
        """
        found: set[int] = set()
        seen: set[int] = set()
        todo = list(ends)
        while todo:
            index = todo.pop()
            if index in seen:
                continue
            seen.add(index)
            node = self.nodes[index]
            blamed = [cause for cause in node.causes if not self.nodes[cause].legal]
            if node.fresh or (node.kind is not OriginKind.OPERATION and not node.legal):
                found.add(index)
            elif not blamed:
                found.update(self._behind_legal(index))
            todo += blamed
        order = {OriginKind.BATCH: 0, OriginKind.PARAMETERS: 1}
        return sorted(
            (self.nodes[each] for each in found), key=lambda n: (order.get(n.kind, 2) if n.kind else 3, n.index)
        )

    def _behind_legal(self, index: int) -> set[int]:
        """Who answers for a NaN made of legal infinities: what was handed in, or else the operation that made it."""
        closure, todo = {index}, [index]
        while todo:
            new = set(self.nodes[todo.pop()].causes) - closure
            closure |= new
            todo += new
        handed_in = {each for each in closure if self.nodes[each].kind in (OriginKind.BATCH, OriginKind.PARAMETERS)}
        if handed_in or not self.nodes[index].legal:
            return handed_in or {index}
        return {min((each for each in closure if self.nodes[each].kind is OriginKind.OPERATION), default=index)}

    def _add(self, **fields: Any) -> int:
        self.nodes.append(Node(index=len(self.nodes), **fields))
        return len(self.nodes) - 1


def are_left_by_overflow(inputs: Sequence[np.ndarray], output: np.ndarray) -> bool:
    """Whether a quotient holds zeros, and each of them stands where one of the operands was infinite.

    Args:
        inputs: Operands, of shapes that broadcast to that of the result.
        output: The quotient.
    """
    infinite = np.zeros(output.shape, bool)
    for each in inputs:
        try:
            infinite = infinite | np.broadcast_to(np.isinf(each), output.shape)
        except ValueError:  # not elementwise after all
            return False
    zeros = output == 0
    return bool(zeros.any()) and bool(infinite[zeros].all())


def has_fresh(inputs: Sequence[np.ndarray], output: np.ndarray) -> bool:
    """Whether an elementwise operation made a non-finite element of finite ones.

    Args:
        inputs: Operands, of shapes that broadcast to that of the result.
        output: The result.
    """
    fresh = ~np.isfinite(output)
    for each in inputs:
        if each.dtype.kind in "biu":
            continue
        try:
            fresh = fresh & np.broadcast_to(np.isfinite(each), output.shape)
        except ValueError:  # not elementwise after all
            return False
    return bool(fresh.any())
