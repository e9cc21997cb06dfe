"""The gate inside a compiled step: what :meth:`nan_callbacks.core.Limits.admits` decides, as backend operations."""

from __future__ import annotations

from typing import Any

from keras import ops


def admits(limits: Any, loss: Any, grad_norm: Any, statistics_jump: Any) -> Any:
    """Decide whether an update may reach the weights.

    Args:
        limits: One row of :func:`nan_callbacks.keras.readings.pack_limits`.
        loss: Raw loss, float32, shape []; None if unknown.
        grad_norm: Global L2 gradient norm, float32, shape []; None without gradients.
        statistics_jump: Growth factor of the running variances, float32, shape []; None if there are none.

    Returns:
        A boolean of shape [].
    """
    flag = limits > 0.5
    finite_loss, finite_gradients, closed = flag[3], flag[4], flag[5]
    # "not greater" rather than "at most": NaN is no growth.
    calm = True if statistics_jump is None else ops.logical_not(statistics_jump > limits[2])
    if loss is not None:
        good = ops.where(ops.isfinite(loss), loss <= limits[0], finite_loss)
        calm = ops.logical_and(calm, good)
    if grad_norm is not None:
        calm = ops.where(ops.isfinite(grad_norm), ops.logical_and(calm, grad_norm <= limits[1]), finite_gradients)
    return ops.logical_and(calm, ops.logical_not(closed))
