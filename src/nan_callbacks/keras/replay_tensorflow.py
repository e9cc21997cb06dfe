"""Replay on TensorFlow: the model's own train step, run eagerly under an operation callback."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context as tf_context

from nan_callbacks.diagnosis.origin import OriginKind, ReplayResult
from nan_callbacks.keras.interception import Interception, LossMemory
from nan_callbacks.keras.model_parts import optimizers_of, scales_loss
from nan_callbacks.keras.replay_batch import batch_rows, named_parts
from nan_callbacks.keras.replay_layers import LayerStack, owner_of
from nan_callbacks.keras.replay_result import Outcome, finished, gave_up, raised
from nan_callbacks.keras.replay_sites import SiteFinder
from nan_callbacks.keras.replay_state import all_variables, layer_losses_kept, python_streams_kept
from nan_callbacks.keras.replay_tensorflow_hooks import OperationHooks
from nan_callbacks.keras.replay_trace import OutOfTimeError, Trace

_FAILED_OPERATION = re.compile(r"\[Op:(\w+)\]")


def replay(
    model: Any,
    batch: Any,
    *,
    state: Any = None,
    budget_seconds: float | None = None,
    make_trace: Callable[..., Trace] = Trace,
) -> ReplayResult:
    """See :func:`nan_callbacks.keras.replay.replay`; ``state`` has no meaning here, ``make_trace`` makes the notes."""
    began = time.monotonic()
    deadline = None if budget_seconds is None else began + budget_seconds
    trace = make_trace(_numpy, _is_float, _all_finite, batch_rows(batch), deadline)
    if model.distribute_strategy.num_replicas_in_sync > 1:
        return gave_up(trace, "A step under a distribution strategy is not replayed.", began)
    run = _Run(model, trace)
    try:
        with ExitStack() as stack:
            for kept in (variables_kept(model), python_streams_kept(), _stream_kept(), layer_losses_kept(model)):
                stack.enter_context(kept)
            stack.enter_context(_eager())
            step(run, batch)
            return finished(trace, run.outcome(), began)
    except OutOfTimeError:
        return gave_up(trace, f"The replay was given up after {budget_seconds} s.", began)
    except Exception as error:
        operation = _FAILED_OPERATION.search(str(error))
        native = operation[1] if operation else ""
        return raised(trace, error, step.__code__, run.layers.on_failure, run.hooks.failed_in, native, began)


def step(run: _Run, batch: Any) -> Any:
    """The step itself. A function of its own, because the stack is read down to it."""
    batch = tf.nest.map_structure(lambda leaf: leaf if leaf is None else tf.convert_to_tensor(leaf), batch)
    run.note_given(batch)
    with run.installed():
        run.logs = run.model.train_step(batch)


class _Run:
    """One replayed step: sees losses and gradients pass by."""

    def __init__(self, model: Any, trace: Trace) -> None:
        self.model = model
        self.trace = trace
        self.layers = LayerStack(model)
        self.hooks = OperationHooks(trace, SiteFinder(self.layers, step.__code__))
        self.optimizers = optimizers_of(model)
        self.interception = Interception(model, self.optimizers, "apply")
        self.logs: Any = None
        self._loss = LossMemory()
        self._losses: list[Any] = []
        self._gradients: list[tuple[str, Any, float]] = []

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Everything that watches is in place inside the block."""
        watching = self.layers.watching(), self.interception.installed(), self.interception.watching(self)
        with watching[0], watching[1], watching[2], self.hooks.installed():
            yield

    def note_given(self, batch: Any) -> None:
        """Look at the batch and at the variables, as they are before the step."""
        for name, part in named_parts(batch):
            node = self.trace.given(OriginKind.BATCH, name, _dense(part), maskable=True)
            if node is not None:
                self.hooks.know(part, node)
        fixed = {id(variable) for variable in self.model.non_trainable_variables}
        for variable in all_variables(self.model):
            if not _is_float(variable.value):
                continue
            place = owner_of(self.model, variable)
            node = self.trace.given(
                OriginKind.PARAMETERS,
                variable.path,
                variable.value.value(),
                maskable=not variable.trainable,
                place=place,
                is_trained=id(variable) not in fixed,
            )
            if node is not None:
                self.hooks.know_variable(variable.value, node)

    def on_loss(self, loss: Any, *, final: bool) -> None:
        """A loss passes by."""
        self._losses.append(loss)
        self._loss.note(loss, final=final)

    def scale_rate(self, stream: int, rate: Any) -> Any:
        """The learning rate stays as it is."""
        return rate

    def on_apply(self, stream: int, optimizer: Any, original: Any, grads: Any, variables: Any = None) -> Any:
        """The optimizer is called."""
        grads = list(grads)
        known = list(optimizer._trainable_variables if variables is None else variables)
        scale = float(optimizer.dynamic_scale.numpy()) if scales_loss(optimizer) and optimizer.built else 1.0
        for grad, variable in zip(grads, known, strict=True):
            if grad is not None:
                self._gradients.append((variable.path, grad, scale))
        if not optimizer.built:
            return None
        with self.hooks.in_optimizer():
            return original(grads) if variables is None else original(grads, variables)

    def outcome(self) -> Outcome:
        """What the step ended in."""
        known = self.hooks.node_of
        losses = self._losses or _logged_loss(self.logs)
        value = self._loss.value if self._losses else next(iter(losses), None)
        outcome = Outcome(loss=None if value is None else float(np.mean(np.asarray(value, dtype=np.float64))))
        outcome.ends.loss = [node for loss in losses if (node := known(loss)) is not None]
        for name, grad, scale in self._gradients:
            dense = _dense(grad)
            outcome.gradients.append((name, _numpy(dense).astype(np.float64) / scale))
            outcome.ends.gradients += [node for each in (grad, dense) if (node := known(each)) is not None]
        for variable in self.model.trainable_variables:
            if not _all_finite(variable.value.value()):
                outcome.weights_finite = False
                node = self.hooks.node_of_variable(variable.value)
                outcome.ends.weights += [] if node is None else [node]
        return outcome


