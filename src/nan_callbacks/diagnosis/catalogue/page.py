"""The catalogue as a page: ``python -m nan_callbacks.diagnosis.catalogue.page > docs/codes.md`` writes it anew."""

from __future__ import annotations

import re

from nan_callbacks.diagnosis.catalogue import Entry, catalogue
from nan_callbacks.diagnosis.catalogue.explanation import related, sections

HEAD = """# Codes

What each code means, how it comes about, and what to do about it. Symptoms are what a detector sees; causes are what a
diagnosis names. `nan-callbacks explain CODE` prints the same. This page is made from the catalogue in
`src/nan_callbacks/diagnosis/catalogue/`: change it there.
"""


def page() -> str:
    """All codes with their meaning, as Markdown."""
    known = catalogue().values()
    rows = [f"| [{each.code}](#{_anchor(each)}) | {each.title} | {each.kind} |" for each in known]
    table = "\n".join(["| code | title | kind |", "|---|---|---|", *rows])
    return "\n".join([HEAD, table, *map(_chapter, known)])


def _chapter(known: Entry) -> str:
    links = [f"[{code}](#{_anchor(catalogue()[code])}) {catalogue()[code].title}" for code in known.see_also]
    parts = [f"\n## {_heading(known)}", known.meaning, known.mechanism]
    if links:
        parts.append(f"{related(known)}: {', '.join(links)}.")
    for heading, items in sections(known):
        parts.append(f"{heading}:\n\n" + "\n".join(f"- {_linked(item)}" for item in items))
    return "\n\n".join(parts)


def _heading(known: Entry) -> str:
    return f"{known.code} {known.title}"


def _anchor(known: Entry) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", _heading(known).lower()).replace(" ", "-")


def _linked(item: str) -> str:
    return f"<{item}>" if re.fullmatch(r"https?://\S+", item) else item


if __name__ == "__main__":
    print(page())
