"""Guard, recover and diagnose neural-network training, in Lightning and in Keras.

Importing this package loads no framework. The callbacks live in the rooms that do:
`nan_callbacks.lightning` and `nan_callbacks.keras`. `nan_callbacks.diagnose_step(model, batch)` examines a single step
of any of their models, and `nan_callbacks.checkup(model, data)` looks a model and its data over before the first step.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:

    def checkup(model: Any, data: Any, **options: Any) -> Any:
        """Look a model and its data over: see :func:`nan_callbacks.checkup_run.checkup`."""
else:
    from nan_callbacks import checkup as checkup  # the room of its rules, which can be called

__version__ = "0.1.0"


def diagnose_step(model: Any, batch: Any, **options: Any) -> Any:
    """Examine one training step: see :func:`nan_callbacks.step_diagnosis.diagnose_step`."""
    return importlib.import_module("nan_callbacks.step_diagnosis").diagnose_step(model, batch, **options)
