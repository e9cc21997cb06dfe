"""Failures that say themselves what is wrong: no rate, batch or precision would turn them off, so nothing is tried."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nan_callbacks.diagnosis.evidence import Evidence
from nan_callbacks.diagnosis.origin import Origin, OriginKind

PROGRAM_ERRORS = frozenset({
    "TypeError", "AttributeError", "NameError", "UnboundLocalError", "ImportError", "ModuleNotFoundError",
})  # fmt: skip
"""Errors of a program and not of its numbers."""

_NO_GRADIENT = re.compile(r"does not require grad\b")
"""What torch says if a loss is to be differentiated that depends on no parameter."""

_OVERWRITTEN = re.compile(
    r"modified by an inplace operation|is being (used in an in-?place operation|modified inplace)"
    r"|backward through the graph a second time",
    re.IGNORECASE,
)
"""What torch says if the way back finds what it needs changed, or gone."""


@dataclass(frozen=True, kw_only=True)
class Certainty:
    """A cause that leaves no doubt."""

    code: str
    because: tuple[str, ...]
    remedies: tuple[str, ...] = ()
    """Instead of those of the catalogue, if there are any."""


def told_at_once(evidence: Evidence) -> Certainty | None:
    """The cause that the failure names itself; None if it has to be looked for."""
    for finding in evidence.findings:
        if finding.code == "LOSS408":  # trials and their controls have proved it before it was said at all
            return Certainty(code="OPT601", because=(finding.detail,))
    origin = evidence.replay.origin if evidence.replay else None
    if _nothing_was_trained(evidence):
        name = _broken_before(evidence, origin)
        if name:
            return _from_outside(name)
    if origin is None or origin.kind is not OriginKind.EXCEPTION:
        return None
    if _NO_GRADIENT.search(origin.detail):
        return _without_gradient(evidence)
    if _OVERWRITTEN.search(origin.detail):
        return _of_the_program(
            "Make a new tensor instead (`x = x + 1` for `x += 1`, `relu` for `relu_` and `inplace=True`), and compute "
            "what is differentiated twice anew. `torch.autograd.set_detect_anomaly(True)` names the forward operation.",
        )
    return _of_the_program("Correct the line that is named.") if _is_of_the_program(origin) else None


def _nothing_was_trained(evidence: Evidence) -> bool:
    """Whether the fit has not made a single update, so that nothing of it has written the weights."""
    history = evidence.history
    applied = history.losses or history.grad_norms or history.learning_rates or history.incidents > history.skipped
    return history.is_complete and not applied and not history.rollbacks and evidence.seen.step == 0


def _broken_before(evidence: Evidence, origin: Origin | None) -> str:
    """The name of a parameter that was non-finite before the step; a mask may hold -Inf."""
    if origin is None:
        return evidence.seen.non_finite_names[0] if evidence.seen.non_finite_parameters else ""
    result = origin.result
    broken = result is not None and bool(result.nan or result.positive_inf)
    return origin.operation if origin.kind is OriginKind.PARAMETERS and broken else ""


def _from_outside(name: str) -> Certainty:
    because = (
        f"{name} was non-finite before the first step of this fit: no batch can succeed, and no rollback can heal it",
    )
    remedy = (
        f"Look at where {name} comes from: a loaded file, a hand-written initialisation, a model trained "
        "without a guard. Load weights that are finite, or draw that layer anew."
    )
    return Certainty(code="NAN103", because=because, remedies=(remedy,))


def _is_of_the_program(origin: Origin) -> bool:
    return origin.operation in PROGRAM_ERRORS and "NoneType" not in origin.detail  # a sample that is missing


def _of_the_program(remedy: str) -> Certainty:
    because = ("the step was repeated and raised it again", "it is an error of the program, not of its numbers")
    return Certainty(code="ENV703", because=because, remedies=(remedy,))


def _without_gradient(evidence: Evidence) -> Certainty:
    if evidence.all_frozen:
        why = "every parameter of the model is frozen (`requires_grad` is False): there is nothing to differentiate for"
        return Certainty(code="OPT608", because=(why,))
    why = "parameters are to be trained, but the loss depends on none of them in a way that can be differentiated"
    how = "`detach()`, `.data`, `.item()`, numpy, `torch.no_grad`, `argmax` or a comparison cut it off"
    remedy = "Compute the loss from the outputs themselves; keep `detach()` and `.item()` for what is only logged."
    return Certainty(code="OPT608", because=(why, how), remedies=(remedy,))
