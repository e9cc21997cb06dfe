"""Attributes of other people's objects, replaced for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_MISSING = object()


class Patches:
    """Replaces attributes of single instances and puts them back.

    Written straight into ``__dict__``: Keras tracks ordinary assignments to layers and optimizers.
    """

    def __init__(self) -> None:
        self._planned: list[tuple[dict[str, Any], str, Any]] = []

    def plan(self, owner: Any, name: str, value: Any) -> None:
        """Remember what to put in place.

        Args:
            owner: The instance.
            name: The attribute.
            value: What to put there.
        """
        self._planned.append((vars(owner), name, value))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Everything planned is in place inside the block."""
        before = self.apply()
        try:
            yield
        finally:
            self.undo(before)

    def apply(self) -> list[Any]:
        """Put everything planned in place.

        Returns:
            What was there, for :meth:`undo`.
        """
        before = [namespace.get(name, _MISSING) for namespace, name, _ in self._planned]
        for namespace, name, value in self._planned:
            namespace[name] = value
        return before

    def undo(self, before: list[Any]) -> None:
        """Put everything back as it was.

        Args:
            before: Result of :meth:`apply`.
        """
        for (namespace, name, _), value in zip(self._planned, before, strict=True):
            if value is _MISSING:
                namespace.pop(name, None)
            else:
                namespace[name] = value
