"""Every code, symptom or cause: what it means and what to do. One source for terminal, report and docs."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from nan_callbacks.errors import ConfigurationError

FAMILIES = ("nan", "grad", "act", "loss", "data", "opt", "env")
"""Files of the catalogue: the letters of the codes in them."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is known about one code."""

    code: str
    """Such as ``NAN111``; stable for ever."""
    kind: str
    """``symptom``: what a detector sees; ``cause``: what a diagnosis names."""
    title: str
    """In the field's words, such as ``logarithm of zero``."""
    meaning: str
    """What it says about the run."""
    mechanism: str
    """How it comes about."""
    see_also: tuple[str, ...]
    """Of a symptom: causes that it may have, the usual ones first. Of a cause: codes that it is confused with."""
    lightning: tuple[str, ...]
    """Remedies in the words of PyTorch and Lightning, the best first."""
    keras: tuple[str, ...]
    """Remedies in the words of Keras, the best first."""
    references: tuple[str, ...]
    """Papers and official documentation."""
    fits: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Neutral names of operations, and which of the remedies are for them; for others all are."""

    def remedies(self, framework: str = "", operation: str = "") -> tuple[str, ...]:
        """What to do.

        Args:
            framework: ``lightning``, ``torch`` (its own words) or ``keras``; otherwise both, one after the other.
            operation: Neutral name of the operation that failed; empty: not known.
        """
        chosen = self.fits.get(operation)
        lightning, keras = (
            each if chosen is None else tuple(each[index] for index in chosen) for each in (self.lightning, self.keras)
        )
        own = {"lightning": lightning, "torch": lightning, "keras": keras}
        return own.get(framework, (*lightning, *keras))


@functools.cache
def catalogue() -> dict[str, Entry]:
    """All entries by code, in the order of the families."""
    entries: dict[str, Entry] = {}
    for family in FAMILIES:
        text = resources.files(__name__).joinpath(f"{family}.toml").read_text(encoding="utf-8")
        for code, fields in tomllib.loads(text).items():
            entries[code] = _entry(code, fields)
    return entries


def entry(code: str) -> Entry:
    """The entry of a code.

    Args:
        code: In any case.

    Raises:
        KeyError: If there is none; the message lists the codes.
    """
    try:
        return catalogue()[code.upper()]
    except KeyError:
        raise KeyError(f"expected one of {', '.join(catalogue())}; received {code!r}.") from None


def known_codes(codes: Any) -> frozenset[str]:
    """Codes in their usual form.

    Raises:
        ConfigurationError: If one is not in the catalogue.
    """
    given = list(codes)
    for code in [codes] if isinstance(codes, str) else given:  # a string is a list of letters, and silences nothing
        if isinstance(codes, str) or not isinstance(code, str) or code.upper() not in catalogue():
            raise ConfigurationError.of(
                "ignore", "a list of codes of the catalogue", code, f"Known: {', '.join(catalogue())}."
            )
    return frozenset(code.upper() for code in given)


def _entry(code: str, fields: dict[str, Any]) -> Entry:
    fits = {operation: tuple(chosen) for operation, chosen in fields.pop("fits", {}).items()}
    told: dict[str, Any] = {
        key: _text(value) if isinstance(value, str) else tuple(map(_text, value)) for key, value in fields.items()
    }
    return Entry(code=code, fits=fits, **told)


def _text(value: str) -> str:
    """Without the line breaks that keep the files readable."""
    return " ".join(value.split())
