"""Outcomes of a demo as they could be, for the tests of what is printed about them."""

from typing import Any

from nan_callbacks.demo.arm import ArmResult
from nan_callbacks.demo.faults import FAULTS
from nan_callbacks.demo.table import Outcome

QUIET = {
    "incidents": 0, "skipped_steps": 0, "rollbacks": 0, "lr_cuts": 0, "stopped": False, "stop_reason": None,
}  # fmt: skip


def incident(step: int) -> dict[str, Any]:
    message = f"step {step} · NAN101 non-finite gradients · grad_norm NaN → skipped, batch {step} of epoch 0"
    return {"event": "incident", "code": "NAN101", "step": step, "skipped": True, "message": message}


def rollback(step: int, restored_step: int) -> dict[str, Any]:
    message = f"step {step} · rolled back to the state before step {restored_step} · 3 steps in a row were dropped"
    return {"event": "rollback", "step": step, "restored_step": restored_step, "message": message}


def outcome(
    fault: str = "nan_rows",
    *,
    framework: str = "Lightning",
    events: list[dict[str, Any]] | None = None,
    **summary: Any,
) -> Outcome:
    guarded = ArmResult(accuracy=0.98, summary={**QUIET, **summary}, events=events or [])
    return Outcome(framework, FAULTS[fault], ArmResult(accuracy=0.1), guarded, ArmResult(accuracy=0.99), 504)
