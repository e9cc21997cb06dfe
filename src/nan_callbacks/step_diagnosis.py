"""Examining a single training step, whatever framework it belongs to: finds the adapter that can."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from nan_callbacks.diagnosis.diagnosis import Diagnosis
from nan_callbacks.diagnosis.saved_step import SavedStep, read_step
from nan_callbacks.errors import MissingExtraError, NaNCallbacksError

ADAPTERS = (
    ("keras", ("keras",), "Model"),
    ("lightning", ("lightning", "pytorch_lightning"), "LightningModule"),
    ("torch", ("torch",), "Module"),
)
"""Room, the packages whose base class it serves, and the name of that class; the first that fits. A Keras model on the
torch backend is a torch module as well, and so is a Lightning module."""


def diagnose_step(model: Any, batch: Any, **options: Any) -> Diagnosis:
    """Examine one training step on its own: why is its loss or its gradient NaN, or why does it raise?

    The step is run again and again on copies of the state; the model, its optimizer and the random streams are left
    bitwise as they were.

    Args:
        model: A Lightning module, a Keras model, or a torch module.
        batch: What its training step gets: the batch of a data loader; for Keras ``(x, y)`` or ``(x, y, weights)``.
        **options: ``recent=`` batches that went well, ``save_batch=`` a folder, ``budget_s=`` seconds; for Lightning
            ``batch_index=`` and ``optimizer=``; for a plain torch module ``loss=`` (a function of module and batch,
            which is required) and ``optimizer=``. The adapter's own ``diagnose_step`` says more.

    Returns:
        The cause, where it began, what was tried and what to do; ``print(diagnosis.describe())``.

    Raises:
        NaNCallbacksError: If no adapter serves this kind of model.

    Example:
        >>> print(diagnose_step(module, batch).describe())  # doctest: +SKIP
    """
    made: Diagnosis = room_of(model).diagnose_step(model, batch, **options)
    return made


def replay_saved(folder: str | Path, model: Any, **options: Any) -> tuple[SavedStep, Diagnosis]:
    """Examine a saved step again.

    Args:
        folder: Written by ``NaNGuard(save_batch=...)`` or ``diagnose_step(save_batch=...)``.
        model: A model of the same structure; it is given the saved weights.
        **options: Passed on to the adapter: ``loss=`` for a plain torch module.

    Returns:
        The saved step, and what was found.

    Raises:
        NaNCallbacksError: If the folder or the model does not fit; the message says what was expected.
    """
    step = read_step(folder)
    try:
        diagnosis: Diagnosis = room_of(model).replay_saved(model, step, **options)
    except (ValueError, TypeError) as error:
        raise NaNCallbacksError(f"the saved step does not fit the model: {error}") from error
    return step, diagnosis


def room_of(model: Any, module: str = "step_diagnosis") -> Any:
    """The module of the adapter that serves a model.

    Args:
        model: Of any framework.
        module: Name of the module within the adapter's room.

    Raises:
        NaNCallbacksError: If no adapter serves it.
    """
    for room, packages, name in ADAPTERS:
        for base in type(model).__mro__:
            if base.__name__ == name and base.__module__.partition(".")[0] in packages:
                try:
                    return importlib.import_module(f"nan_callbacks.{room}.{module}")
                except MissingExtraError:
                    raise
                except ModuleNotFoundError as error:
                    raise NaNCallbacksError(f"this kind of model cannot be examined: {error}") from error
    raise NaNCallbacksError(
        f"expected a Lightning module, a Keras model or a torch module, received {type(model).__name__}; "
        "pass the model itself, not a trainer or a function."
    )
