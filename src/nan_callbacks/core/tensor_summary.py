"""What is worth knowing about one tensor once it is no longer there: its range and its special values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class TensorSummary:
    """The range and the special values of one tensor."""

    name: str = ""
    """How the tensor is called where it was used, such as ``input`` or ``batch[0]``; empty if nothing is known."""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    """In the field's short form, such as ``float32`` or ``bfloat16``."""
    nan: int = 0
    """Number of NaNs."""
    positive_inf: int = 0
    """Number of +Inf."""
    negative_inf: int = 0
    """Number of -Inf."""
    zeros: int = 0
    """Number of exact zeros."""
    minimum: float | None = None
    """Over the finite values; None if there are none."""
    maximum: float | None = None
    """Over the finite values; None if there are none."""
    smallest_magnitude: float | None = None
    """Over the finite values other than zero; None if there are none."""

    @property
    def is_finite(self) -> bool:
        """Whether every value is finite."""
        return not (self.nan or self.positive_inf or self.negative_inf)

    @property
    def largest_magnitude(self) -> float | None:
        """Over the finite values; None if there are none."""
        if self.minimum is None or self.maximum is None:
            return None
        return max(abs(self.minimum), abs(self.maximum))

    @classmethod
    def of(cls, values: Any, *, name: str = "", dtype: str = "") -> TensorSummary:
        """Summarise an array.

        Args:
            values: Anything that numpy can make an array of; numbers that are no floats are summarised as they are.
            name: How the tensor is called.
            dtype: The dtype to tell, if the array had to be widened for numpy (``bfloat16``).
        """
        array = np.asarray(values)
        told = dtype or str(array.dtype)
        if array.dtype.kind not in "fiub":
            return cls(name=name, shape=array.shape, dtype=told)
        numbers = array.astype(np.float64, copy=False)
        finite = numbers[np.isfinite(numbers)]
        magnitudes = np.abs(finite[finite != 0])
        return cls(
            name=name,
            shape=array.shape,
            dtype=told,
            nan=int(np.isnan(numbers).sum()),
            positive_inf=int(np.isposinf(numbers).sum()),
            negative_inf=int(np.isneginf(numbers).sum()),
            zeros=int(finite.size - magnitudes.size),
            minimum=float(finite.min()) if finite.size else None,
            maximum=float(finite.max()) if finite.size else None,
            smallest_magnitude=float(magnitudes.min()) if magnitudes.size else None,
        )

    def describe(self) -> str:
        """One line for people, such as ``float32 [32, 10], 0 to 3.2, 4 zeros, 1 NaN``."""
        parts = [f"{self.dtype} {list(self.shape)}"]
        if self.minimum is not None and self.maximum is not None:
            same = self.minimum == self.maximum
            parts.append(f"all {self.minimum:.3g}" if same else f"{self.minimum:.3g} to {self.maximum:.3g}")
        special = (("zeros", self.zeros), ("NaN", self.nan), ("+Inf", self.positive_inf), ("-Inf", self.negative_inf))
        parts += [f"{count} {word}" for word, count in special if count]
        return ", ".join(parts)
