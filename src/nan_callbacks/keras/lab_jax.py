"""The laboratory's step on JAX: the model's own train step, compiled without giving buffers away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import jax
import keras
import numpy as np
from jax import numpy as jnp

from nan_callbacks.keras.interception import Interception, LossMemory, scaled_rate
from nan_callbacks.keras.lab_hands import ModelRaised, Numbers, Probe, Turns, clip_factor, models_fault, safe_norm
from nan_callbacks.keras.lab_state import attributes_kept, variable_groups_of_step
from nan_callbacks.keras.model_parts import optimizers_of, scales_loss
from nan_callbacks.keras.replay_state import all_variables, layer_losses_kept, python_streams_kept

WEIGHTS, OTHERS, MOMENTS, METRICS = range(4)
"""Positions in the state that JAX training hands around."""


class StepHands:
    """See :class:`nan_callbacks.keras.lab_hands.Hands`.

    The step is compiled once per shape of the batch: operation by operation, JAX would compile every single one.

    Args:
        model: A compiled model.
        state: Returns what ``fit`` hands around while the model's variables hold nothing; None outside of a step.
    """

    def __init__(self, model: Any, state: Callable[[], Any]) -> None:
        self._model = model
        self._state = state
        self._optimizers = optimizers_of(model)[:1]  # Keras' JAX trainer threads the state of one optimizer only
        self._sees_gradients = True
        self._compiled: dict[tuple[str, bool], _CompiledStep] = {}
        self._dtype = ""
        self._passes: dict[int, tuple[Probe, Callable[..., Any], Callable[..., Any]]] = {}

    @contextmanager
    def held_still(self) -> Iterator[None]:
        """The variables hold the present state; afterwards the very arrays that they held before."""
        model = self._model
        groups, live = variable_groups_of_step(model), self._state()
        if live is None and getattr(model, "_jax_state", None) is not None:
            model.jax_state_sync()
        with ExitStack() as stack:
            for kept in (python_streams_kept(), attributes_kept(model), layer_losses_kept(model)):
                stack.enter_context(kept)
            stack.enter_context(_values_kept(all_variables(model)))
            for variables, values in zip(groups, live or (), strict=False):
                for variable, value in zip(variables, values, strict=True):
                    variable._value = value
            yield

    @contextmanager
    def cast(self, dtype: str) -> Iterator[None]:
        """Floating point variables in another dtype; 64 bit numbers are switched on where they are needed."""
        before, self._dtype = self._dtype, dtype
        variables = [each for each in all_variables(self._model) if keras.backend.is_float_dtype(each._dtype)]
        wide = jax.enable_x64(True) if dtype == "float64" else nullcontext()
        try:
            with wide, _values_kept(variables):
                for variable in variables:
                    variable._value = jnp.asarray(variable._value, dtype)
                    variable._dtype = dtype
                yield
        finally:
            self._dtype = before

    def step(self, batch: Any, turns: Turns) -> Numbers:
        """The train step."""
        groups = variable_groups_of_step(self._model)
        state = tuple([variable._value for variable in group] for group in groups)
        batch = jax.tree.map(jnp.asarray, batch)
        limit = np.inf if turns.clip_norm is None else turns.clip_norm
        arguments = (state, batch, np.float32(turns.rate), np.float32(limit))
        with models_fault(jax.errors.JaxRuntimeError):
            try:
                numbers, new = self._run(arguments, turns.update)
            except (ModelRaised, jax.errors.UnexpectedTracerError) as error:
                raised = error.__cause__ if isinstance(error, ModelRaised) else error
                if not self._sees_gradients or not isinstance(raised, jax.errors.UnexpectedTracerError):
                    raise
                self._sees_gradients = False  # the step calls its optimizer inside of a transformation
                self._compiled.clear()
                numbers, new = self._run(arguments, turns.update)
        if not turns.update:
            new = (state[WEIGHTS], new[OTHERS], state[MOMENTS], new[METRICS])
        for variables, values in zip(groups, new, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable._value = value
        return numbers

    def outputs(self, probe: Probe, call: Callable[..., Any], *inputs: Any) -> list[np.ndarray]:
        """Outputs of layers."""

        def run(values: list[Any], inputs: tuple[Any, ...]) -> list[Any]:
            scope = keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True)))
            with scope, probe.watching() as seen:
                call(*inputs)
            return [jnp.asarray(each, jnp.float32) for each in seen]

        variables = [variable for variable in all_variables(self._model) if variable._value is not None]
        with models_fault(jax.errors.JaxRuntimeError):
            known = self._passes.get(id(probe))
            if known is None or known[0] is not probe or known[1] != call:
                known = self._passes[id(probe)] = (probe, call, jax.jit(run))
            results = known[2]([variable._value for variable in variables], inputs)
        return [np.asarray(each) for each in results]

    def _run(self, arguments: Any, update: bool) -> tuple[Numbers, Any]:
        key = self._dtype, update
        if key not in self._compiled:
            self._compiled[key] = _CompiledStep(self._model, self._optimizers, self._sees_gradients, update)
        return self._compiled[key](*arguments)


class _CompiledStep:
    """One train step as JAX compiles it, with what a trial may change as its arguments."""

    def __init__(self, model: Any, optimizers: list[Any], sees_gradients: bool, update: bool) -> None:
        self._model = model
        self._update = update
        self._optimizers = optimizers
        self._sees_gradients = sees_gradients
        self._names: list[str] | None = None
        self._loss = LossMemory()
        self._norms: Any = None
        self._rate: Any = None
        self._limit: Any = None
        # A function of its own each time: jax keeps traces by the identity of what it compiles.
        eager = model.run_eagerly
        self._call: Callable[..., Any] = (
            self._traced if eager else jax.jit(lambda *args: self._traced(*args), compiler_options=_quickly())
        )

    def __call__(self, state: Any, batch: Any, rate: Any, limit: Any) -> tuple[Numbers, Any]:
        loss, norms, new = self._call(state, batch, rate, limit)
        value = None if loss is None else float(np.mean(np.asarray(loss, np.float64)))
        pairs = None
        if norms is not None:
            each = np.asarray(norms, np.float64).tolist()
            pairs = list(zip(self._names or [], each, strict=True))
        return Numbers(value, pairs), new

    def on_loss(self, loss: Any, *, final: bool) -> None:
        """Keep the raw loss; others are computed inside a gradient transformation and must not leave it."""
        if final:
            self._loss.note(loss, final=final)

    def scale_rate(self, stream: int, rate: Any) -> Any:
        """The trial's factor."""
        return scaled_rate(rate, self._rate)

    def on_apply(self, stream: int, optimizer: Any, original: Any, moments: Any, grads: Any, weights: Any) -> Any:
        """The optimizer is called."""
        if not self._sees_gradients:
            return original(moments, grads, weights)
        grads = list(grads)
        scale = self._scale(optimizer, moments)
        pairs = zip(grads, self._model.trainable_variables, strict=True)
        present = [(grad, variable.path) for grad, variable in pairs if grad is not None]
        self._names = [name for _, name in present]
        if present:
            raw = jnp.stack([safe_norm(grad) for grad, _ in present])
            self._norms = raw / scale
        if not self._update:
            return list(weights), list(moments)
        if present:
            factor = clip_factor(raw, self._limit, scale)
            grads = [None if grad is None else grad * factor.astype(grad.dtype) for grad in grads]
        return original(moments, grads, weights)

    def _traced(self, state: Any, batch: Any, rate: Any, limit: Any) -> Any:
        self._loss, self._norms, self._rate, self._limit = LossMemory(), None, rate, limit
        interception = Interception(self._model, self._optimizers, "stateless_apply")
        with models_fault(), interception.watching(self):
            logs, new = self._model.train_step(state, batch)
        new = tuple(map(list, new))
        loss = self._loss.value
        if loss is None and isinstance(logs, dict):
            loss = logs.get("loss")
        norms, self._norms, self._loss = self._norms, None, LossMemory()
        if norms is None:  # the size of the update stands in for that of the gradients
            pairs = zip(new[WEIGHTS], state[WEIGHTS], strict=True)
            norms = jnp.stack([safe_norm(after - before) for after, before in pairs]) if new[WEIGHTS] else None
            self._names = [variable.path for variable in self._model.trainable_variables]
        return loss, norms, new

    def _scale(self, optimizer: Any, moments: Any) -> Any:
        if not scales_loss(optimizer):
            return jnp.float32(optimizer.loss_scale_factor or 1.0)
        index = next(i for i, variable in enumerate(optimizer.variables) if variable is optimizer.dynamic_scale)
        return moments[index]


def _quickly() -> dict[str, Any]:
    """Options of a compilation whose result runs a few times only."""
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@contextmanager
def _values_kept(variables: list[Any]) -> Iterator[None]:
    """Every variable holds afterwards the very array that it held before, in its dtype."""
    before = [(variable, variable._value, variable._dtype) for variable in variables]
    try:
        yield
    finally:
        for variable, value, dtype in before:
            variable._value, variable._dtype = value, dtype
