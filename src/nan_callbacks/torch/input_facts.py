"""Where the tensors of a batch go in a recorded step: which layers and tables receive them, and as what."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, isfinite, strided
from torch import bool as boolean

from nan_callbacks.checkup.facts import InputFacts, Lookup
from nan_callbacks.checkup.lookups import over_all_rows
from nan_callbacks.torch.call_kinds import (
    NORMALISING,
    SAME_VALUES,
    TABLES,
    WEIGHTED,
    as_array,
    made_by,
    operand_of,
    root_of,
    sources_of,
    weight_of,
)
from nan_callbacks.torch.lab_batch import tensors_of
from nan_callbacks.torch.loss_calls import KINDS
from nan_callbacks.torch.recorder import Call, Recorder

COMPARING = frozenset({*KINDS, "eq", "gather", "cosine_similarity", "log_prob", "dist", "cdist"})
"""Calls that take what layers have returned together with what they should have returned."""

JOINING = frozenset({"cat", "stack", "add", "concat", "concatenate", "hstack"})
"""Calls whose results hold an input beside what layers have returned."""


def inputs_of(
    recorder: Recorder, batch: Any, rows: Mapping[int, Any], picking: Collection[str] = ()
) -> tuple[InputFacts, ...]:
    """The tensors of the batch, each with what it is used for.

    Args:
        recorder: The recorded step.
        batch: As the step received it.
        rows: Values of the batch's tensors over all rows that were read, by ``id`` of the tensor.
        picking: Parts of the batch by which the step moves values between its layers.
    """
    named = [(name, tensor) for name, tensor in tensors_of(batch) if id(tensor) in rows]
    ways = _Ways(
        tuple(id(tensor) for _, tensor in named), frozenset(id(tensor) for name, tensor in named if name in picking)
    )
    for call in recorder.calls:
        ways.follow(call)
    behind = _normalised(recorder)
    return tuple(
        replace(
            _input(recorder, name, tensor, rows[id(tensor)], ways, behind),
            batch_has_gaps=_has_gaps(tensor),
        )
        for name, tensor in named
    )


def _has_gaps(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.layout is strided and not bool(isfinite(tensor).all())


@dataclass
class _Ways:
    """How far the tensors of the batch have come, by the ``id`` of the tensor of the batch."""

    inputs: tuple[int, ...]
    picking: frozenset[int] = frozenset()
    """Those by which values are moved between layers: what they pick is not compared with them."""
    tainted: dict[int, frozenset[int]] = field(init=False)
    """What tensors are made of."""
    reached: dict[int, Call] = field(default_factory=dict)
    """The first call with weights that each of them reaches."""
    lookups: dict[int, list[Call]] = field(default_factory=dict)
    """The calls that look rows of a table up with it; of several, with the first."""
    masks: set[int] = field(default_factory=set)
    compared: set[int] = field(default_factory=set)
    unsure: set[int] = field(default_factory=set)
    """Inputs that their first layer receives together with others: what it receives says nothing about one of them."""
    _computed: set[int] = field(default_factory=set)
    _mixed: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.tainted = {key: frozenset([key]) for key in self.inputs}

    def follow(self, call: Call) -> None:
        """One call, in the order of the step."""
        sources = [tensor for tensor in call.tensors if id(tensor) in self.tainted]
        is_layer = weight_of(call) is not None
        others = any(id(tensor) in self._computed for tensor in call.tensors)
        made = call.results if call.name in SAME_VALUES else [] if call.result is None else [call.result]
        if is_layer or others:
            self._computed.update(map(id, made))
        if not sources:
            return
        if is_layer:
            self._reach(call)
            return
        self._note_use(call, sources, others)
        if call.name not in WEIGHTED:
            self._pass_on(call, made, sources, others)

    def _reach(self, call: Call) -> None:
        operand = operand_of(call)
        keys = () if operand is None else self._keys([operand])
        for key in keys:
            if key not in self.reached and id(operand) in self._mixed:
                self.unsure.add(key)
            self.reached.setdefault(key, call)
        if keys and call.name in TABLES:
            self.lookups.setdefault(keys[0], []).append(call)

    def _note_use(self, call: Call, sources: Sequence[Tensor], others: bool) -> None:
        given_as_mask = [value for key, value in call.kwargs.items() if "mask" in key]
        for tensor in sources:
            if tensor.dtype == boolean or any(tensor is each for each in given_as_mask):
                self.masks.update(self.tainted[id(tensor)])
            elif call.name in COMPARING and others:
                self.compared.update(self.tainted[id(tensor)] - (self.picking if call.name == "gather" else set()))

    def _pass_on(self, call: Call, made: Sequence[Tensor], sources: Sequence[Tensor], others: bool) -> None:
        if not made:
            return
        if others and call.name not in JOINING:
            # It scales or gates what layers have returned; what comes of that is theirs.
            self.masks.update(self._keys(sources) if call.name in ("mul", "where", "masked_fill") else ())
            return
        carried = [tensor for tensor in sources_of(call) if id(tensor) in self.tainted]
        keys = self._keys(carried)
        if not keys:
            return
        self.tainted.update((id(result), frozenset(keys)) for result in made)
        if others or len(keys) > 1 or any(id(tensor) in self._mixed for tensor in carried):
            self._mixed.update(map(id, made))

    def _keys(self, tensors: Sequence[Tensor]) -> tuple[int, ...]:
        """The inputs that some tensors are made of, in the order of the batch."""
        keys = frozenset().union(*(self.tainted.get(id(tensor), ()) for tensor in tensors))
        return tuple(key for key in self.inputs if key in keys)


def _normalised(recorder: Recorder) -> set[int]:
    """Calls whose result goes into a normalisation at once."""
    found = set()
    for call in recorder.calls:
        if call.name in NORMALISING:
            operand = next(iter(call.tensors), None)
            maker = None if operand is None else made_by(recorder, operand)
            found.add(id(maker))
    return found


def _input(recorder: Recorder, name: str, tensor: Tensor, values: Any, ways: _Ways, behind: set[int]) -> InputFacts:
    key = id(tensor)
    reached = ways.reached.get(key)
    lookups = tuple(_lookup(recorder, call, tensor, values) for call in ways.lookups.get(key, ()))
    if reached is None:
        use = "mask" if key in ways.masks else "target" if key in ways.compared else ""
        return InputFacts(name=name, values=values, use=use or ("mask" if values.dtype.kind == "b" else "unknown"))
    layer = reached.module or reached.name
    if reached.name in TABLES:
        return InputFacts(
            name=name,
            values=values,
            use="indices",
            first_layer=layer,
            lookups=lookups,
            normalised_after=id(reached) in behind,
        )
    convolves = reached.name.startswith("conv")
    return InputFacts(
        name=name,
        values=values,
        use="numbers",
        first_layer=layer,
        received=None if key in ways.unsure else reached.facts.get("received"),
        normalised_after=id(reached) in behind,
        channel_axis=1 if convolves or values.ndim == 4 else -1,
        lookups=lookups,
    )


def _lookup(recorder: Recorder, call: Call, source: Tensor, rows: Any) -> Lookup:
    """What a table received of a tensor of the batch: of all rows that were read, if it received values as they are."""
    operand, weight = operand_of(call), weight_of(call)
    assert operand is not None
    assert weight is not None
    table = call.module or call.name
    if operand is source:
        return Lookup(table=table, rows=int(weight.shape[0]), values=rows)
    # A call that raised an error was not measured: its operand is as it was then.
    received = call.facts["received"] if "received" in call.facts else as_array(operand)
    if root_of(recorder, operand) is source:
        every = over_all_rows(received, as_array(source), rows)
        received = received if every is None else every
    return Lookup(table=table, rows=int(weight.shape[0]), values=received)
