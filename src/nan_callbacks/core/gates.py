"""Gates of a recurrent layer: what each of them was seen to do, and what may be said of all of them together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LSTM_GATES = ("input_gate", "forget_gate", "candidate", "output_gate")
GRU_GATES = ("reset_gate", "update_gate", "candidate")
SIMPLE_GATES = ("hidden",)


@dataclass(frozen=True, kw_only=True)
class GateObservation:
    """One gate over some rows and steps."""

    part: str = ""
    """Which layer and direction of a net of several, as torch names them: ``l0``, ``l1_reverse``."""
    name: str
    activation: str
    saturated_share: float | None = None
    """Share of its values within 1 % of a bound; None if its activation has none."""
    dead_share: float | None = None
    """Of a rectifier: share of the units that are zero in all rows and steps."""

    @property
    def path(self) -> str:
        """Name within the layer."""
        return f"{self.part}.{self.name}" if self.part else self.name


def taken_together(gates: Iterable[GateObservation]) -> tuple[GateObservation, ...]:
    """One observation for each layer and direction: that of its least saturated gate.

    A single gate may have made up its mind for good reasons, even before the first step (the forget gates of Tallec &
    Ollivier 2018, "Can recurrent neural networks warp time?", begin at a bound). If all of them have, nothing gets
    through. A layer with a gate that cannot saturate says nothing.
    """
    parts: dict[str, list[GateObservation]] = {}
    for gate in gates:
        parts.setdefault(gate.part, []).append(gate)
    made = []
    for part, own in parts.items():
        if len(own) == 1:
            made.append(own[0])
            continue
        shares = [gate.saturated_share for gate in own if gate.saturated_share is not None]
        if len(shares) == len(own):
            kinds = "/".join(dict.fromkeys(gate.activation for gate in own))
            made.append(GateObservation(part=part, name="gates", activation=kinds, saturated_share=min(shares)))
    return tuple(made)
