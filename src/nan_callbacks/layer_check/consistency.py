"""Does a row get the same answer whatever stands beside it, and the same one twice?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nan_callbacks.layer_check.bench import Bench, Run
from nan_callbacks.layer_check.cases import rows_of
from nan_callbacks.layer_check.spec import Arrays

TOLERANCE = 1e-4
"""Of float32, relative to the largest output: kernels sum in another order for another batch size."""
MOST_ROWS = 3


class CannotCompareError(Exception):
    """The outputs cannot be compared; the message says why."""


def batch_dependence(bench: Bench, arrays: Arrays, size: int) -> tuple[int, str] | None:
    """The first row whose output depends on the rows beside it, and how.

    Args:
        bench: The layer.
        arrays: Of an ordinary batch.
        size: Rows in it.

    Raises:
        CannotCompareError: If rows of the output are not rows of the input.
    """
    if size < 2:
        raise CannotCompareError("the batch has a single row")
    whole, again = bench.run_twice(arrays, Run())
    if any(
        one.shape != other.shape or _difference(one, other)
        for one, other in zip(whole.outputs, again.outputs, strict=False)
    ):
        raise CannotCompareError("the output differs from call to call")
    if whole.error is not None:
        raise CannotCompareError("the layer raised an error")
    kept = [i for i, output in enumerate(whole.outputs) if output.ndim and output.shape[0] == size]
    if not kept:
        raise CannotCompareError("the output has no batch dimension: it sums up the batch")
    for row in sorted({0, size // 2, size - 1})[:MOST_ROWS]:
        alone = bench.run(rows_of(arrays, size, [row]), Run())
        if alone.error is not None:
            raise CannotCompareError(f"the layer takes no single row ({type(alone.error).__name__})")
        for i in kept:
            if alone.outputs[i].shape[:1] != (1,) or alone.outputs[i].shape[1:] != whole.outputs[i].shape[1:]:
                raise CannotCompareError("the output's shape depends on the batch")
            told = _difference(whole.outputs[i][row], alone.outputs[i][0])
            if told:
                return row, f"row {row} gives {told[0]:.6g} in the batch and {told[1]:.6g} alone"
    return None


def nondeterminism(bench: Bench, arrays: Arrays) -> str:
    """How two calls in evaluation mode differ; empty if they do not.

    Raises:
        CannotCompareError: If the layer raised an error.
    """
    first, second = bench.run_twice(arrays, Run())
    if first.error is not None or second.error is not None:
        raise CannotCompareError("the layer raised an error")
    for one, other in zip(first.outputs, second.outputs, strict=True):
        told = _difference(one, other) if one.shape == other.shape else (np.nan, np.nan)
        if told:
            return f"the same input gives {told[0]:.6g} and then {told[1]:.6g}"
    return ""


def _difference(one: NDArray[Any], other: NDArray[Any]) -> tuple[float, float] | None:
    """The two values that differ most, if they differ by more than rounding."""
    if not one.size:
        return None
    a, b = one.reshape(-1), other.reshape(-1)
    both = np.isfinite(a) & np.isfinite(b)
    scale = max(1e-6, float(np.abs(a[both]).max(initial=0.0)))
    tolerance = TOLERANCE if a.dtype.itemsize >= 4 else 2e-2
    apart = np.where(both, np.abs(np.where(both, a, 0) - np.where(both, b, 0)), np.where(_alike(a, b), 0.0, np.inf))
    worst = int(apart.argmax())
    if apart[worst] <= tolerance * scale:
        return None
    return float(a[worst].real), float(b[worst].real)


def _alike(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray((np.isnan(a) & np.isnan(b)) | (a == b))
