"""From the notes of a replay to its result, the same for every backend."""

from __future__ import annotations

import math
import re
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

import numpy as np

from nan_callbacks.diagnosis.origin import Origin, OriginKind, Phase, ReplayResult
from nan_callbacks.keras.replay_layers import Place
from nan_callbacks.keras.replay_source import line_of_error
from nan_callbacks.keras.replay_trace import Ends, Trace

_NOISE = re.compile("\x1b" + r"\[[0-9;]*m|\{\{[^}]*\}\}")
NOT_FOUND = "Loss or gradients are non-finite, but no traced operation made them so."

_PASSED_THROUGH = ("nan_callbacks.keras.replay_layers", "nan_callbacks.keras.interception")
"""Modules that stand around the model's code, and may be the last ones in a traceback that Keras has shortened."""


@dataclass
class Outcome:
    """What a replayed step ended in."""

    ends: Ends = field(default_factory=Ends)
    loss: float | None = None
    gradients: list[tuple[str, np.ndarray]] = field(default_factory=list)
    """By name of the variable; without the loss scale."""
    weights_finite: bool = True


def finished(trace: Trace, outcome: Outcome, began: float, note: str = "") -> ReplayResult:
    """The result of a step that ran to its end."""
    origin, others = trace.verdict(outcome.ends)
    bad = tuple(name for name, grad in outcome.gradients if not np.isfinite(grad).all())
    failed = bool(bad) or not outcome.weights_finite or (outcome.loss is not None and not math.isfinite(outcome.loss))
    return ReplayResult(
        origin=origin,
        reproduced=failed,
        loss=outcome.loss,
        grad_norm=_norm([grad for _, grad in outcome.gradients]),
        non_finite_gradients=bad,
        others=others,
        operations=trace.operations,
        seconds=time.monotonic() - began,
        note=note or (NOT_FOUND if failed and origin is None else ""),
    )


def raised(
    trace: Trace, error: Exception, below: CodeType, place: Place, phase: Phase, native: str, began: float
) -> ReplayResult:
    """The result of a step that raised an error.

    Raises:
        Exception: The error itself, if it is the replay's own.
    """
    if _is_own(error):
        raise error
    origin = Origin(
        kind=OriginKind.EXCEPTION,
        operation=type(error).__name__,
        native_operation=native,
        phase=phase,
        module=place.path,
        module_type=place.kind,
        module_is_custom=place.is_custom,
        source=line_of_error(error, below),
        detail=message_of(error),
    )
    seconds = time.monotonic() - began
    return ReplayResult(origin=origin, reproduced=True, operations=trace.operations, seconds=seconds)


def gave_up(trace: Trace, why: str, began: float) -> ReplayResult:
    """The result of a replay that could not be finished."""
    return ReplayResult(operations=trace.operations, seconds=time.monotonic() - began, note=why)


def _norm(gradients: Sequence[np.ndarray]) -> float | None:
    if not gradients:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        total = sum(float(np.square(grad.astype(np.float64)).sum()) for grad in gradients)
    return math.sqrt(total) if total >= 0 else math.nan


def _is_own(error: Exception) -> bool:
    """Whether the code that raised is this package's."""
    names = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(names) and names[-1].startswith("nan_callbacks.") and names[-1] not in _PASSED_THROUGH


def message_of(error: Any) -> str:
    """What went wrong in one line, without Keras' and TensorFlow's preambles."""
    text = _NOISE.sub("", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Exception encountered when calling"):
        lines = lines[1:]
    return lines[0][:500] if lines else type(error).__name__
