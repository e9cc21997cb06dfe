"""Building what a fit would build, and nothing that it would not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from nan_callbacks.keras.model_parts import has_stock_step, optimizers_of


def build(model: Any, batch: Any) -> None:
    """Build the model, its losses and metrics, and its optimizer unless that is left to its step.

    Args:
        model: A compiled model.
        batch: What its step will be handed.
    """
    with _without_idle_optimizer(model):
        model._symbolic_build(data_batch=batch)


def is_idle(model: Any) -> bool:
    """Whether the compiled optimizer may be nobody's: ``compile()`` makes one for steps that bring their own.

    On JAX and torch Keras builds it in any fit; on TensorFlow the step does it, if ever.
    """
    brings_its_own = not has_stock_step(model) and len(optimizers_of(model)) > 1
    return keras.backend.backend() == "tensorflow" and brings_its_own and not model.optimizer.built


@contextmanager
def _without_idle_optimizer(model: Any) -> Iterator[None]:
    idle = is_idle(model)
    if idle:
        model.optimizer.built = True  # Keras leaves alone what it takes for built
    try:
        yield
    finally:
        if idle:
            model.optimizer.built = False
