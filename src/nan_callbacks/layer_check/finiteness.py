"""Are the outputs and the gradients finite on every case?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nan_callbacks.diagnosis.origin import Origin
from nan_callbacks.layer_check.bench import Bench, Outcome, Run
from nan_callbacks.layer_check.blame import facts, is_plain_overflow, non_finite_message
from nan_callbacks.layer_check.cases import ORDINARY, Case
from nan_callbacks.layer_check.minimise import minimised
from nan_callbacks.layer_check.result import Failure
from nan_callbacks.layer_check.spec import Arrays, Signature

NOT_FOUND = "; run operation by operation it does not happen, so none can be named"
"""As where only the compiled program fails."""


@dataclass(frozen=True)
class FinitenessCheck:
    """Calls a layer on one case after another.

    Args:
        bench: The layer.
        signature: What it takes.
        backward: Whether gradients are looked at too.
    """

    bench: Bench
    signature: Signature
    backward: bool

    def examine(self, case: Case, arrays: Arrays) -> list[Failure]:
        """What goes wrong on a case: in training mode, and in evaluation mode if the former went well."""
        for training in (True, False) if self.bench.has_modes else (False,):
            how = Run(precision=case.precision, training=training, gradients=self.backward)
            mode = ("training" if training else "evaluation") if self.bench.has_modes else ""
            outcome = self.bench.run(arrays, how)
            if outcome.error is not None:
                return [self._raised(case, arrays, outcome.error, mode)]
            if outcome.phase:
                return [self._failure(case, arrays, how, outcome, mode)]
        return []

    def _raised(self, case: Case, arrays: Arrays, error: Exception, mode: str) -> Failure:
        lines = str(error).strip().splitlines() or [""]
        told = f"{type(error).__name__}: {lines[0]}"
        return Failure(
            check="call",
            case=case.name,
            # At a degenerate input an error that says so is better than a NaN; at an ordinary one it is not.
            severity="failure" if case.name == ORDINARY else "info",
            mode=mode,
            inputs=arrays if case.name == ORDINARY else {},
            module=self.bench.name,
            message=f"the layer raised {told}",
        )

    def _failure(self, case: Case, arrays: Arrays, how: Run, outcome: Outcome, mode: str) -> Failure:
        phase = outcome.phase
        origin = self.bench.origin(arrays, how, phase)
        excuse = self._excuse(case, arrays, how, outcome, origin)
        if not excuse:
            arrays, origin, outcome = self._smaller(case, arrays, how, outcome, origin)
        return Failure(
            check="finite",
            case=case.name,
            phase=phase,
            severity="info" if excuse else "failure",
            mode=mode,
            inputs={} if excuse else arrays,
            message=non_finite_message(outcome) + (f"; {excuse}" if excuse else "" if origin else NOT_FOUND),
            **{**facts(origin, self.bench.name, self.bench.framework), **({"remedy": ""} if excuse else {})},
        )

    def _smaller(
        self, case: Case, arrays: Arrays, how: Run, outcome: Outcome, origin: Origin | None
    ) -> tuple[Arrays, Origin | None, Outcome]:
        def happens(candidate: Arrays) -> bool:
            found = self.bench.run(candidate, how)
            return (
                found.error is None
                and found.phase == outcome.phase
                and not self._fits_nowhere(case, candidate, how, found)
            )

        for candidate in reversed(minimised(arrays, self.signature, happens)):
            # Zeros and ones may be at fault for reasons of their own: the input must show the same failure.
            found = self.bench.origin(candidate, how, outcome.phase)
            if _same(found, origin):
                return candidate, found, self.bench.run(candidate, how)
        return arrays, origin, outcome

    def _excuse(self, case: Case, arrays: Arrays, how: Run, outcome: Outcome, origin: Origin | None) -> str:
        if self._fits_nowhere(case, arrays, how, outcome):
            return "the true value lies beyond the number format, which no way of writing it could help"
        if case.beyond_squares and is_plain_overflow(origin):
            return "sums and products of numbers this large overflow"
        return ""

    def _fits_nowhere(self, case: Case, arrays: Arrays, how: Run, outcome: Outcome) -> bool:
        """Whether the true values, as float64 has them, lie beyond the format wherever ours are non-finite."""
        truth = self.bench.run(arrays, replace(how, precision="float64"))
        if truth.error is not None:
            return False
        if outcome.phase == "forward":
            pairs = list(zip(outcome.outputs, truth.outputs, strict=False))
        else:
            pairs = [(g, truth.gradients[name]) for name, g in outcome.gradients.items() if name in truth.gradients]
        bad = [(ours, true) for ours, true in pairs if not np.isfinite(ours).all()]
        return bool(bad) and all(_beyond(ours, true, case.grows) for ours, true in bad)


def _beyond(ours: NDArray[Any], true: NDArray[Any], grows: bool) -> bool:
    if ours.shape != true.shape or np.issubdtype(ours.dtype, np.complexfloating):
        return False
    wrong = ~np.isfinite(ours)
    magnitudes = np.abs(true[wrong].astype(np.float64))
    # An infinity of float64 says that growth has no end here, unless the input was small: then it is a pole.
    too_large = magnitudes > 0.99 * float(np.finfo(ours.dtype).max)  # next to the end rounding decides
    return bool((too_large if grows else too_large & np.isfinite(magnitudes)).all())


def _same(found: Origin | None, wanted: Origin | None) -> bool:
    if found is None or wanted is None:
        return found is wanted
    return (found.operation, found.source) == (wanted.operation, wanted.source)
