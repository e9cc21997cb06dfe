"""From an origin to a failure that a person can act on."""

from __future__ import annotations

from typing import Any

import numpy as np

from nan_callbacks.diagnosis.catalogue import entry
from nan_callbacks.diagnosis.hypotheses.numerics import OVERFLOW, code_of_origin
from nan_callbacks.diagnosis.origin import Origin, OriginKind
from nan_callbacks.layer_check.bench import Outcome

CUSTOM = "NAN115"

_WORDS = {"softmax": ("attention",), "log_softmax": ("attention",), "divide": ("epsilon",), "mean": ("mask",)}
"""By operation: what a remedy that fits it speaks of, besides the operation itself."""
_TAKEN_TOO_FAR = {"exp", "expm1", "sinh", "cosh", "softmax", "tan"}
"""Operations that overflow long before their operands are large for the format."""


def facts(origin: Origin | None, name: str, framework: str) -> dict[str, Any]:
    """The fields of a failure that tell where it comes from and what to do.

    Args:
        origin: None if it could not be found.
        name: Of the layer.
        framework: In whose words the remedy is given.
    """
    if origin is None:
        return {"module": name}
    code = code_of(origin)
    return {
        "operation": origin.operation,
        "source": origin.source,
        "module": _module(origin) or name,
        "remedy": remedy(code, origin.operation, framework) if code else "",
    }


def code_of(origin: Origin) -> str | None:
    """The catalogue's cause that an origin points to."""
    if origin.custom_gradient:
        return CUSTOM
    return code_of_origin(origin) if origin.kind is OriginKind.OPERATION else None


def remedy(code: str, operation: str, framework: str) -> str:
    """The catalogue's remedy that fits an operation best."""
    remedies = entry(code).remedies(framework)
    words = (*_WORDS.get(operation, ()), operation)
    fitting = [each for word in words if word for each in remedies if word in each]
    return (fitting or list(remedies) or [""])[0]


def is_plain_overflow(origin: Origin | None) -> bool:
    """Whether sums, products and squares of enormous operands overflowed, as they must in any way of writing them."""
    if origin is None:
        return True
    if origin.custom_gradient or origin.kind is not OriginKind.OPERATION:
        return False
    code = code_of_origin(origin)
    return code in (OVERFLOW, None) and origin.operation not in _TAKEN_TOO_FAR


def non_finite_message(outcome: Outcome) -> str:
    """Which numbers are non-finite."""
    if outcome.phase == "forward":
        bad = [output for output in outcome.outputs if not np.isfinite(output).all()]
        return f"{_count(bad[0])} in the output"
    name, gradient = next((n, g) for n, g in outcome.gradients.items() if not np.isfinite(g).all())
    return f"{_count(gradient)} in the gradient of {name}, although the output is finite"


def _count(array: Any) -> str:
    nan, inf = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    return " and ".join(f"{count} {word}" for count, word in ((nan, "NaN"), (inf, "Inf")) if count)


def _module(origin: Origin) -> str:
    if origin.module and origin.module_type and origin.module != origin.module_type:
        return f"{origin.module} ({origin.module_type})"
    return origin.module or origin.module_type
