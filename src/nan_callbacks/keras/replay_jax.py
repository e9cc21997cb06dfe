"""Replay on JAX: the model's own train step, traced to a program that is evaluated equation by equation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from nan_callbacks.diagnosis.origin import OriginKind, Phase, ReplayResult
from nan_callbacks.keras.interception import Interception, LossMemory
from nan_callbacks.keras.model_parts import optimizers_of, scales_loss
from nan_callbacks.keras.replay_batch import batch_rows, named_parts
from nan_callbacks.keras.replay_jax_interpreter import Interpreter, Region, Value
from nan_callbacks.keras.replay_jax_sites import SiteMarks
from nan_callbacks.keras.replay_layers import OUTSIDE, LayerStack, owner_of
from nan_callbacks.keras.replay_result import Outcome, finished, gave_up, raised
from nan_callbacks.keras.replay_sites import SiteFinder
from nan_callbacks.keras.replay_state import all_variables, layer_losses_kept, python_streams_kept
from nan_callbacks.keras.replay_trace import OutOfTimeError, Trace

WEIGHTS, OTHERS, MOMENTS, METRICS = range(4)
"""Positions in the state that JAX training hands around."""


def replay(
    model: Any,
    batch: Any,
    *,
    state: Any = None,
    budget_seconds: float | None = None,
    make_trace: Callable[..., Trace] = Trace,
) -> ReplayResult:
    """See :func:`nan_callbacks.keras.replay.replay`; ``make_trace`` makes the notes."""
    began = time.monotonic()
    deadline = None if budget_seconds is None else began + budget_seconds
    trace = make_trace(_numpy, _is_float, _all_finite, batch_rows(batch), deadline)
    state = tuple(map(list, state)) if state is not None else _present_state(model)
    batch = jax.tree.map(jax.numpy.asarray, batch)
    run = _Run(model, trace)
    try:
        with ExitStack() as stack:
            for kept in (_variables_kept(model), python_streams_kept(), layer_losses_kept(model)):
                stack.enter_context(kept)
            program = run.traced(state, batch)
            return finished(trace, run.evaluated(program, state, batch), began)
    except OutOfTimeError:
        return gave_up(trace, f"The replay was given up after {budget_seconds} s.", began)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        return gave_up(trace, f"The step cannot be traced: {str(error).splitlines()[0]}", began)
    except Exception as error:
        running = run.interpreter
        place = run.layers.on_failure if running.current is None else running.current.place
        phase = Phase.BACKWARD if running.current_backward else Phase.FORWARD
        return raised(trace, error, step.__code__, place, phase, running.current_name, began)


def step(run: _Run, state: Any, batch: Any) -> Any:
    """The step itself. A function of its own, because the stack is read down to it."""
    with run.interception.installed(), run.interception.watching(run):
        logs, new = run.model.train_step(state, batch)
    logged = logs.get("loss") if isinstance(logs, dict) else None
    loss = run.loss.value if run.loss.value is not None else logged
    return loss, run.gradients, tuple(map(list, new))


class _Run:
    """One replayed step."""

    def __init__(self, model: Any, trace: Trace) -> None:
        self.model = model
        self.trace = trace
        self.layers = LayerStack(model)
        self.optimizers = optimizers_of(model)[:1]  # Keras' JAX trainer threads the state of one optimizer only
        self.marks = SiteMarks(SiteFinder(self.layers, step.__code__))
        self.interpreter = Interpreter(trace, self.marks)
        self.interception = Interception(model, self.optimizers, "stateless_apply")
        self.loss = LossMemory()
        self.gradients: list[Any] | None = None
        self._variables = _variable_groups(model)
        self._sees_gradients = True
        self._shape: Any = None
        self._updates: set[int] = set()

    def on_loss(self, loss: Any, *, final: bool) -> None:
        """Keep the raw loss; others are computed inside a gradient transformation and must not leave it."""
        if final:
            self.loss.note(loss, final=final)

    def scale_rate(self, stream: int, rate: Any) -> Any:
        """The learning rate stays as it is."""
        return rate

    def on_apply(self, stream: int, optimizer: Any, original: Any, moments: Any, grads: Any, weights: Any) -> Any:
        """The optimizer is called."""
        if self._sees_gradients:
            self.gradients = list(grads)
        if not optimizer.built:
            return list(weights), list(moments)
        first = len(self.marks.sites)
        result = original(moments, grads, weights)
        self._updates.update(range(first, len(self.marks.sites)))
        return result

    def traced(self, state: Any, batch: Any) -> Any:
        """The step as a program."""
        try:
            return self._traced(state, batch)
        except jax.errors.UnexpectedTracerError:  # a step that calls its optimizer inside of a transformation
            self._sees_gradients = False
            self.gradients, self.loss = None, LossMemory()
            return self._traced(state, batch)

    def evaluated(self, program: Any, state: Any, batch: Any) -> Outcome:
        """Evaluate the program and look at its ends."""
        arguments = [*self._given_state(state), *self._given_batch(batch)]
        self.interpreter.updates = self._updates
        results = self.interpreter.run(program.jaxpr, program.consts, arguments, Region())
        loss, gradients, new = jax.tree.unflatten(self._shape, results)
        return self._outcome(loss, gradients, new, self._scale(state))

    def _traced(self, state: Any, batch: Any) -> Any:
        def run_step(state: Any, batch: Any) -> Any:
            result = step(self, state, batch)
            self._shape = jax.tree.structure(result)
            return result

        with self.layers.watching(), self.marks.installed():
            return jax.make_jaxpr(run_step)(state, batch)

    def _given_state(self, state: Any) -> list[Value]:
        values = []
        for index, (variables, group) in enumerate(zip(self._variables, state, strict=True)):
            for variable, array in zip(variables, group, strict=True):
                place = OUTSIDE if index >= MOMENTS else owner_of(self.model, variable)
                node = self.trace.given(
                    OriginKind.PARAMETERS,
                    variable.path,
                    array,
                    maskable=index != WEIGHTS,
                    place=place,
                    is_trained=index == WEIGHTS or index >= MOMENTS,
                )
                values.append(Value(array, node))
        return values

    def _given_batch(self, batch: Any) -> list[Value]:
        leaves = jax.tree.leaves(batch)
        names = [name for name, _ in named_parts(batch)]
        names = names if len(names) == len(leaves) else [f"batch[{index}]" for index in range(len(leaves))]
        return [
            Value(leaf, self.trace.given(OriginKind.BATCH, name, leaf, maskable=True))
            for name, leaf in zip(names, leaves, strict=True)
        ]

    def _scale(self, state: Any) -> float:
        optimizer = self.model.optimizer
        if not self.optimizers or not scales_loss(optimizer):
            return 1.0
        index = next(i for i, variable in enumerate(optimizer.variables) if variable is optimizer.dynamic_scale)
        return float(state[MOMENTS][index])

    def _outcome(self, loss: Any, gradients: Any, new: Any, scale: float) -> Outcome:
        outcome = Outcome(loss=None if loss is None else float(np.mean(_numpy(loss.array).astype(np.float64))))
        if loss is not None and loss.node is not None:
            outcome.ends.loss = [loss.node]
        for variable, grad in zip(self.model.trainable_variables, gradients or (), strict=False):
            if grad is None:
                continue
            outcome.gradients.append((variable.path, _numpy(grad.array).astype(np.float64) / scale))
            outcome.ends.gradients += [] if grad.node is None else [grad.node]
        outcome.ends.weights = [value.node for value in new[WEIGHTS] if value.node is not None]
        outcome.weights_finite = not outcome.ends.weights
        return outcome


def _variable_groups(model: Any) -> tuple[list[Any], ...]:
    """The variables in the order of a JAX state."""
    moments = model.optimizer.variables if model.optimizer is not None else []
    groups = (model.trainable_variables, model.non_trainable_variables, moments, model.metrics_variables)
    return tuple(list(group) for group in groups)


def _present_state(model: Any) -> Any:
    if getattr(model, "_jax_state", None) is not None:
        model.jax_state_sync()
    return tuple([variable.value for variable in group] for group in _variable_groups(model))


@contextmanager
def _variables_kept(model: Any) -> Iterator[None]:
    """Every variable holds afterwards the very array that it held before."""
    variables = all_variables(model)
    before = [variable._value for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable._value = value


def _is_float(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return isinstance(value, float)
    return bool(jnp.issubdtype(dtype, np.inexact))


def _all_finite(value: Any) -> bool:
    return bool(np.isfinite(np.asarray(value)).all())


def _numpy(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return (
        array.astype(np.float32)
        if array.dtype.name in ("bfloat16",) or array.dtype.name.startswith("float8")
        else array
    )
