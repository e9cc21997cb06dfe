"""Norms, counts and growth factors as TensorFlow operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


def gradients(grads: list[Any], scale: Any, *, xla: bool) -> tuple[Any, Any, Any]:
    """Measure the gradients of one update.

    Args:
        grads: Dense tensors or ``IndexedSlices`` of any floating dtype.
        scale: What the gradients must be divided by: the loss scale.
        xla: Whether XLA compiles the step, which has no operation of a size unknown beforehand.

    Returns:
        Norm of each gradient, their global norm, number of non-finite elements of each (zeros if the norm is finite).
    """
    dense = [tf.cast(_values(grad, xla=xla), tf.float32) for grad in grads]
    scale = tf.cast(scale, tf.float32)
    norms = _norms(dense) / scale
    total = tf.norm(norms)

    def closer_look() -> tuple[Any, Any, Any]:
        norms = exact_norms(dense) / scale
        largest = tf.reduce_max(norms)
        safe = tf.where(largest > 0, largest, 1.0)
        return norms, tf.norm(norms / safe) * safe, tf.stack([_count_non_finite(each) for each in dense])

    # A float32 sum of squares overflows at a norm of about 1e19 with finite elements.
    measured: tuple[Any, Any, Any] = tf.cond(
        tf.math.is_finite(total), lambda: (norms, total, tf.zeros_like(norms)), closer_look
    )
    return measured


def parameter_norms(tensors: list[Any]) -> Any:
    """L2 norms: non-finite only if an element is. Tensors of which all norms are moderate are read only once."""
    norms = _norms([tf.cast(tensor, tf.float32) for tensor in tensors])
    return tf.cond(tf.reduce_all(tf.math.is_finite(norms)), lambda: norms, lambda: exact_norms(tensors))


def exact_norms(tensors: list[Any]) -> Any:
    """L2 norms whose squares cannot overflow: non-finite only if an element is."""
    norms = []
    for tensor in tensors:
        tensor = tf.cast(tensor, tf.float32)
        largest = tf.reduce_max(tf.abs(tensor)) if tensor.shape.num_elements() != 0 else tf.constant(0.0)
        safe = tf.where(largest > 0, largest, 1.0)
        norm = safe * tf.sqrt(tf.reduce_sum(tf.square(tensor / safe)))
        # NaN and Inf divided by themselves would both read NaN, and a maximum may pass over NaN.
        broken = tf.reduce_any(~tf.math.is_finite(tensor))
        norms.append(tf.where(broken, tf.constant(np.nan, tf.float32), norm))
    return tf.stack(norms)


def growth(variances: list[tuple[Any, Any]]) -> Any:
    """Largest factor by which the norm of a running variance grew.

    Args:
        variances: Variables and their values from before.

    Returns:
        Shape []; None if there are no variables.
    """
    if not variances:
        return None
    before = _norms([tf.cast(old, tf.float32) for _, old in variances])
    after = _norms([tf.cast(variable.value, tf.float32) for variable, _ in variances])
    return tf.reduce_max(after / before)


def summed(grads: list[Any]) -> list[Any]:
    """The gradients that the optimizer will apply: those of all replicas together.

    Keras adds them up itself, after its own clipping; its sum cannot be had without a second one here.
    """
    context = tf.distribute.get_replica_context()
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, grads))


def agree(loss: Any, total: Any, jump: Any, counts: Any) -> tuple[Any, Any, Any, Any]:
    """Means over the replicas, so that each of them decides the same."""
    present = [item for item in (loss, total, jump, counts) if item is not None]
    context = tf.distribute.get_replica_context()
    means = list(context.all_reduce(tf.distribute.ReduceOp.MEAN, present))
    loss, total, jump, counts = (None if item is None else means.pop(0) for item in (loss, total, jump, counts))
    return loss, total, jump, counts


def show_overflow(grads: list[Any], overflow: Any) -> list[Any]:
    """Make every replica see an overflow that one of them had.

    Keras' ``LossScaleOptimizer`` looks at the first replica's gradients only (seen with Keras 3.15).
    """
    dense = [i for i, grad in enumerate(grads) if grad is not None and not isinstance(grad, tf.IndexedSlices)]
    if not dense:
        return grads
    smallest = min(dense, key=lambda i: int(np.prod(grads[i].shape)))
    shown = list(grads)
    shown[smallest] = tf.where(overflow, tf.constant(np.nan, grads[smallest].dtype), grads[smallest])
    return shown


def _norms(tensors: list[Any]) -> Any:
    return tf.sqrt(2.0 * tf.stack([tf.nn.l2_loss(tensor) for tensor in tensors]))


def _count_non_finite(tensor: Any) -> Any:
    return tf.reduce_sum(tf.cast(~tf.math.is_finite(tensor), tf.float32))


def _values(grad: Any, *, xla: bool) -> Any:
    if not isinstance(grad, tf.IndexedSlices):
        return tf.convert_to_tensor(grad)
    if xla:  # which has no tf.unique
        return _merged_rows(grad)
    rows, positions = tf.unique(grad.indices)
    return tf.math.unsorted_segment_sum(grad.values, positions, tf.size(rows))


def _merged_rows(grad: tf.IndexedSlices) -> Any:
    """The rows of a sparse gradient, repeated ones added up; as many as before, the spare ones zero."""
    order = tf.argsort(grad.indices)
    indices = tf.gather(grad.indices, order)
    is_new = tf.concat([tf.zeros([1], tf.int32), tf.cast(indices[1:] != indices[:-1], tf.int32)], 0)
    return tf.math.unsorted_segment_sum(tf.gather(grad.values, order), tf.cumsum(is_new), tf.size(indices))
