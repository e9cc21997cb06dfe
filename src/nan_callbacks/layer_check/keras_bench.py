"""Keras layers, losses and functions on the bench, on whatever backend is active."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nan_callbacks.diagnosis.origin import Origin, SourceLine
from nan_callbacks.layer_check.bench import Outcome, Run
from nan_callbacks.layer_check.calling import accepts, arguments, definition_of, name_of
from nan_callbacks.layer_check.cases import ordinary
from nan_callbacks.layer_check.keras_gradients import differentiated
from nan_callbacks.layer_check.keras_precision import computing_in, wide_numbers_allowed
from nan_callbacks.layer_check.keras_tensors import as_array, as_tensor, float_tensors, is_float
from nan_callbacks.layer_check.spec import Arrays, Signature
from nan_callbacks.layer_check.streams import seeded


class KerasBench:
    """See :class:`.Bench`.

    Args:
        layer: A layer, a loss or a function. A layer is built if it is not yet.
        signature: What it takes.
        seed: Where random streams begin.
    """

    framework = "keras"

    def __init__(self, layer: Any, signature: Signature, seed: int) -> None:
        import keras

        self.name = name_of(layer)
        self.layer = layer
        self.is_layer = isinstance(layer, keras.Layer)
        self._signature, self._seed = signature, seed
        self._takes_training = self.is_layer and accepts(layer.call, "training")
        self.has_modes = self.is_layer
        self.backend = str(keras.backend.backend())
        self.names = [spec.name for spec in signature.specs]
        self.compiled: dict[Any, Any] = {}
        """On JAX: what was compiled, by mode, precision and shapes."""
        if self.is_layer and not layer.built:
            self.run(ordinary(signature, seed), Run())

    def run(self, arrays: Arrays, how: Run) -> Outcome:
        """See :meth:`.Bench.run`."""
        with self.ready(how):
            return self._call(arrays, how)

    def run_twice(self, arrays: Arrays, how: Run) -> tuple[Outcome, Outcome]:
        """See :meth:`.Bench.run_twice`."""
        with self.ready(how):
            return self._call(arrays, how), self._call(arrays, how)

    def parameters(self, precision: str) -> dict[str, NDArray[Any]]:
        """See :meth:`.Bench.parameters`. Keras holds them as they are and casts them at every call."""
        return {name: np.array(variable.numpy()) for name, variable in self.trained().items()}

    def origin(self, arrays: Arrays, how: Run, phase: str) -> Origin | None:
        """See :meth:`.Bench.origin`."""
        from nan_callbacks.layer_check.keras_origin import origin

        with self.ready(how):
            return origin(self, self.tensors(arrays, how), how, phase)

    def hand_written_gradient(self, arrays: Arrays) -> tuple[str, SourceLine | None] | None:
        """See :meth:`.Bench.hand_written_gradient`."""
        used = definition_of(self._inner())
        code = getattr(self._inner(), "__code__", None)
        return ("custom_gradient", used) if code is not None and "custom_gradient" in code.co_names else None

    def definition(self) -> SourceLine | None:
        """See :meth:`.Bench.definition`."""
        return definition_of(self._inner())

    def trained(self) -> dict[str, Any]:
        """Trainable variables by path."""
        named = self.layer.trainable_variables if self.is_layer and self.layer.built else ()
        return {variable.path: variable for variable in named if is_float(variable)}

    def tensors(self, arrays: Arrays, how: Run) -> dict[str, Any]:
        """New tensors, by name."""
        return {spec.name: as_tensor(arrays[spec.name], how.precision) for spec in self._signature.specs}

    def differentiable(self, tensors: dict[str, Any]) -> list[str]:
        """Names of the tensors whose gradients are wanted."""
        kinds = {spec.name: spec.kind for spec in self._signature.inputs}
        return [name for name, tensor in tensors.items() if is_float(tensor) and kinds.get(name, "mask") != "mask"]

    def output(self, tensors: dict[str, Any], how: Run, call: Callable[..., Any] | None = None) -> list[Any]:
        """Floating-point outputs.

        Args:
            tensors: By name.
            how: The mode.
            call: In place of the layer itself.
        """
        positional, named = arguments(self.layer, self._inner(), self._signature, tensors)
        if self._takes_training:
            named = {**named, "training": how.training}
        return float_tensors((call or self.layer)(*positional, **named))

    def _call(self, arrays: Arrays, how: Run) -> Outcome:
        try:
            tensors = self.tensors(arrays, how)
            if not how.gradients and not (self.backend == "jax" and how.may_compile):
                return Outcome(outputs=tuple(map(as_array, self.output(tensors, how))))
            outputs, gradients = differentiated(self, tensors, how)
            return Outcome(
                outputs=tuple(map(as_array, outputs)),
                gradients={name: as_array(gradient) for name, gradient in gradients.items()},
                differentiable=bool(gradients),
            )
        except Exception as error:
            return Outcome(error=error)

    @contextmanager
    def ready(self, how: Run) -> Iterator[None]:
        """Parameters, precision and random streams are set inside; afterwards all is as it was."""
        with ExitStack() as stack:
            stack.enter_context(seeded(self._seed))
            stack.enter_context(self._backend_streams())
            stack.enter_context(wide_numbers_allowed(self.backend, how.precision))
            stack.enter_context(computing_in(self.layer, how.precision))
            stack.enter_context(self._variables_kept())
            trained = self.trained()
            for name, values in how.parameters.items():
                trained[name].assign(values)
            yield

    @contextmanager
    def _variables_kept(self) -> Iterator[None]:
        """Every variable holds afterwards what it held before."""
        from nan_callbacks.keras.model_parts import global_seed

        variables = [*(self.layer.variables if self.is_layer else ()), *global_seed()]
        before = [np.array(variable.numpy()) for variable in variables]
        losses = list(getattr(self.layer, "_losses", ()))
        try:
            yield
        finally:
            for variable, values in zip(variables, before, strict=True):
                variable.assign(values)
            if hasattr(self.layer, "_losses"):
                self.layer._losses[:] = losses

    @contextmanager
    def _backend_streams(self) -> Iterator[None]:
        if self.backend != "torch":
            yield
            return
        import torch

        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(self._seed)
            yield

    def _inner(self) -> Callable[..., Any]:
        import keras

        inner: Callable[..., Any] = self.layer
        if self.is_layer or isinstance(self.layer, keras.losses.Loss):
            inner = self.layer.call
        return inner
