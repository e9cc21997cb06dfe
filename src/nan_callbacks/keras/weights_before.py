"""The weights before a step, kept until the step is made: how far it moves them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from nan_callbacks.keras.lab_layers import matrix_of
from nan_callbacks.keras.layer_probe import leaves_of
from nan_callbacks.keras.model_parts import leaf_optimizers, obstacle_of, optimizers_of

MOST_WEIGHTS = 1 << 24
"""Numbers that are kept (64 MiB): where there are more, those of the smaller layers."""


class WeightsBefore:
    """Holds copies of the first matrix of each layer during one step.

    Args:
        model: The model.
        state: JAX only: what ``fit`` hands around while the model's variables hold nothing.
    """

    def __init__(self, model: Any, state: Callable[[], Any]) -> None:
        self._model, self._state = model, state
        self._kept: dict[str, np.ndarray] = {}
        self._accumulates = False
        self.seconds = 0.0
        """What the last copies took."""

    def take(self) -> None:
        """Copy them; they are not worth an error."""
        began = time.perf_counter()
        try:
            self._kept = self._copies()
        except Exception:
            self._kept = {}
        self.seconds = time.perf_counter() - began

    def forget(self) -> None:
        """Let go of them."""
        self._kept, self.seconds = {}, 0.0

    def change(self, variable: Any, now: np.ndarray) -> float | None:
        """Norm of what was added to a variable; None if that is not known.

        Args:
            variable: The variable.
            now: Its numbers after the step.
        """
        before = self._kept.get(variable.path)
        if before is None or before.shape != now.shape:
            return None
        norm = float(np.linalg.norm(now - before))
        # Where gradients are gathered over several steps, most steps move nothing.
        return None if self._accumulates and not norm else norm

    def _copies(self) -> dict[str, np.ndarray]:
        model, live = self._model, self._state()
        if obstacle_of(model):
            return {}
        leaves = [leaf for optimizer in optimizers_of(model) for leaf in leaf_optimizers(optimizer)]
        self._accumulates = any(getattr(leaf, "gradient_accumulation_steps", None) for leaf in leaves)
        values = {} if live is None else {
            id(variable): value for variable, value in zip(model.trainable_variables, live[0], strict=True)
        }  # fmt: skip
        kept, count = {}, 0
        for variable in sorted(self._matrices(), key=lambda each: int(np.prod(each.shape))):
            count += int(np.prod(variable.shape))
            if count > MOST_WEIGHTS:
                break
            value = values.get(id(variable)) if live is not None else variable.value
            if value is not None:
                # A copy: what the backend gives may be the memory that the step writes.
                kept[variable.path] = np.array(ops.convert_to_numpy(value), np.float32)
        return kept

    def _matrices(self) -> list[Any]:
        found = [matrix_of(layer, list(getattr(layer, "trainable_variables", []))) for layer in leaves_of(self._model)]
        return list({id(each): each for each in found if each is not None}.values())
