"""Gates inside of torch's fused recurrent layers: their values, computed anew from what went in and what came out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nan_callbacks.core.gates import GRU_GATES, LSTM_GATES, SIMPLE_GATES, GateObservation
from nan_callbacks.torch.recurrent_calls import (
    CELLS,
    FUSED,
    LEAST_POSITIONS,
    RecurrentCall,
    read_call,
    wide,
)

RECURRENT = FUSED | CELLS
"""Functions behind ``nn.LSTM``, ``nn.GRU``, ``nn.RNN`` and their cells."""

MOST_VALUES = 1 << 14
"""Values of a gate that are looked at: they tell a share to half a percent."""

AT_BOUND = math.log(99.0)
"""Where a sigmoid is within 1 % of a bound; a tanh, whose bounds are twice as far apart, at half of that."""

MOST_CALLS = 32
"""Calls of one layer that are looked at: a cell is called at every step."""

NAMES = {
    "lstm": tuple(zip(LSTM_GATES, ("sigmoid", "sigmoid", "tanh", "sigmoid"), strict=True)),
    "gru": tuple(zip(GRU_GATES, ("sigmoid", "sigmoid", "tanh"), strict=True)),
    "rnn_tanh": ((SIMPLE_GATES[0], "tanh"),),
    "rnn_relu": ((SIMPLE_GATES[0], "relu"),),
}
"""Gates and their activations, in the order of the rows of the weights."""


@dataclass
class GateNotes:
    """What was seen of one layer and direction, over some calls."""

    kind: str
    part: str
    weights: tuple[Tensor, ...]
    """As they were given to the call: parameters, if nothing computes them."""
    shares: list[float]
    """Saturated share of each gate; NaN if it had no other values."""
    alive: Tensor
    """Which units have not been zero everywhere."""
    calls: int = 1

    def observations(self) -> tuple[GateObservation, ...]:
        """What was seen, gate by gate."""
        if self.kind == "rnn_relu":
            dead = float((~self.alive).float().mean())
            return (GateObservation(part=self.part, name=SIMPLE_GATES[0], activation="relu", dead_share=dead),)
        return tuple(
            GateObservation(
                part=self.part, name=name, activation=activation, saturated_share=None if math.isnan(share) else share
            )
            for (name, activation), share in zip(NAMES[self.kind], self.shares, strict=True)
        )

    def is_like(self, other: GateNotes) -> bool:
        """Whether another call can be one of the same layer: a module may call several by themselves."""
        return self.kind == other.kind and self.alive.shape == other.alive.shape

    def join(self, other: GateNotes) -> None:
        """Another call of the same layer: shares are means over the calls."""
        self.calls += 1
        pairs = zip(self.shares, other.shares, strict=True)
        self.shares = [share + (new - share) / self.calls for share, new in pairs]
        self.alive = self.alive | other.alive


class GateWatch:
    """Takes down the gates of the recurrent layers that are called."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, GateNotes]] = {}

    def note(self, where: str, kind: str, args: Sequence[Any], output: Any) -> None:
        """A recurrent function was called.

        Args:
            where: Path of the running module.
            kind: The function.
            args: What it was given.
            output: What it returned.
        """
        known = self._seen.setdefault(where, {})
        if any(notes.calls >= MOST_CALLS for notes in known.values()):
            return
        for notes in notes_of(kind, args, output):
            same = known.setdefault(notes.part, notes)
            if same is not notes and same.is_like(notes):
                same.join(notes)

    def notes(self, where: str) -> list[GateNotes]:
        """What was seen of the recurrent calls inside of a module, layer by layer."""
        return list(self._seen.get(where, {}).values())

    @property
    def places(self) -> set[str]:
        """Paths of the modules in which there were recurrent calls."""
        return set(self._seen)


@torch.no_grad()
def notes_of(kind: str, args: Sequence[Any], output: Any) -> list[GateNotes]:
    """The gates of one call, layer by layer; none if it is of a form that is not known."""
    try:
        with torch.autocast(args[0].device.type, enabled=False):
            return list(_layers(read_call(kind, args, output)))
    except Exception:
        return []  # never the end of somebody's training step


def _layers(call: RecurrentCall) -> Iterator[GateNotes]:
    inputs = call.inputs
    if not inputs.numel() or not call.states.numel():
        return
    for layer in range(call.layers):
        states = call.states_of(layer, inputs)
        for direction, own in enumerate(states.chunk(call.directions, -1)):
            index = layer * call.directions + direction
            weights = call.weights[index]
            before = _before(own, call.start[0][index], call.lengths, is_reverse=direction == 1)
            valid = torch.arange(len(inputs))[:, None] < call.lengths
            places = valid.flatten().nonzero().squeeze(1).to(inputs.device)
            part = f"l{layer}{'_reverse' if direction else ''}" if call.layers * call.directions > 1 else ""
            alive = (own.flatten(0, 1)[places] != 0).any(0)
            most = max(LEAST_POSITIONS, MOST_VALUES // max(len(alive), 1))
            places = places[:: max(1, len(places) // most)]
            values = _values(call, inputs.flatten(0, 1)[places], before.flatten(0, 1)[places], weights)
            yield GateNotes(call.kind, part, weights, _shares(call.kind, values), alive)
        inputs = states


def _before(states: Tensor, start: Tensor, lengths: Tensor, *, is_reverse: bool) -> Tensor:
    """The state that a layer had before each step."""
    if not is_reverse:
        return torch.cat([start[None], states[:-1]])
    before = torch.cat([states[1:], start[None]])
    before[(lengths - 1).to(start.device), torch.arange(len(start), device=start.device)] = start
    return before


def _values(call: RecurrentCall, inputs: Tensor, before: Tensor, weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What goes into the activation of each gate; formulas: documentation of ``torch.nn.LSTM`` and ``torch.nn.GRU``."""
    of_input, of_state, *rest = (wide(weight, inputs.dtype) for weight in weights)
    biases = rest if call.has_biases else (0.0, 0.0)
    fed, kept = inputs @ of_input.t() + biases[0], before @ of_state.t() + biases[1]
    if call.kind != "gru":
        return (fed + kept).chunk(len(NAMES[call.kind]), -1)
    (reset, update, new), (old_reset, old_update, old) = fed.chunk(3, -1), kept.chunk(3, -1)
    opened = torch.special.expit(reset + old_reset)  # by a name that no probe of activations has replaced
    return reset + old_reset, update + old_update, new + opened * old


def _shares(kind: str, values: tuple[Tensor, ...]) -> list[float]:
    shares = []
    for (_, activation), value in zip(NAMES[kind], values, strict=True):
        limit = AT_BOUND if activation == "sigmoid" else AT_BOUND / 2
        known = ~value.isnan()
        shares.append(((value.abs() > limit) & known).sum() / known.sum())
    told: list[float] = torch.stack(shares).tolist()  # one read from the device
    return told
