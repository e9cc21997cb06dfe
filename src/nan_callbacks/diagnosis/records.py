"""Records of the diagnosis as plain containers and back: what the stream of events and checkpoints can hold."""

from __future__ import annotations

import enum
import math
from dataclasses import fields, is_dataclass
from typing import Any

from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.origin import Origin, OriginKind, Phase, SourceLine


def plain(value: Any) -> Any:
    """Dataclasses as dictionaries, tuples as lists, enumerations as their values; all the way down."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def origin_from_dict(told: dict[str, Any]) -> Origin:
    """The origin that :func:`plain` told."""
    known = dict(told)
    known["kind"] = OriginKind(told["kind"])
    known["phase"] = Phase(told["phase"])
    known["source"] = None if told["source"] is None else SourceLine(**told["source"])
    known["operands"] = tuple(summary_from_dict(operand) for operand in told["operands"])
    known["result"] = None if told["result"] is None else summary_from_dict(told["result"])
    known["rows"] = None if told["rows"] is None else tuple(told["rows"])
    return Origin(**known)


def summary_from_dict(told: dict[str, Any]) -> TensorSummary:
    """The summary that :func:`plain` told."""
    return TensorSummary(**{**told, "shape": tuple(told["shape"])})
