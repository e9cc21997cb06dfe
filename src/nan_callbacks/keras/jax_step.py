"""One JAX step while it is traced: what it measured, and which of its results become the new state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import jax
import keras
from jax import numpy as jnp

from nan_callbacks.keras import jax_measure as measuring
from nan_callbacks.keras.gate import admits
from nan_callbacks.keras.interception import LossMemory, scaled_rate
from nan_callbacks.keras.model_parts import leaf_optimizers, running_variances, scales_loss, seed_states
from nan_callbacks.keras.readings import DRAWS, LR_SCALE, Layout


class Owner(Protocol):
    """What a step needs to know of the guarded step that it belongs to."""

    model: Any
    optimizers: list[Any]
    sees_gradients: bool
    deferring: bool
    """Whether the optimizer may run after the rest of the step, when everything about it is known."""


class WatchedStep:
    """Collects loss and gradients, then selects.

    Keras' own step computes loss, statistics and gradients, calls the optimizer, updates metrics; nothing in it looks
    at the updated weights. So the optimizer's call is put off to the end, where it stands in a branch. In a custom step
    it runs where it stands, and the old state is selected afterwards.

    Args:
        owner: The guarded step.
        limits: What the step must stay under, one row per optimizer.
    """

    def __init__(self, owner: Owner, limits: Any) -> None:
        self.owner = owner
        self.limits = limits
        self.layouts: list[Layout] = []
        self.admitted: Any = True
        """Whether the step stays under its limits, once it is finished."""
        self._loss = LossMemory()
        self._call: tuple[Any, Any, Any, Any] | None = None

    def on_loss(self, loss: Any, *, final: bool) -> None:
        """Keep the raw loss; others are computed inside a gradient transformation and must not leave it."""
        if final:
            self._loss.note(loss, final=final)

    def scale_rate(self, stream: int, rate: Any) -> Any:
        """The learning rate with our scale on it."""
        return scaled_rate(rate, self.limits[stream, LR_SCALE])

    def on_apply(
        self, stream: int, optimizer: Any, original: Callable[..., Any], moments: Any, grads: Any, weights: Any
    ) -> Any:
        """The optimizer is called."""
        if self.owner.sees_gradients:
            self._call = (original, moments, grads, weights)
            if self.owner.deferring:
                return list(weights), list(moments)
        return original(moments, grads, weights)

    def finish(self, old: Any, new: Any) -> tuple[Any, Any]:
        """Select the new state.

        Returns:
            The state, and the vector of numbers.
        """
        optimizer = self.owner.optimizers[0]
        old_groups, new_groups = tuple(map(list, old)), tuple(map(list, new))
        scaler = scales_loss(optimizer)
        scale = self._scale(optimizer, old_groups[2]) if scaler else jnp.float32(optimizer.loss_scale_factor or 1.0)
        names, norms, total, counts = self._gradients(old_groups, new_groups, scale)
        loss = None if self._loss.value is None else jnp.asarray(self._loss.value, jnp.float32).reshape(())
        jump = self._growth(old_groups[1], new_groups[1])
        admitted = self.admitted = admits(self.limits[0], loss, total, jump)
        run = admitted
        if scaler:
            fine = True if loss is None else jnp.isfinite(loss)
            run = admitted | (~jnp.isfinite(total) & fine & (scale > 1.0))
        weights, moments = self._weights(run, old_groups, new_groups)
        state, metrics = (
            [_select(admitted, run, scaler, n, o) for n, o in zip(new_groups[i], old_groups[i], strict=True)]
            for i in (1, 3)
        )
        state = self._with_used_draws(state, new_groups[1])
        rate = self._rate(optimizer, old_groups[2])
        head = [loss, total, jump, scale if scaler else None, rate, admitted]
        numbers = [jnp.float32(math.nan) if item is None else jnp.asarray(item, jnp.float32) for item in head]
        self.layouts = [Layout(0, type(optimizer).__name__, names, loss is not None, jump is not None, scaler)]
        return (weights, state, moments, metrics), jnp.concatenate([jnp.stack(numbers), norms, counts])

    def _gradients(self, old: Any, new: Any, scale: Any) -> tuple[tuple[str, ...], Any, Any, Any]:
        variables = self.owner.model.trainable_variables
        if self._call is None:  # the size of the update stands in for that of the gradients
            grads: list[Any] = [after - before for after, before in zip(new[0], old[0], strict=True)]
            scale = jnp.float32(1.0)
        else:
            grads = list(self._call[2])
        pairs = [(grad, variable) for grad, variable in zip(grads, variables, strict=True) if grad is not None]
        names = tuple(variable.path for _, variable in pairs)
        return (names, *measuring.gradients([grad for grad, _ in pairs], scale))

    def _weights(self, run: Any, old: Any, new: Any) -> tuple[list[Any], list[Any]]:
        if self._call is None or not self.owner.deferring:
            return _where(run, new[0], old[0]), _where(run, new[2], old[2])
        original, moments, grads, weights = self._call

        def update() -> tuple[list[Any], list[Any]]:
            after = original(moments, grads, weights)
            return list(after[0]), list(after[1])

        def keep() -> tuple[list[Any], list[Any]]:
            return list(weights), list(moments)

        if not isinstance(run, jax.core.Tracer):
            return update() if bool(run) else keep()
        return jax.lax.cond(run, update, keep)

    def _with_used_draws(self, state: list[Any], new: list[Any]) -> list[Any]:
        """The seeds go on from where the step left them, dropped or not, if its random numbers count as used."""
        used, seeds = self.limits[0, DRAWS] > 0.5, {id(variable) for variable in seed_states(self.owner.model)}
        variables = self.owner.model.non_trainable_variables
        return [
            jnp.where(used, after, chosen) if id(variable) in seeds and after is not chosen else chosen
            for variable, chosen, after in zip(variables, state, new, strict=True)
        ]

    def _growth(self, old: list[Any], new: list[Any]) -> Any:
        model = self.owner.model
        index = {id(variable): i for i, variable in enumerate(model.non_trainable_variables)}
        places = [index[id(variable)] for variable in running_variances(model) if id(variable) in index]
        return measuring.growth([new[i] for i in places], [old[i] for i in places]) if places else None

    def _scale(self, optimizer: Any, moments: list[Any]) -> Any:
        index = next(i for i, variable in enumerate(optimizer.variables) if variable is optimizer.dynamic_scale)
        return moments[index]

    def _rate(self, optimizer: Any, moments: list[Any]) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(optimizer.variables, moments, strict=True))):
            rate = leaf_optimizers(optimizer)[0]._get_current_learning_rate()
            return getattr(rate, "value", rate)


def _where(keep: Any, new: list[Any], old: list[Any]) -> list[Any]:
    return [n if n is o else jnp.where(keep, n, o) for n, o in zip(new, old, strict=True)]


def _select(admitted: Any, run: Any, scaler: bool, new: Any, old: Any) -> Any:
    """After an overflow that the loss scaler handles by itself, what is finite stays."""
    if new is old:
        return new
    if not scaler or not jnp.issubdtype(new.dtype, jnp.floating):
        return jnp.where(run if scaler else admitted, new, old)
    return jnp.where(admitted | (run & jnp.all(jnp.isfinite(new))), new, old)
