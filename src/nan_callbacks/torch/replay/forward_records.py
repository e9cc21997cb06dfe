"""From a node of the autograd graph back to the forward operation that made it.

Autograd numbers its nodes as it makes them, and makes the node of an operation just before the operation is dispatched.
So the operation that sees a new number first is that node's operation; no anomaly mode is needed.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn, strided

from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.torch.replay.call_sites import Place
from nan_callbacks.torch.replay.op_facts import OpFacts
from nan_callbacks.torch.replay.summaries import summarise

if TYPE_CHECKING:
    from nan_callbacks.torch.replay.tracer import Operation

_SINGULAR = {
    "log", "xlogy", "logit", "divide", "reciprocal", "sqrt", "rsqrt", "cbrt", "power", "norm", "std", "var", "acos",
    "asin", "atan2", "acosh", "atanh", "erfinv", "tan", "multiply", "prod", "exp",
}  # fmt: skip
"""Neutral names of operations whose derivative can fail at finite operands: their operands are always kept."""
_KEPT_BYTES = 32 << 20
"""Operands of all other operations are kept up to this many bytes. Holding every activation would exhaust the memory
of a large model, and fresh memory is slow: with 256 MiB the replay of a small CNN took 1.25 to 1.5 times a step, with
nothing kept 1.05."""
_COPY_SLICES = "CopySlices"
"""A node that autograd wraps around that of an in-place write into a view; it is numbered right after the inner one."""


@dataclass(slots=True)
class ForwardRecord:
    """One forward operation that autograd made a node for."""

    facts: OpFacts
    module: nn.Module | None
    place: Place | None
    site_count: int
    index: int
    operands: list[tuple[str, Tensor, int]] = field(default_factory=list)
    """Name, tensor and the tensor's version then."""
    origin_of: ForwardRecord | None = None
    """If the operation was a derivative itself (a gradient penalty): the forward operation of that."""

    def summaries(self) -> list[TensorSummary]:
        """What went in, if it has not been overwritten since."""
        return [
            summarise(tensor, name)
            if _version(tensor) == version
            else TensorSummary(name=name, shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))
            for name, tensor, version in self.operands
        ]


class ForwardRecords:
    """The records of one replay, by autograd's sequence number and by thread, since each thread counts for itself."""

    def __init__(self) -> None:
        self._by_thread: dict[int, dict[int, ForwardRecord]] = {}
        self._last: dict[int, int] = {}
        self._main = threading.get_ident()
        self._kept = 0

    def note(self, number: int, operation: Operation) -> None:
        """An operation runs while ``number`` is the last one that autograd gave away."""
        thread = threading.get_ident()
        if number <= self._last.get(thread, -1):
            return
        self._last[thread] = number
        record = ForwardRecord(
            operation.facts, operation.module, operation.place, operation.site_count, operation.index
        )
        record.origin_of = operation.forward
        self._keep_operands(record, operation)
        self._by_thread.setdefault(thread, {})[number] = record

    def begin(self, number: int) -> None:
        """Nodes up to this number were made before the replay."""
        self._last[threading.get_ident()] = number

    def of_node(self, node: Any) -> ForwardRecord | None:
        """The record of a node's operation."""
        number, thread = node._sequence_nr(), threading.get_ident()
        record = self._by_thread.get(thread, {}).get(number)
        if record is None or thread != self._main:
            record = self._search(record, number, node.name())
        return record.origin_of or record if record is not None else None

    def _search(self, here: ForwardRecord | None, number: int, name: str) -> ForwardRecord | None:
        main = self._by_thread.get(self._main, {})
        if name.endswith(_COPY_SLICES):
            return main.get(number - 1)
        # Two threads may have given away the same number; the node's name tells which operation is meant.
        return here if here is not None and _fits(here, name) else main.get(number) or here

    def _keep_operands(self, record: ForwardRecord, operation: Operation) -> None:
        named = named_operands(operation)
        if operation.facts.neutral not in _SINGULAR:
            size = sum([tensor.nbytes for _, tensor in named if tensor.layout is strided])
            if self._kept + size > _KEPT_BYTES:
                return
            self._kept += size
        record.operands = [(name, tensor.detach(), _version(tensor)) for name, tensor in named]


def named_operands(operation: Operation) -> list[tuple[str, Tensor]]:
    """The tensors that went in, with the names of the operation's own signature."""
    found: list[tuple[str, Tensor]] = []
    pairs = [*zip(operation.facts.argument_names, operation.arguments, strict=False), *operation.keywords.items()]
    for name, value in pairs:
        if isinstance(value, Tensor):
            found.append((name, value))
        elif isinstance(value, (list, tuple)):
            found += [(f"{name}[{i}]", each) for i, each in enumerate(value) if isinstance(each, Tensor)]
    return found


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _fits(record: ForwardRecord, node_name: str) -> bool:
    name = record.facts.name.replace("_", "").lower()
    return node_name.lower().startswith(name)
