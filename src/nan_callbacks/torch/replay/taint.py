"""Follows every NaN and Inf through the memory of a step: who made it, and which tensors hold it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nan_callbacks.diagnosis.operations import ABSORBING, DIVIDING, FAILING_AT_ZERO, neutral_name
from nan_callbacks.diagnosis.origin import Phase
from nan_callbacks.torch.replay.events import Event, merged
from nan_callbacks.torch.replay.forward_records import named_operands
from nan_callbacks.torch.replay.known_tensors import KnownTensors, Source, storage_key, storage_ref
from nan_callbacks.torch.replay.rows import rows_of_result, time_of_result
from nan_callbacks.torch.replay.summaries import INF, NAN, is_floating, non_finite_mask, special_values, summarise
from nan_callbacks.torch.replay.tracer import Operation

_MOST_EVENTS = 200
"""Of later events the operands are not summarised: the first ones are what matters, and summaries take time."""
_MOST_COPIED = 1 << 24
"""Elements of a tensor that is copied before it is overwritten, so that its old values can be told."""


@dataclass
class _Memory:
    """What is known of one storage."""

    ref: object
    """Held so that the storage's identity is not given to another one."""
    events: list[Event] = field(default_factory=list)
    """Whose NaN or Inf it may hold; empty if all its values are finite."""
    made_by: Any = None
    """Autograd node in whose derivative it was written."""
    is_gradient: bool = False
    """Whether it was written in the backward pass."""
    zeroed: list[Event] = field(default_factory=list)
    """Whose Inf is a zero in it, since something was divided by it."""


@dataclass
class _Operand:
    tensor: Tensor
    special: int
    events: list[Event]


