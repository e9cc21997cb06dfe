"""The laboratory's step on TensorFlow: the model's own train step, run eagerly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from nan_callbacks.keras.interception import Interception
from nan_callbacks.keras.lab_hands import Numbers, Probe, Turns, Watcher, models_fault
from nan_callbacks.keras.lab_state import attributes_kept
from nan_callbacks.keras.model_parts import optimizers_of
from nan_callbacks.keras.replay_state import all_variables, layer_losses_kept, python_streams_kept
from nan_callbacks.keras.replay_tensorflow import _eager, _stream_kept, plain_variables_kept


class StepHands:
    """See :class:`nan_callbacks.keras.lab_hands.Hands`.

    Args:
        model: A compiled model.
        state: Not used: the state lives in the model's variables.
    """

    def __init__(self, model: Any, state: Callable[[], Any]) -> None:
        self._model = model

    @contextmanager
    def held_still(self) -> Iterator[None]:
        """Copies stand in for all variables."""
        model = self._model
        with ExitStack() as stack:
            for kept in (python_streams_kept(), _stream_kept(), attributes_kept(model), layer_losses_kept(model)):
                stack.enter_context(kept)
            stack.enter_context(plain_variables_kept(model))
            stack.enter_context(_stand_ins(all_variables(model)))
            stack.enter_context(_eager())
            yield

    @contextmanager
    def cast(self, dtype: str) -> Iterator[None]:
        """Copies in another dtype stand in for the copies."""
        variables = [each for each in all_variables(self._model) if keras.backend.is_float_dtype(each._dtype)]
        with _stand_ins(variables, dtype):
            yield

    def step(self, batch: Any, turns: Turns) -> Numbers:
        """The train step."""
        watcher = Watcher(turns, _dense, _times)
        batch = keras.tree.map_structure(_as_tensor, batch)
        interception = Interception(self._model, optimizers_of(self._model), "apply")
        with models_fault(tf.errors.ResourceExhaustedError), interception.watching(watcher):
            logs = self._model.train_step(batch)
        return watcher.numbers(logs)

    def outputs(self, probe: Probe, call: Callable[..., Any], *inputs: Any) -> list[np.ndarray]:
        """Outputs of layers."""
        with models_fault(tf.errors.ResourceExhaustedError), probe.watching() as seen:
            call(*inputs)
        return [np.asarray(ops.convert_to_numpy(ops.cast(_in_order(each), "float32"))) for each in seen]


def _as_tensor(part: Any) -> Any:
    """A part as a data set would hand it on; sparse and ragged ones are tensors of their own kinds."""
    return part if part is None or tf.is_tensor(part) else tf.convert_to_tensor(part)


def _in_order(part: Any) -> Any:
    """A sparse tensor with its entries in the order that making it dense asks for."""
    return tf.sparse.reorder(part) if isinstance(part, tf.SparseTensor) else part


def _dense(grad: Any) -> Any:
    """The numbers of a gradient, repeated rows of a sparse one added up."""
    if not isinstance(grad, tf.IndexedSlices):
        return tf.convert_to_tensor(grad)
    rows, positions = tf.unique(grad.indices)
    return tf.math.unsorted_segment_sum(grad.values, positions, tf.size(rows))


def _times(grad: Any, factor: Any) -> Any:
    if isinstance(grad, tf.IndexedSlices):
        return tf.IndexedSlices(grad.values * tf.cast(factor, grad.dtype), grad.indices, grad.dense_shape)
    return grad * tf.cast(factor, grad.dtype)


@contextmanager
def _stand_ins(variables: list[Any], dtype: str | None = None) -> Iterator[None]:
    """New variables stand in for the old ones, which come back as objects."""
    before = [(variable, variable._value, variable._dtype) for variable in variables]
    try:
        for variable, value, own in before:
            copied = tf.identity(value) if dtype is None else tf.cast(value, dtype)
            twin = tf.Variable(copied, trainable=variable.trainable, name=variable.name)
            twin._unique_id = value._unique_id  # by which optimizers know their variables
            variable._value = twin
            variable._dtype = dtype or own
        yield
    finally:
        for variable, value, own in before:
            variable._value, variable._dtype = value, own
