"""The checkup: rules on what is known before the first step. Numpy only; the adapters gather the facts.

The room can be called: ``nan_callbacks.checkup(model, data)`` is :func:`nan_callbacks.checkup_run.checkup`.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """A package and a function of the same name would hide each other, whichever is imported first."""

    def __call__(self, model: Any, data: Any, **options: Any) -> Any:
        """See :func:`nan_callbacks.checkup_run.checkup`, which lies above the adapters, as this room lies below."""
        return importlib.import_module("nan_callbacks.checkup_run").checkup(model, data, **options)


sys.modules[__name__].__class__ = _Room
