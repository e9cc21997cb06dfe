"""What the core leaves to trials, asked of a laboratory. The same for every framework."""

from __future__ import annotations

from collections.abc import Callable

from nan_callbacks.core.decision import Decision
from nan_callbacks.core.finding import Finding
from nan_callbacks.core.monitor import Monitor
from nan_callbacks.diagnosis.desk import Case, Desk


def answered(
    monitor: Monitor,
    desk: Desk | None,
    decision: Decision,
    open_case: Callable[[tuple[Finding, ...]], Case | None],
) -> Decision:
    """What is done about the last step once trials have said what they can.

    Args:
        monitor: Of the fit.
        desk: Where they are made; None: nowhere, so that nothing is proved and every cut is that of the ladder.
        decision: What was decided without them.
        open_case: Makes the last step examinable, with what was found about it.
    """
    question = monitor.question
    if question is not None:
        answer = monitor.settle(
            question,
            lambda: None if desk is None else desk.weights_at_fault(lambda: open_case((question,))),
            lambda: None if desk is None else desk.better_start(lambda: open_case((question,))),
        )
        decision = answer or decision
    if desk is None:
        return decision
    found = decision.findings
    return monitor.deepen(decision, lambda cut: desk.cut_by_trials(lambda: open_case(found), cut))
