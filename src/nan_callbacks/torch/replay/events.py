"""Events: moments at which a NaN or an Inf appeared that none of the operands explains."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.origin import Phase
from nan_callbacks.torch.replay.call_sites import Place
from nan_callbacks.torch.replay.forward_records import ForwardRecord
from nan_callbacks.torch.replay.known_tensors import Label
from nan_callbacks.torch.replay.tracer import Operation


@dataclass(eq=False)
class Event:
    """One appearance of a NaN or an Inf."""

    order: int
    operation: Operation | None = None
    """The operation that made it; None if it came from outside."""
    label: Label | None = None
    """What it came with from outside."""
    is_intentional: bool = False
    """An Inf that the code wrote down itself, such as a mask. Blamed only if nothing else is left."""
    from_inf: bool = False
    """A NaN out of an Inf, as in Inf - Inf."""
    parents: list[Event] = field(default_factory=list)
    """Where the non-finite operands came from."""
    operands: list[TensorSummary] = field(default_factory=list)
    result: TensorSummary | None = None
    gradient: TensorSummary | None = None
    """In the backward pass: the gradient that came in."""
    rows: tuple[int, ...] | None = None
    time_step: int | None = None
    absorbed_by: str = ""
    """The first operation of the forward pass that made a finite number of its Inf."""
    picked_from: str = ""
    """Of a lookup that picked -Inf out of a mask: the buffer that holds the mask."""

    @property
    def phase(self) -> Phase:
        """Where it happened."""
        return Phase.FORWARD if self.operation is None else self.operation.phase

    @property
    def forward(self) -> ForwardRecord | None:
        """Of a derivative: the forward operation."""
        return None if self.operation is None else self.operation.forward

    @property
    def module(self) -> nn.Module | None:
        """The module that was running, or that owns the tensor."""
        if self.operation is not None:
            return self.operation.module
        return None if self.label is None else self.label.owner

    @property
    def place(self) -> Place | None:
        """The user's line."""
        return None if self.operation is None else self.operation.place

    @property
    def site(self) -> tuple[int, Place | None, str]:
        """What is the same for two events at one place of the code."""
        native = "" if self.operation is None else self.operation.facts.native
        if self.forward is not None:
            native = self.forward.facts.native
        return id(self.module), self.place, native or (self.label.name if self.label else "")


def merged(groups: list[list[Event]]) -> list[Event]:
    """All events of several lists once, in the order in which they happened; at most 32."""
    found = {id(event): event for group in groups for event in group}
    return sorted(found.values(), key=lambda event: event.order)[:32]


def roots(events: list[Event]) -> list[Event]:
    """To whom the events lead back.

    A NaN out of an Inf is the fault of where that Inf came from, unless that was intended: then it is the fault of
    the operation that cannot take it (a softmax over a row that is masked throughout). What was intended is blamed
    only if nothing else is left.
    """
    found: dict[int, Event] = {}
    for event in events:
        for root in _lead_back(event, set()):
            found[id(root)] = root
    ordered = sorted(found.values(), key=lambda event: event.order)
    return [event for event in ordered if not event.is_intentional] or ordered


def _lead_back(event: Event, seen: set[int]) -> list[Event]:
    if id(event) in seen:
        return []
    seen.add(id(event))
    to_blame = [parent for parent in event.parents if not parent.is_intentional]
    if not event.from_inf or not to_blame:
        return [event]
    if event.forward is not None and any(_is_its_forward(event, parent) for parent in to_blame):
        return [event]  # the where trap: the forward value was Inf as well, but masked
    return [root for parent in to_blame for root in _lead_back(parent, seen)]


def _is_its_forward(event: Event, parent: Event) -> bool:
    record = event.forward
    return record is not None and parent.operation is not None and parent.operation.index == record.index
