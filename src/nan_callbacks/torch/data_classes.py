"""Data classes in batches: copied with other contents, without running what their authors run when one is made."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any


def is_instance_of_one(value: Any) -> bool:
    """Whether a value is a data class's instance."""
    return is_dataclass(value) and not isinstance(value, type)


def with_fields(value: Any, change: Callable[[str, Any], Any]) -> Any:
    """A copy with every field changed, those that the constructor does not take and those of frozen classes as well.

    ``dataclasses.replace`` calls the constructor, which may want what nobody keeps (``InitVar``) or do its work twice.

    Args:
        value: An instance of a data class.
        change: Gets name and value of a field.
    """
    twin = copy.copy(value)
    for field in fields(value):
        if hasattr(value, field.name):
            object.__setattr__(twin, field.name, change(field.name, getattr(value, field.name)))
    return twin
