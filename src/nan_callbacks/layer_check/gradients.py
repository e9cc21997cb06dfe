"""Is the gradient that of the function? Compared with central finite differences in float64."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nan_callbacks.layer_check.bench import Bench, Outcome, Run
from nan_callbacks.layer_check.spec import Arrays, Signature

MOST_ELEMENTS = 16
"""Elements compared of each input and parameter."""
WIDE = "float64"


@dataclass(frozen=True)
class Mismatch:
    """One derivative that is not that of the function."""

    name: str
    index: tuple[int, ...]
    analytic: float
    numeric: float

    @property
    def error(self) -> float:
        """Relative to the larger of the two."""
        return abs(self.analytic - self.numeric) / max(abs(self.analytic), abs(self.numeric))

    def describe(self) -> str:
        """One sentence."""
        place = f"{self.name}[{', '.join(map(str, self.index))}]"
        return (
            f"the gradient of {place} is {self.analytic:.6g}, finite differences give {self.numeric:.6g} "
            f"(off by {self.error:.2g})"
        )


class CannotCompareError(Exception):
    """The gradient cannot be compared; the message says why."""


class GradientCheck:
    """Compares derivatives of a fixed weighted sum of the outputs, in evaluation mode.

    Args:
        bench: The layer.
        signature: What it takes.
        seed: Chooses weights and elements.
    """

    def __init__(self, bench: Bench, signature: Signature, seed: int) -> None:
        self._bench, self._signature, self._seed = bench, signature, seed

    def mismatches(self, arrays: Arrays, names: Iterable[str] = ()) -> list[Mismatch]:
        """The worst wrong derivative of each input and parameter.

        Args:
            arrays: Where to compare.
            names: Only of these. Default: of all.

        Raises:
            CannotCompareError: If there is nothing to compare.
        """
        function = _Function(self._bench, arrays, self._seed)
        analytic = function.analytic()
        parameters = self._bench.parameters(WIDE)
        inputs = {
            s.name: arrays[s.name].astype(WIDE) for s in self._signature.inputs if s.is_float and s.kind != "mask"
        }
        found = []
        for name, values in {**inputs, **parameters}.items():
            if names and name not in names:
                continue
            gradient = analytic.get(name, np.zeros(values.shape))
            worst = self._worst(function, name, values, np.asarray(gradient, np.float64))
            found += [] if worst is None else [worst]
        return found

    def _worst(
        self, function: _Function, name: str, values: NDArray[Any], gradient: NDArray[np.float64]
    ) -> Mismatch | None:
        rng = np.random.default_rng(self._seed)
        chosen = rng.permutation(values.size)[:MOST_ELEMENTS]
        scale = max(1.0, float(np.abs(gradient).max(initial=0.0)))
        wrong = []
        for flat in chosen:
            index = tuple(int(each) for each in np.unravel_index(flat, values.shape))
            numeric = function.slope(name, values, index, float(gradient[index]), scale)
            if numeric is not None:
                wrong.append(Mismatch(name, index, float(gradient[index]), numeric))
        return max(wrong, key=lambda each: each.error, default=None)


class _Function:
    """The weighted sum of the outputs as a function of single elements."""

    def __init__(self, bench: Bench, arrays: Arrays, seed: int) -> None:
        self._bench, self._arrays = bench, arrays
        plain, again = (self._checked(bench.run(arrays, Run(precision=WIDE))) for _ in range(2))
        if not plain.outputs or plain.phase:
            raise CannotCompareError("there is no finite output in floating point")
        if any(not np.array_equal(a, b) for a, b in zip(plain.outputs, again.outputs, strict=True)):
            raise CannotCompareError("the output differs from call to call")
        rng = np.random.default_rng(seed)
        self._weights = [rng.standard_normal(output.shape) for output in plain.outputs]
        self._middle = self._sum(plain)
        # Code that computes in float32 whatever it is given needs longer steps and a wider tolerance.
        self._is_narrow = all(_is_float32_inside(output) for output in plain.outputs) or self._is_rough(plain)

    def _is_rough(self, plain: Outcome) -> bool:
        """Whether three points close together lie on no straight line: something inside rounds to float32."""
        wide = {name: array.astype(WIDE) for name, array in self._arrays.items() if array.dtype.kind == "f"}
        directions = {
            name: np.random.default_rng(len(name)).standard_normal(array.shape) for name, array in wide.items()
        }
        sums = []
        for step in (0.0, 1e-7, 2e-7):
            moved = {name: array + step * np.abs(array) * directions[name] for name, array in wide.items()}
            outcome = self._bench.run({**self._arrays, **moved}, Run(precision=WIDE, may_compile=True))
            sums.append(np.nan if outcome.error is not None else self._sum(outcome))
        pairs = zip(self._weights, plain.outputs, strict=True)
        size = float(sum(np.abs(weight * output).sum() for weight, output in pairs))
        return bool(wide) and abs(sums[0] - 2 * sums[1] + sums[2]) > 1e-12 * size

    def analytic(self) -> dict[str, NDArray[Any]]:
        how = Run(precision=WIDE, gradients=True, cotangents=self._weights, may_compile=True)
        outcome = self._checked(self._bench.run(self._arrays, how))
        if not outcome.differentiable:
            raise CannotCompareError("the output cannot be differentiated")
        if outcome.phase:
            raise CannotCompareError("the gradient is non-finite")
        return dict(outcome.gradients)

    def slope(
        self, name: str, values: NDArray[Any], index: tuple[int, ...], analytic: float, scale: float
    ) -> float | None:
        """The finite difference, if it contradicts the analytic derivative beyond doubt; else None."""
        narrow_values = values.dtype != np.float64
        step, relative = (2**-6, 2e-2) if self._is_narrow else (2**-9, 2e-3) if narrow_values else (2**-16, 1e-4)
        low = 5e-3 if self._is_narrow else 1e-4 if narrow_values else 1e-6
        step *= max(1.0, abs(float(values[index])))
        central, forward, backward = self._differences(name, values, index, step)
        tolerance = relative * max(abs(analytic), abs(central)) + low * scale
        if not np.isfinite(central) or abs(central - analytic) <= tolerance:
            return None
        half = self._differences(name, values, index, step / 2)[0]
        # Where the two steps, or the two sides, disagree, the point is a corner or a jump and has no derivative.
        if not np.isfinite(half) or abs(half - central) > tolerance / 2:
            return None
        bend = 0.25 if self._is_narrow else 5e-2 if narrow_values else 1e-2
        if abs(forward - backward) > bend * max(abs(forward), abs(backward)) + tolerance:
            return None
        return central

    def _differences(
        self, name: str, values: NDArray[Any], index: tuple[int, ...], step: float
    ) -> tuple[float, float, float]:
        above, below = values.copy(), values.copy()
        above[index] += step
        below[index] -= step
        up, down = float(above[index]) - float(values[index]), float(values[index]) - float(below[index])
        high, low = self._at(name, above), self._at(name, below)
        return (high - low) / (up + down), (high - self._middle) / up, (self._middle - low) / down

    def _at(self, name: str, values: NDArray[Any]) -> float:
        if name in self._arrays:
            outcome = self._bench.run({**self._arrays, name: values}, Run(precision=WIDE, may_compile=True))
        else:
            how = Run(precision=WIDE, parameters={name: values}, may_compile=True)
            outcome = self._bench.run(self._arrays, how)
        return np.nan if outcome.error is not None else self._sum(outcome)

    def _sum(self, outcome: Outcome) -> float:
        pairs = zip(self._weights, outcome.outputs, strict=True)
        return float(sum(np.vdot(weight, output).real for weight, output in pairs))

    def _checked(self, outcome: Outcome) -> Outcome:
        if outcome.error is not None:
            lines = str(outcome.error).strip().splitlines() or [""]
            raise CannotCompareError(f"in float64 the layer raised {type(outcome.error).__name__}: {lines[0]}")
        return outcome


def _is_float32_inside(output: NDArray[Any]) -> bool:
    if output.dtype != np.float64:
        return True
    rounded = output.astype(np.float32).astype(np.float64)
    return bool(np.array_equal(rounded, output) and (output != np.round(output)).any())