def _logged_loss(logs: Any) -> list[Any]:
    loss = logs.get("loss") if isinstance(logs, dict) else None
    return [loss] if isinstance(loss, tf.Tensor) else []


@contextmanager
def variables_kept(model: Any) -> Iterator[None]:
    """Every variable holds afterwards what it held before."""
    with values_kept([variable.value for variable in all_variables(model)]), plain_variables_kept(model):
        yield


def plain_variables_kept(model: Any) -> AbstractContextManager[None]:
    """Variables and generators of TensorFlow's own that layers hold keep their values."""
    layers = model._flatten_layers(include_self=True, recursive=True)
    own = [each for layer in layers for each in vars(layer).values()]
    held = [each.state if isinstance(each, tf.random.Generator) else each for each in own]
    return values_kept([each for each in held if isinstance(each, tf.Variable)])


@contextmanager
def values_kept(variables: Sequence[Any]) -> Iterator[None]:
    """TensorFlow's variables hold afterwards what they held before."""
    before = [tf.identity(variable) for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)


@contextmanager
def _stream_kept() -> Iterator[None]:
    """TensorFlow's own random stream stands where it stood, if it was ever seeded."""
    own = getattr(tf_context.context(), "_rng", None)
    before = None if own is None else own.getstate()
    try:
        yield
    finally:
        if own is not None:
            own.setstate(before)


@contextmanager
def _eager() -> Iterator[None]:
    """Functions run eagerly inside the block."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _is_float(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    return isinstance(dtype, tf.DType) and (dtype.is_floating or dtype.is_complex)


def _all_finite(value: Any) -> bool:
    return bool(np.isfinite(value.numpy()).all())


def _numpy(value: Any) -> np.ndarray:
    array = np.asarray(value.numpy())
    return array.astype(np.float32) if keras.backend.standardize_dtype(value.dtype) == "bfloat16" else array


def _dense(value: Any) -> Any:
    """The numbers of a tensor that may be sparse or ragged."""
    for name in ("values", "flat_values"):
        if isinstance(value, tf.IndexedSlices | tf.SparseTensor | tf.RaggedTensor) and hasattr(value, name):
            return getattr(value, name)
    return value
