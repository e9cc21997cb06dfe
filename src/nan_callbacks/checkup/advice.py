"""Making notices: remedies come from the catalogue, in the words of the user's framework."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nan_callbacks.checkup.notice import Notice
from nan_callbacks.core.finding import Severity
from nan_callbacks.diagnosis.catalogue import entry

ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO

REMEDY = {"image_range": 1, "beyond_activation": 2, "no_probability": 4, "sentinel_label": 2}
"""Which of the catalogue's remedies fits a kind of notice, where it is not the first."""


def notice(code: str, kind: str, severity: Severity, where: str, *evidence: str, **more: Any) -> Notice:
    """A notice; its remedy is filled in by :func:`with_remedy` unless it is given.

    Args:
        code: Of the catalogue.
        kind: What exactly, in snake_case.
        severity: How grave.
        where: Input, output, layer or operation.
        *evidence: Sentences with numbers; empty ones are left out.
        **more: ``remedy=`` and ``source=`` of the notice.
    """
    return Notice(code=code, kind=kind, severity=severity, where=where, evidence=tuple(filter(None, evidence)), **more)


def with_remedy(each: Notice, framework: str) -> Notice:
    """The notice with the catalogue's remedy for its kind, unless it has one of its own."""
    if each.remedy:
        return each
    return replace(each, remedy=entry(each.code).remedies(framework)[REMEDY.get(each.kind, 0)])


def rows_in_words(rows: Any, numbers: Any = None, most: int = 5) -> str:
    """Such as ``rows 3, 40 and 90`` or ``rows 1, 2, 3, 4, 5 … (37 in all)``.

    Args:
        rows: Where they lie among those that were read.
        numbers: What the data set counts those as; None: as they lie.
        most: Rows that are named.
    """
    shown = [str(int(row if numbers is None else numbers[row])) for row in rows[:most]]
    if len(rows) > most:
        return f"rows {', '.join(shown)} … ({len(rows)} in all)"
    return f"row {shown[0]}" if len(shown) == 1 else f"rows {', '.join(shown[:-1])} and {shown[-1]}"


def share(part: float) -> str:
    """A share in per cent."""
    return f"{100 * part:.3g} %"
