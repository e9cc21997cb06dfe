"""The failed step of a Keras model once more, traced, on whatever backend is active."""

from __future__ import annotations

import importlib
from typing import Any

import keras

from nan_callbacks.diagnosis.origin import ReplayResult


def replay(
    model: Any, batch: Any, *, state: Any = None, budget_seconds: float | None = None, **options: Any
) -> ReplayResult:
    """Find where the NaN or the Inf of one training step began.

    The model's own ``train_step`` runs once more on the batch, operation by operation. Afterwards variables, metrics,
    optimizer and random streams are bit for bit what they were; attributes that the user's Python code counts up by
    itself are not put back.

    Args:
        model: A compiled model, in the state before the failed step.
        batch: The batch as the step received it.
        state: JAX only: the state that ``fit`` hands around (weights, other variables, optimizer, metrics) while the
            model's variables hold none. Default: what the variables hold.
        budget_seconds: Time after which the replay gives up. Default: none.
        **options: Of the backend's own replay.

    Returns:
        The origin and what else was learned. An error of the model is a result (kind ``EXCEPTION``), never raised.
    """
    module = importlib.import_module(f"nan_callbacks.keras.replay_{keras.backend.backend()}")
    result: ReplayResult = module.replay(model, batch, state=state, budget_seconds=budget_seconds, **options)
    return result
