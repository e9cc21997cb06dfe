"""Notes of a replayed step in which nothing has failed yet: operations that are near the edge of their domain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nan_callbacks.checkup.facts import Hazard
from nan_callbacks.checkup.hazards import BITS, FLOORS, LIMITS, POSITIVE, headroom_bits, is_outside, judge_operand
from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.operations import neutral_name
from nan_callbacks.keras.replay_sites import Site
from nan_callbacks.keras.replay_trace import Happening, OutOfTimeError, Trace, dtype_name

WATCHED = frozenset({"log", "divide", "reciprocal", "sqrt", "rsqrt", "exp"})

SAME_VALUES = frozenset({
    "reshape", "squeeze", "expand_dims", "expanddims", "broadcast_in_dim", "broadcastto", "identity", "cast",
    "transpose", "copy", "stop_gradient", "convert_element_type", "slice", "stridedslice", "dynamic_slice", "gather",
    "pack",
})  # fmt: skip
"""Operations whose results are values that went in."""

CHOOSING = frozenset({"select", "where", "selectv2", "select_n"})

SUMS = frozenset({"sum", "reduce_sum", "mean"})


@dataclass(frozen=True, eq=False)
class _Made:
    name: str
    operands: tuple[Any, ...]
    site: Site | None = None


class HazardTrace(Trace):
    """A trace that looks at the operands of the user's own operations, forward only."""

    ends_with_the_forward_pass = False
    """Whether the step is left once the first gradient is computed: the way back is longer and tells nothing."""

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
        if happening.derivative and self.ends_with_the_forward_pass:
            raise OutOfTimeError
        name = neutral_name(happening.native)
        values = tuple(value for value, _ in operands)
        self._kept.append((values, results))  # an address must not be used twice
        for each in results:
            self._makers[id(each)] = _Made(name, values, happening.site if happening.site.source is not None else None)
        is_forward = not (happening.derivative or happening.late or happening.optimizer)
        if is_forward and happening.site.source is not None:
            if name in WATCHED:
                self._look(name, values, happening)
            self._look_at_half(name, results, happening)
            if name in CHOOSING:
                self._look_at_choice(values)
        return super().operation(operands, results, lambda: happening)

    def _look(self, name: str, values: tuple[Any, ...], happening: Happening) -> None:
        position = 1 if name == "divide" and len(values) > 1 else 0
        if len(values) <= position or not self._is_float(values[position]):
            return
        operand = values[position]
        before = self._before(operand)
        summary = self.summary(operand)
        judged = judge_operand(name, summary, before, counts=self._is_count(operand))
        if judged is None or (name == "divide" and self._is_softmax(values)):
            return
        self._note(name, judged[0], happening.site, summary, judged[1], before)

    def _look_at_choice(self, values: tuple[Any, ...]) -> None:
        """A choice between values: of an operation outside of its domain the derivative is not chosen away."""
        for value in values:
            made = self._maker(value)
            if made is None or made.name not in WATCHED or made.site is None:
                continue
            position = 1 if made.name == "divide" and len(made.operands) > 1 else 0
            operand = made.operands[position]
            if self._is_float(operand) and is_outside(made.name, self.summary(operand)):
                self._note(made.name, "unguarded_gradient", made.site, self.summary(operand))

    def _look_at_half(self, name: str, results: Sequence[Any], happening: Happening) -> None:
        for each in results:
            if dtype_name(each) != "float16":
                continue
            summary = self.summary(each)
            largest = max(abs(summary.minimum or 0.0), abs(summary.maximum or 0.0))
            # The very largest number is written on purpose: a mask, or the bound of a clamp.
            if largest and largest != LIMITS["float16"] and headroom_bits(largest, "float16") < BITS:
                self._note(name, "half_precision", happening.site, summary, headroom_bits(largest, "float16"))

    def _note(
        self, name: str, kind: str, site: Site, operand: TensorSummary, bits: float | None = None, before: str = ""
    ) -> None:
        self.hazards.append(
            Hazard(
                operation=name,
                kind=kind,
                module=site.place.path,
                source=site.source,
                operand=operand,
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

    def _is_count(self, value: Any) -> bool:
        """Whether a value holds whole numbers of an integer type, or sums of ones."""
        made = self._makers.get(id(value))
        while made is not None and made.name in SAME_VALUES and made.operands:
            value = made.operands[0]
            if dtype_name(value).startswith(("int", "uint")):
                return True
            made = self._makers.get(id(value))
        if made is None or made.name not in SUMS or not self._is_float(made.operands[0]):
            return False
        summed = self.summary(made.operands[0])
        return summed.minimum == summed.maximum == 1.0

    def _is_softmax(self, values: tuple[Any, ...]) -> bool:
        """Whether a quotient is exp(x) over its sum."""
        if len(values) < 2:
            return False
        above, below = self._maker(values[0]), self._maker(values[1])
        if above is None or below is None or above.name != "exp" or below.name not in SUMS:
            return False
        inner = self._maker(below.operands[0])
        return inner is not None and inner.name == "exp"
