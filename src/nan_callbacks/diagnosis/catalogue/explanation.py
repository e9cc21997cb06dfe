"""An entry of the catalogue as the terminal prints it."""

from __future__ import annotations

import textwrap

from nan_callbacks.diagnosis.catalogue import Entry, catalogue

WIDTH = 100
"""Columns of a terminal window as people set them, and of a line that the eye follows."""


def explanation(known: Entry) -> str:
    """Meaning, mechanism, related codes, remedies for both frameworks and references.

    Args:
        known: An entry.
    """
    names = [f"{code} {catalogue()[code].title}" for code in known.see_also]
    lines = [f"{known.code} · {known.title} ({known.kind})", ""]
    lines += [textwrap.fill(text, WIDTH) for text in (known.meaning, known.mechanism)]
    for heading, items in [(related(known), names), *sections(known)]:
        lines += ["", f"{heading}:", *map(_item, items)]
    return "\n".join(lines)


def overview() -> str:
    """All codes with their titles, one a line."""
    return "\n".join(f"{each.code:<8} {each.title} ({each.kind})" for each in catalogue().values())


def related(known: Entry) -> str:
    """What the codes are to which an entry points."""
    return "Usual causes" if known.kind == "symptom" else "Easily confused with"


def sections(known: Entry) -> list[tuple[str, tuple[str, ...]]]:
    """The lists of an entry, with their headings."""
    return [
        ("What to do in PyTorch and Lightning", known.lightning),
        ("What to do in Keras", known.keras),
        ("References", known.references),
    ]


def _item(text: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent="  - ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
