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
        self._planned: list[tuple[Any, str, Any]] = []

    def plan(self, owner: Any, name: str, value: Any) -> None:
        """Remember what to put in place.

        Args:
            owner: The instance.
            name: The attribute.
            value: What to put there.
        """
        self._planned.append((owner, name, value))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Everything planned is in place inside the block."""
        before = [(vars(owner), name, vars(owner).get(name, _MISSING)) for owner, name, _ in self._planned]
        for owner, name, value in self._planned:
            vars(owner)[name] = value
        try:
            yield
        finally:
            for namespace, name, value in before:
                if value is _MISSING:
                    namespace.pop(name, None)
                else:
                    namespace[name] = value
