"""Derivatives of a Keras layer by inputs and variables, as each backend takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nan_callbacks.layer_check.bench import Run
from nan_callbacks.layer_check.keras_tensors import is_float

if TYPE_CHECKING:
    from nan_callbacks.layer_check.keras_bench import KerasBench


def differentiated(bench: KerasBench, tensors: dict[str, Any], how: Run) -> tuple[list[Any], dict[str, Any]]:
    """Outputs, and gradients of their weighted sum by name of input or variable.

    Args:
        bench: The layer.
        tensors: Inputs by name.
        how: Mode and weights.
    """
    ways = {"torch": _torch, "tensorflow": _tensorflow, "jax": _jax}
    return ways[bench.backend](bench, tensors, how)


def _weights(outputs: list[Any], how: Run) -> list[Any]:
    from keras import ops

    values = how.cotangents or [np.ones(tuple(output.shape)) for output in outputs]
    return [ops.cast(ops.convert_to_tensor(v), o.dtype) for v, o in zip(values, outputs, strict=True)]


def _torch(bench: KerasBench, tensors: dict[str, Any], how: Run) -> tuple[list[Any], dict[str, Any]]:
    import torch

    names = bench.differentiable(tensors)
    tensors = {n: t.detach().clone().requires_grad_() if n in names else t for n, t in tensors.items()}
    outputs = bench.output(tensors, how)
    wanted = {name: tensors[name] for name in names}
    wanted.update({path: variable.value for path, variable in bench.trained().items()})
    weights = _weights(outputs, how)
    pairs = [(output, weight) for output, weight in zip(outputs, weights, strict=True) if output.requires_grad]
    if not pairs or not wanted:
        return outputs, {}
    found = torch.autograd.grad(
        [output for output, _ in pairs], list(wanted.values()), [weight for _, weight in pairs], allow_unused=True
    )
    return outputs, {name: grad for name, grad in zip(wanted, found, strict=True) if grad is not None}


def _tensorflow(bench: KerasBench, tensors: dict[str, Any], how: Run) -> tuple[list[Any], dict[str, Any]]:
    import tensorflow as tf

    wanted = {name: tensors[name] for name in bench.differentiable(tensors)}
    with tf.GradientTape() as tape:
        for tensor in wanted.values():
            tape.watch(tensor)
        outputs = bench.output(tensors, how)
    wanted.update({path: variable.value for path, variable in bench.trained().items()})
    found = tape.gradient(outputs, list(wanted.values()), output_gradients=_weights(outputs, how)) if outputs else []
    gradients = {name: grad for name, grad in zip(wanted, found, strict=False) if grad is not None}
    # The rows of an embedding that were looked up, put back into a whole matrix.
    return outputs, {name: tf.convert_to_tensor(grad) for name, grad in gradients.items()}


def _jax(bench: KerasBench, tensors: dict[str, Any], how: Run) -> tuple[list[Any], dict[str, Any]]:
    from nan_callbacks.layer_check.keras_jax import called

    outputs, gradients = called(bench, tensors, how)
    return outputs, {name: gradient for name, gradient in gradients.items() if is_float(gradient)}
