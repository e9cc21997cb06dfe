"""Notes of a replayed step in which nothing has failed yet: operations that are near the edge of their domain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nan_callbacks.checkup.facts import Hazard
from nan_callbacks.checkup.hazards import FLOORS, judge_operand
from nan_callbacks.diagnosis.operations import neutral_name
from nan_callbacks.keras.replay_trace import Happening, Trace

WATCHED = frozenset({"log", "divide", "reciprocal", "sqrt", "rsqrt", "exp"})

SAME_VALUES = frozenset({
    "reshape", "squeeze", "expand_dims", "expanddims", "broadcast_in_dim", "broadcastto", "identity", "cast",
    "transpose", "copy", "stop_gradient", "convert_element_type", "slice", "stridedslice", "dynamic_slice", "gather",
    "pack",
})  # fmt: skip
"""Operations whose results are values that went in."""

SUMS = frozenset({"sum", "reduce_sum", "mean"})
POSITIVE = frozenset({"exp", "softmax", "softplus", "sigmoid"})


@dataclass(frozen=True, eq=False)
class _Made:
    name: str
    operands: tuple[Any, ...]


class HazardTrace(Trace):
    """A trace that looks at the operands of the user's own operations, forward only."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.hazards: list[Hazard] = []
        self._makers: dict[int, _Made] = {}
        self._kept: list[Any] = []

    def operation(
        self, operands: Sequence[tuple[Any, int | None]], results: Sequence[Any], describe: Callable[[], Happening]
    ) -> list[int | None]:
        """Note one operation."""
        happening = describe()
        name = neutral_name(happening.native)
        values = tuple(value for value, _ in operands)
        self._kept.append((values, results))  # an address must not be used twice
        for each in results:
            self._makers[id(each)] = _Made(name, values)
        is_forward = not (happening.derivative or happening.late or happening.optimizer)
        if name in WATCHED and is_forward and happening.site.source is not None:
            self._look(name, values, happening)
        return super().operation(operands, results, lambda: happening)

    def _look(self, name: str, values: tuple[Any, ...], happening: Happening) -> None:
        position = 1 if name == "divide" and len(values) > 1 else 0
        if len(values) <= position or not self._is_float(values[position]):
            return
        operand = values[position]
        before = self._before(operand)
        summary = self.summary(operand)
        judged = judge_operand(name, summary, before)
        if judged is None or (name == "divide" and self._is_softmax(values)):
            return
        kind, bits = judged
        site = happening.site
        self.hazards.append(
            Hazard(
                operation=name,
                kind=kind,
                module=site.place.path,
                source=site.source,
                operand=summary,
                headroom_bits=bits,
                before=before,
            )
        )

    def _maker(self, value: Any) -> _Made | None:
        made = self._makers.get(id(value))
        while made is not None and made.name in SAME_VALUES and made.operands:
            made = self._makers.get(id(made.operands[0]))
        return made

    def _before(self, value: Any) -> str:
        """What made an operand: compositions that libraries write out are called by what they compute."""
        made = self._maker(value)
        if made is None:
            return ""
        if made.name == "divide" and self._is_softmax(made.operands):
            return "softmax"
        if made.name == "sqrt":
            inner = self._maker(made.operands[0])
            if inner is not None and inner.name in FLOORS:
                return inner.name
            return "norm" if inner is not None and inner.name in SUMS else "sqrt"
        if made.name in SUMS:
            inner = self._maker(made.operands[0])
            return "" if inner is not None and inner.name in POSITIVE else "sum"
        return made.name

    def _is_softmax(self, values: tuple[Any, ...]) -> bool:
        """Whether a quotient is exp(x) over its sum."""
        if len(values) < 2:
            return False
        above, below = self._maker(values[0]), self._maker(values[1])
        if above is None or below is None or above.name != "exp" or below.name not in SUMS:
            return False
        inner = self._maker(below.operands[0])
        return inner is not None and inner.name == "exp"
