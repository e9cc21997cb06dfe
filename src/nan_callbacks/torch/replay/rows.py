"""Which rows of the batch, and which time step, a non-finite result belongs to."""

from __future__ import annotations

from torch import Tensor

from nan_callbacks.torch.replay.tracer import Operation, Tracer

_LAYER_OVER_TIME = {"mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn", "quantized_lstm"}
"""Fused kernels whose first output is [time, batch, features]."""
_LEAST_REPEATS = 3
"""Parameters that are used at least this often in one step belong to a loop over time; twice is a tied embedding or
a twin network."""


def rows_of_result(bad: Tensor, operation: Operation, batch_size: int) -> tuple[int, ...] | None:
    """Rows of the batch in which a result is non-finite.

    Args:
        bad: True where the result is non-finite.
        operation: What made it.
        batch_size: Rows of the batch; 0 if unknown.

    Returns:
        None if the result's first dimension is not the batch, or the batch times something that was folded into it
        (time steps, attention heads; rows are expected to be folded batch first).
    """
    if not batch_size or bad.dim() == 0:
        return None
    if operation.facts.name in _LAYER_OVER_TIME:
        if bad.dim() != 3 or bad.shape[1] != batch_size:
            return None
        return _true(bad.any(2).any(0))
    first = bad.shape[0]
    if first == 0 or first % batch_size or not _keeps_rows(operation, first):
        return None
    return _true(bad.reshape(batch_size, -1).any(1))


def _keeps_rows(operation: Operation, first: int) -> bool:
    """Whether an operand has as many rows as the result: a gradient of a weight matrix has not."""
    tensors = operation.inputs
    if operation.facts.neutral == "matmul" and operation.node is not None:
        # [out, batch] @ [batch, in]: the gradient of a weight; its inner dimension is the batch.
        return len(tensors) > 0 and tensors[0].shape[-1] != first
    return not tensors or any(tensor.dim() and tensor.shape[0] == first for tensor in tensors)


def _true(rows: Tensor) -> tuple[int, ...]:
    return tuple(rows.nonzero().flatten().tolist())


def time_of_result(bad: Tensor, operation: Operation) -> int | None:
    """First bad time step of a fused recurrent layer; None for every other operation."""
    if operation.facts.name not in _LAYER_OVER_TIME or bad.dim() != 3:
        return None
    times = _true(bad.any(2).any(1))
    return times[0] if times else None


def time_of_execution(operation: Operation, tracer: Tracer, uses: dict[int, int]) -> int | None:
    """How often the loop over time had turned when an operation ran, counted from 0; None outside of such a loop.

    Args:
        operation: What failed (of a derivative: its forward operation is asked).
        tracer: Knows how often each operation ran at its place.
        uses: How often each parameter was used in the forward pass, by id.
    """
    module = operation.module
    if module is None:
        return None
    record = operation.forward
    count = operation.site_count if record is None else record.site_count
    total = tracer.executions(module, operation.place, (record or operation).facts.native)
    repeats = [uses[id(p)] for p in module.parameters() if uses.get(id(p), 0) >= _LEAST_REPEATS]
    if not repeats or total < min(repeats):
        return None
    per_turn = max(1, total // min(repeats))
    return (count - 1) // per_turn
