"""What the table asks of one run, looked at the same way for every framework."""

import math
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np

from nan_callbacks.core import Limits, Monitor
from tests.conformance.record import Record, same
from tests.conformance.scenarios import Scenario
from tests.conformance.tasks import TASKS

Runner = Callable[..., Record]
"""``run(scenario, batches=None)``."""


def discrepancies(scenario: Scenario, run: Runner) -> dict[str, tuple[Any, Any]]:
    """Run a scenario and hold it to its line of the table.

    Returns:
        What differs: what was found and what was expected. Empty if all is well.
    """
    record = run(scenario)
    summary = record.summary
    pairs = {
        "story": (record.story, list(scenario.story)),
        "skipped steps": (summary["skipped_steps"], scenario.skipped),
        "rollbacks": (summary["rollbacks"], scenario.rollbacks),
        "scale of the learning rate": (summary["lr_scale"], scenario.lr_scale),
        "attempted steps": (summary["steps"], scenario.attempted or scenario.steps),
        "stopped": (summary["stopped"], scenario.attempted is not None),
        "raised": (record.raised, scenario.raises),
        "finite": (record.finite, scenario.finite),
    }
    if scenario.as_at_first:
        pairs["weights as at first"] = (_is_untrained(scenario, record), True)
    if scenario.never_drawn:
        other, batches = scenario.reference()
        pairs["as if never drawn"] = (same(record.state, run(other, batches).state), True)
    return {what: (found, expected) for what, (found, expected) in pairs.items() if found != expected}


def apart(one: Record, other: Record) -> dict[str, float]:
    """Largest relative difference, over all steps, of each number that two runs measured or were held to."""
    seen = ("loss", "grad_norm", "statistics_jump", "param_norm")
    bounds = ("max_loss", "max_grad_norm", "max_statistics_jump")
    pairs = list(zip(one.observations, other.observations, strict=True))
    limits = list(zip(one.limits, other.limits, strict=True))
    return {
        **{name: max(_apart(getattr(a, name), getattr(b, name)) for a, b in pairs) for name in seen},
        **{name: max(_apart(getattr(a, name), getattr(b, name)) for a, b in limits) for name in bounds},
    }


def dropped_at_their_limits(scenario: Scenario, run: Runner) -> list[int]:
    """Steps that are dropped when the limit of each step is exactly what it measures: there should be none."""
    norms = [seen.grad_norm for seen in run(scenario).observations]
    with patch.object(Monitor, "limits", lambda self, stream=0: Limits(max_grad_norm=norms[self.step])):
        return [seen.step for seen in run(scenario).observations if not seen.applied]


def _apart(one: float | None, other: float | None) -> float:
    if one is None or other is None:
        return 0.0 if one is other else math.inf
    if math.isfinite(one) and math.isfinite(other):
        return abs(one - other) / max(abs(one), abs(other), 1e-30)
    return 0.0 if repr(one) == repr(other) else math.inf


def _is_untrained(scenario: Scenario, record: Record) -> bool:
    first = TASKS[scenario.task].weights()
    return all(np.array_equal(record.weights[name], value) for name, value in first.items())
