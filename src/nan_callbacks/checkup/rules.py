"""All rules together: facts in, report out."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from nan_callbacks.checkup.advice import with_remedy
from nan_callbacks.checkup.contradictions import contradictions
from nan_callbacks.checkup.facts import CheckupFacts, with_row_numbers
from nan_callbacks.checkup.hazards import examine_hazards
from nan_callbacks.checkup.initialisation import examine_initialisation
from nan_callbacks.checkup.inputs import examine_inputs
from nan_callbacks.checkup.labels import examine_labels
from nan_callbacks.checkup.learning_rate import examine_rate, gets_on
from nan_callbacks.checkup.losses import examine_losses
from nan_callbacks.checkup.notice import CheckupReport, Notice
from nan_callbacks.checkup.versions import examine_versions
from nan_callbacks.core.finding import Severity

UPSETTING = frozenset({"DATA501", "DATA502", "DATA503", "DATA505", "DATA509", "DATA511", "LOSS404", "ACT305"})
"""Whatever one of these says, it upsets the rate, and perhaps the scale of signals, as well: one thing at a time."""


def judge(facts: CheckupFacts, ignore: Collection[str] = ()) -> CheckupReport:
    """What can be said before the first step.

    Args:
        facts: What an adapter found out.
        ignore: Codes that are not to be told.

    Returns:
        The notices, the gravest first; of the same gravity in the order of the codes of the catalogue's families.
    """
    facts = with_row_numbers(facts)
    found = [_softened(notice, facts) for notice in _about_data(facts)]
    told = {notice.code for notice in found}
    if not facts.resumed:
        found += _about_the_start(facts, told)
    found += [*examine_hazards(facts.hazards), *examine_versions(facts.environment)]
    made = [with_remedy(notice, facts.framework) for notice in found]
    made.sort(key=lambda notice: -notice.severity)
    return CheckupReport(tuple(made), facts.notes).without(ignore)


def _softened(notice: Notice, facts: CheckupFacts) -> Notice:
    """Far targets are a remark if the optimizer comes near them all the same, as the virtual steps show."""
    if notice.code != "DATA509" or facts.rate is None or not gets_on(facts.rate):
        return notice
    return replace(notice, severity=Severity.INFO)


def _about_data(facts: CheckupFacts) -> Iterator[Notice]:
    yield from examine_inputs(facts.inputs, facts.rows_read, sound=facts.sound)
    yield from examine_labels(facts.losses, sound=facts.sound)
    yield from contradictions(facts)
    yield from examine_losses(facts.losses)


def _about_the_start(facts: CheckupFacts, told: set[str]) -> Iterator[Notice]:
    start = list(examine_initialisation(facts.layers))
    yield from start
    upset = told & UPSETTING or {notice.code for notice in start}
    if not upset:
        yield from examine_rate(facts.rate)
