"""A Keras layer on JAX as a pure function, compiled once for each shape: calling it bit by bit takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nan_callbacks.layer_check.bench import Run

if TYPE_CHECKING:
    from nan_callbacks.layer_check.keras_bench import KerasBench


def called(bench: KerasBench, tensors: dict[str, Any], how: Run) -> tuple[list[Any], dict[str, Any]]:
    """Outputs and, if they are wanted, gradients by name of input and variable.

    Args:
        bench: The layer; what has been compiled for it is kept there.
        tensors: Inputs by name.
        how: Mode, precision and weights.
    """
    if bench.is_layer and not bench.layer.built:
        bench.output(tensors, how)  # variables must not be made inside of a transformation
    names = bench.differentiable(tensors) if how.gradients else []
    wanted = {name: tensors[name] for name in names}
    fixed = {name: tensor for name, tensor in tensors.items() if name not in names}
    trained = {path: variable.value for path, variable in bench.trained().items()}
    others = [variable.value for variable in bench.layer.non_trainable_variables] if bench.is_layer else []
    weights = None if how.cotangents is None else [np.asarray(weight) for weight in how.cotangents]
    shapes = tuple((name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in tensors.items())
    key = (how.training, how.precision, how.gradients, weights is None, shapes)
    function = bench.compiled.get(key)
    if function is None:
        function = bench.compiled[key] = _compiled(bench, how)
    outputs, gradients = function(wanted, fixed, trained, others, weights)
    return list(outputs), gradients


def _compiled(bench: KerasBench, how: Run) -> Callable[..., Any]:
    """The compiled function; the plain one if it cannot be compiled, as where Python code looks at values."""
    import jax

    plain = _pure(bench, how)
    functions: list[Callable[..., Any]] = [jax.jit(plain)]

    def call(*args: Any) -> Any:
        try:
            return functions[0](*args)
        except Exception:
            functions[0] = plain
            return plain(*args)

    return call


def _pure(bench: KerasBench, how: Run) -> Callable[..., Any]:
    import jax
    import keras

    layer = bench.layer

    def outputs_of(wanted: Any, trained: Any, fixed: Any, others: Any) -> Any:
        tensors = {name: {**wanted, **fixed}[name] for name in bench.names}
        if not bench.is_layer:
            with keras.StatelessScope():  # unseeded random operations move the global seed on
                return bench.output(tensors, how)
        values = [trained.get(variable.path, variable.value) for variable in layer.trainable_variables]

        def call(*args: Any, **kwargs: Any) -> Any:
            return layer.stateless_call(values, others, *args, **kwargs)[0]

        return bench.output(tensors, how, call)

    def pure(wanted: Any, fixed: Any, trained: Any, others: Any, weights: Any) -> Any:
        if not how.gradients:
            return outputs_of(wanted, trained, fixed, others), {}
        outputs, back = jax.vjp(lambda inputs, values: outputs_of(inputs, values, fixed, others), wanted, trained)
        if not outputs:
            return [], {}
        given = weights or [np.ones(output.shape) for output in outputs]
        seeds = [jax.numpy.asarray(weight).astype(output.dtype) for weight, output in zip(given, outputs, strict=True)]
        by_input, by_variable = back(seeds)
        return outputs, {**by_input, **by_variable}

    return pure