class Taint:
    """An observer that keeps the books.

    Args:
        known: Tensors from outside.
        batch_size: Rows of the batch; 0 if unknown.
    """

    def __init__(self, known: KnownTensors, batch_size: int) -> None:
        self._known = known
        self.batch_size = batch_size
        self._memory: dict[int, _Memory] = {}
        self._events: list[Event] = []
        self._operands: list[_Operand] = []
        self._zeroed: list[Event] = []
        """Events of which the operands hold nothing but zeros."""
        self._old: list[Tensor] = []
        self._described = 0
        self._read: set[int] = set()
        """Memory of the operands, by id."""
        self._last_read: list[Event] = []
        self._last_number: list[Event] = []
        """Events of the last number read that was a NaN or an Inf itself."""
        self._gradient: tuple[Any, Tensor] | None = None
        self.accumulated: dict[str, list[Event]] = {}
        """Events that reached the gradient of a parameter while it was written, by the parameter's name."""
        self.failed_operation: tuple[Operation, Exception, list[Event]] | None = None
        """The last operation that raised, with the events of its operands."""
        self.uses: dict[int, int] = {}
        """How often each parameter was read in the forward pass, by id."""
        self._last_custom: Operation | None = None

    # ---- what others ask

    def events_of(self, tensor: Tensor) -> list[Event]:
        """Whose NaN or Inf a tensor holds; empty if all its values are finite."""
        special = special_values(tensor)
        return self._look_up(tensor).events if special else []

    @property
    def last_read(self) -> list[Event]:
        """Whose NaN or Inf the last number came from that Python code read out of a tensor."""
        return self._last_read

    def mark_gradient(self, tensor: Tensor) -> None:
        """A tensor is the gradient with which the backward pass begins."""
        self._look_up(tensor).is_gradient = True

    def absorber_of(self, operation: Operation) -> str:
        """What has made finite numbers of the Inf that an operation, or the one that it differentiates, had made.

        Args:
            operation: Of either pass.

        Returns:
            A neutral name; empty if there is none: what it made was finite, or chosen by nobody.
        """
        index = operation.index if operation.forward is None else operation.forward.index
        made = (each for each in self._events if each.operation is not None and each.operation.index == index)
        return next((each.absorbed_by for each in made if each.absorbed_by), "")

    # ---- the observer

    def before(self, operation: Operation) -> None:
        """Judge the operands before anything is overwritten."""
        self._operands, self._zeroed = [], []
        self._read = set()
        if operation.custom_function:
            self._last_custom = operation
        self._old = operation.inputs
        if operation.facts.needs_old_value:
            self._old = [t.clone() if is_floating(t) and t.numel() <= _MOST_COPIED else t for t in operation.inputs]
        ignored = self._ignored(operation)
        for tensor, old in zip(operation.inputs, self._old, strict=True):
            if isinstance(tensor, nn.Parameter) and operation.phase is Phase.FORWARD:
                self.uses[id(tensor)] = self.uses.get(id(tensor), 0) + 1
            memory = self._look_up(tensor, operation)
            self._read.add(id(memory))
            self._zeroed += memory.zeroed
            if memory.events and id(tensor) not in ignored:
                special = special_values(tensor)
                if special or not is_floating(tensor):
                    self._operands.append(_Operand(old, special, memory.events))
            if operation.node is not None and memory.is_gradient and memory.made_by is not operation.node:
                self._see_gradient(operation, tensor)
        if operation.node is not None and not operation.python_gradient and _accumulates(operation.node):
            self._see_accumulation(operation)

    def after(self, operation: Operation, outputs: list[Tensor]) -> None:
        """Judge the results."""
        facts = operation.facts
        if facts.is_view:
            return
        if facts.name == "_local_scalar_dense":
            self._last_read = merged([operand.events for operand in self._operands])
            if any(operand.special for operand in self._operands):
                self._last_number = self._last_read
            return
        written = self._written(operation)
        for tensor in written or outputs:
            # An output that shares memory with an operand although the schema does not say so (`unsafe_split`).
            if not written and id(self._memory.get(storage_key(tensor))) in self._read:
                continue
            self._judge(operation, tensor, is_partial=bool(written) and not _covers(tensor))

    def failed(self, operation: Operation, error: Exception) -> None:
        """The operation raised an error."""
        self.failed_operation = operation, error, merged([operand.events for operand in self._operands])

    # ---- books

    def _look_up(self, tensor: Tensor, operation: Operation | None = None) -> _Memory:
        key = storage_key(tensor)
        memory = self._memory.get(key)
        if memory is None:
            memory = self._memory[key] = _Memory(storage_ref(tensor))
            special = special_values(tensor)
            if special:
                memory.events = [self._from_outside(tensor, special, operation)]
        return memory

    def _enter(self, tensor: Tensor, events: list[Event], operation: Operation, *, keep: bool) -> None:
        key = storage_key(tensor)
        memory = self._memory.get(key)
        if memory is None:
            memory = self._memory[key] = _Memory(storage_ref(tensor))
        memory.events = merged([memory.events, events]) if keep and memory.events else events
        memory.made_by = operation.node
        memory.is_gradient = operation.phase is Phase.BACKWARD

    def _written(self, operation: Operation) -> list[Tensor]:
        found: list[Tensor] = []
        for position, name in operation.facts.written:
            given = operation.arguments
            value = given[position] if position < len(given) else operation.keywords.get(name)
            found += [value] if isinstance(value, Tensor) else value if isinstance(value, (list, tuple)) else []
        return found

    def _ignored(self, operation: Operation) -> set[int]:
        """Tensors, by id, that are overwritten without regard to what they hold."""
        facts = operation.facts
        return {id(t) for t in self._written(operation)} if facts.written and not facts.needs_old_value else set()

    # ---- judgement

    def _judge(self, operation: Operation, tensor: Tensor, *, is_partial: bool) -> None:
        if not is_floating(tensor):
            # Numbers made of a NaN (comparisons, counts) carry its name, for errors that they lead to.
            events = merged([operand.events for operand in self._operands])
            self._enter(tensor, events, operation, keep=is_partial)
            return
        if operation.facts.is_uninitialised:
            # What is there is of interest only if somebody reads it before it is overwritten.
            self._enter(tensor, [self._uninitialised(operation)], operation, keep=False)
            return
        clean = not self._operands
        if clean and operation.facts.stays_finite and not operation.facts.written:
            self._enter(tensor, [], operation, keep=False)
            self._look_up(tensor).zeroed = self._zeroed if operation.facts.is_lookup else []
            return
        special = special_values(tensor)
        if not special:
            self._see_absorption(operation)
        events = self._explain(operation, tensor, special) if special else []
        self._enter(tensor, events, operation, keep=is_partial)
        self._look_up(tensor).zeroed = self._left_by_overflow(operation, tensor)

    def _left_by_overflow(self, operation: Operation, tensor: Tensor) -> list[Event]:
        """Events whose Inf has become a zero of a quotient, or was picked out of one as such."""
        if operation.facts.is_lookup:
            return self._zeroed
        infinite = [operand for operand in self._operands if operand.special & INF]
        if operation.phase is not Phase.FORWARD or operation.facts.neutral not in DIVIDING or not infinite:
            return []
        zeros = tensor.detach() == 0
        try:
            others = zeros & ~torch.stack([(torch.isinf(each.tensor) & zeros) for each in infinite]).any(0)
        except RuntimeError:  # not of one shape
            return []
        return merged([each.events for each in infinite]) if bool(zeros.any()) and not bool(others.any()) else []

    def _see_absorption(self, operation: Operation) -> None:
        name = neutral_name(operation.facts.native)
        if operation.phase is not Phase.FORWARD or name not in ABSORBING:
            return
        for event in merged([operand.events for operand in self._operands if operand.special]):
            event.absorbed_by = event.absorbed_by or name

    def _explain(self, operation: Operation, tensor: Tensor, special: int) -> list[Event]:
        causes = [operand for operand in self._operands if operand.special]
        parents = merged([operand.events for operand in causes])
        had = 0
        for operand in causes:
            had |= operand.special
        is_constant = _has_special_constant(operation)
        if is_constant and self._last_number:
            return merged([parents, self._last_number])  # a number that came out of a tensor goes into another one
        if not had:
            left = self._zeroed if operation.facts.neutral in FAILING_AT_ZERO else []
            parents = merged([parents, left])
            return [self._new(operation, tensor, parents, is_intentional=is_constant, from_inf=bool(left))]
        if operation.facts.is_pointwise and operation.phase is Phase.FORWARD and not is_constant:
            own = _positions_without_cause(tensor, causes)
            if own is not None and bool(own.any()):
                new = self._new(operation, tensor, [], mask=own)
                return merged([parents, [new]]) if special & ~NAN or not _same(own, tensor) else [new]
        if special & NAN and not had & NAN and not is_constant:
            return [self._new(operation, tensor, parents, from_inf=True)]
        if special & INF and not had & INF:
            return merged([parents, [self._new(operation, tensor, [], is_intentional=is_constant)]])
        masks = [event.label for event in parents if event.is_intentional and event.label is not None]
        if operation.facts.is_lookup and masks and len(masks) == len(parents):
            # A mask is legal. Whoever reads one of its entries by an index is to blame if that reaches the loss.
            picked = self._new(operation, tensor, parents, is_intentional=True)
            picked.picked_from = masks[0].name
            return [picked]
        return parents

    def _uninitialised(self, operation: Operation) -> Event:
        event = Event(len(self._events), operation, None, is_intentional=True)
        self._events.append(event)
        return event

    def _new(
        self,
        operation: Operation,
        tensor: Tensor,
        parents: list[Event],
        *,
        is_intentional: bool = False,
        from_inf: bool = False,
        mask: Tensor | None = None,
    ) -> Event:
        event = Event(len(self._events), operation, None, is_intentional, from_inf, parents)
        if self._described < _MOST_EVENTS:
            self._described += 1
            self._describe(event, operation, tensor, mask)
        self._events.append(event)
        return event

    def _describe(self, event: Event, operation: Operation, tensor: Tensor, mask: Tensor | None) -> None:
        names = named_operands(operation)
        before = {id(tensor): old for tensor, old in zip(operation.inputs, self._old, strict=True)}
        event.operands = [summarise(before.get(id(value), value), name) for name, value in names]
        event.result = summarise(tensor, "result")
        bad = non_finite_mask(tensor) if mask is None else mask
        event.rows = rows_of_result(bad, operation, self.batch_size)
        event.time_step = time_of_result(bad, operation)
        if operation.node is not None:
            event.gradient = self._gradient_of(operation)

    # ---- the backward pass

    def _see_gradient(self, operation: Operation, tensor: Tensor) -> None:
        self._gradient = operation.node, tensor
        for event in self._events[-4:]:
            made_here = event.operation is not None and event.operation.node is operation.node
            if made_here and event.gradient is None:
                event.gradient = summarise(tensor, "gradient")

    def _gradient_of(self, operation: Operation) -> Any:
        if self._gradient is not None and self._gradient[0] is operation.node:
            return summarise(self._gradient[1], "gradient")
        named = [value for name, value in named_operands(operation) if name.startswith("grad")]
        return summarise(named[0], "gradient") if named else None

    def _see_accumulation(self, operation: Operation) -> None:
        name = self._known.parameter(operation.node.variable)
        # The stored gradient is what is written; whatever else goes in has just arrived.
        for operand in self._operands:
            if operand.special:
                self.accumulated[name] = merged([self.accumulated.get(name, []), operand.events])

    # ---- from outside

    def _reader(self, operation: Operation | None) -> Operation | None:
        """Who is to be named for a tensor that no operation made: NumPy inside of a custom backward, if one has run."""
        if self._last_custom is not None and (operation is None or operation.phase is Phase.BACKWARD):
            return self._last_custom
        return operation

    def _from_outside(self, tensor: Tensor, special: int, operation: Operation | None) -> Event:
        label = self._known.find(tensor)
        only_inf = special == INF
        if label.source is Source.BATCH:
            intentional = only_inf and not bool((tensor.detach() == math.inf).any())
        else:
            in_gradient = operation is None or operation.phase is Phase.BACKWARD
            is_mask = label.source is Source.BUFFER or (label.source is Source.ELSEWHERE and not in_gradient)
            intentional = only_inf and is_mask
        maker = self._reader(operation) if label.source is Source.ELSEWHERE else None
        event = Event(len(self._events), maker, label, intentional)
        event.result = summarise(tensor, label.name)
        event.operands = [event.result]
        if label.source is Source.BATCH or operation is not None:
            bad = non_finite_mask(tensor) if tensor.layout is torch.strided else None
            if bad is not None and bad.dim() and bad.shape[0] == self.batch_size:
                event.rows = tuple(bad.reshape(bad.shape[0], -1).any(1).nonzero().flatten().tolist())
        self._events.append(event)
        return event


def _accumulates(node: Any) -> bool:
    return type(node).__name__ == "AccumulateGrad"


def _covers(tensor: Tensor) -> bool:
    """Whether a tensor is all of its storage."""
    try:
        return tensor.numel() * tensor.element_size() >= tensor.untyped_storage().nbytes()
    except (NotImplementedError, RuntimeError):
        return True


def _has_special_constant(operation: Operation) -> bool:
    values = [*operation.arguments, *operation.keywords.values()]
    return any(isinstance(value, float) and not math.isfinite(value) for value in values)


def _positions_without_cause(result: Tensor, causes: list[_Operand]) -> Tensor | None:
    """True where the result is non-finite although every operand is finite at that position."""
    own = non_finite_mask(result)
    try:
        for operand in causes:
            own = own & ~non_finite_mask(operand.tensor).to(own.device)
    except RuntimeError:
        return None
    return own if own.shape == result.shape else None


def _same(own: Tensor, result: Tensor) -> bool:
    return bool((own == non_finite_mask(result)).all())
