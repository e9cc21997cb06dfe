"""`lightning.pytorch` and `pytorch_lightning` are two copies of one library; the guard works in both at once."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from nan_callbacks.errors import MissingExtraError

_NAMES = ("pytorch_lightning", "lightning.pytorch")


def _installed() -> list[Any]:
    found = []
    # Each copy, when it is imported, makes itself the one whose logger Lightning's messages go through and whose class
    # its deprecation warnings have: not ours to change once the user has imported one of them.
    shared = sys.modules.get("lightning_utilities.core.rank_zero")
    before = {} if shared is None or not any(name in sys.modules for name in _NAMES) else dict(vars(shared))
    for name in _NAMES:
        try:
            found.append(importlib.import_module(name))
        except ImportError:
            continue
    for name in ("log", "rank_zero_deprecation_category"):
        if name in before:
            setattr(shared, name, before[name])
    if not found:
        raise MissingExtraError.of("nan_callbacks.lightning", "pytorch-lightning", "lightning")
    return found


LIBRARIES = _installed()
"""The copies that can be imported, at least one."""

CALLBACK_BASES: tuple[type, ...] = tuple(library.Callback for library in LIBRARIES)
"""Bases of our callback: a class that inherits from both is accepted by both trainers and both LightningCLIs."""


def callback_types(name: str) -> tuple[type, ...]:
    """The classes of this name in every installed copy; empty if the installed version has none.

    Args:
        name: Class name in ``callbacks``, such as ``WeightAveraging``.
    """
    found = (getattr(library.callbacks, name, None) for library in LIBRARIES)
    return tuple(each for each in found if each is not None)
