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
    related = "Usual causes" if known.kind == "symptom" else "Easily confused with"
    names = [f"{code} {catalogue()[code].title}" for code in known.see_also]
    sections = [
        (None, [known.meaning, known.mechanism]),
        (related, names),
        ("What to do in PyTorch and Lightning", list(known.lightning)),
        ("What to do in Keras", list(known.keras)),
        ("References", list(known.references)),
    ]
    lines = [f"{known.code} · {known.title} ({known.kind})"]
    for heading, items in sections:
        lines += ["", f"{heading}:"] if heading else [""]
        lines += [_item(item) if heading else textwrap.fill(item, WIDTH) for item in items]
    return "\n".join(lines)


def _item(text: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent="  - ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
