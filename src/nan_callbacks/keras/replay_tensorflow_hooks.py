"""Every eagerly executed operation of TensorFlow, with what it has to do with the ones before it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import backprop, record
from tensorflow.python.framework import op_callbacks

from nan_callbacks.diagnosis.blame import ELEMENTWISE
from nan_callbacks.diagnosis.operations import neutral_name
from nan_callbacks.diagnosis.origin import Phase
from nan_callbacks.keras.replay_sites import Site, SiteFinder
from nan_callbacks.keras.replay_source import is_user_file
from nan_callbacks.keras.replay_trace import Happening, Trace

_PLAIN = frozenset({"add", "subtract", "cast", "neg", "negate", "maximum", "minimum", "max", "min"})
SINGULAR = (ELEMENTWISE - _PLAIN) | {"norm", "matmul", "convolution"}
"""Operations whose derivative can be non-finite at finite operands: theirs are kept until the backward pass."""


@dataclass
class _Forward:
    """A forward operation, for the time when its gradient is computed."""

    site: Site
    operands: tuple[Any, ...]


@dataclass
class _Derivative:
    """A gradient function that is running."""

    forward: _Forward | None
    gradients: tuple[Any, ...]
    hand_written: bool = False


class OperationHooks:
    """Sees the operations of one thread.

    Args:
        trace: Where they are noted.
        finder: Tells where they stand in the program.
    """

    def __init__(self, trace: Trace, finder: SiteFinder) -> None:
        self.failed_in = Phase.FORWARD
        """Where an error came from."""
        self._trace = trace
        self._finder = finder
        self._thread = threading.get_ident()
        self._busy = False
        self._late = False
        self._optimizer = False
        self._nodes: dict[int, int] = {}
        self._alive: list[Any] = []
        self._forward: dict[tuple[str, int], _Forward] = {}
        self._running: list[_Derivative] = []

    def know(self, tensor: Any, node: int) -> None:
        """A tensor is known to be non-finite."""
        for part in tf.nest.flatten(tensor, expand_composites=True):
            self._nodes[part._id] = node
            self._alive.append(part)

    def know_variable(self, variable: Any, node: int) -> None:
        """A variable is known to be non-finite."""
        self._nodes[variable.handle._id] = node

    def node_of(self, tensor: Any) -> int | None:
        """The node of a tensor, None if it is finite or unknown."""
        return self._nodes.get(getattr(tensor, "_id", -1))

    def node_of_variable(self, variable: Any) -> int | None:
        """The node of what a variable holds."""
        return self._nodes.get(variable.handle._id)

    @contextmanager
    def in_optimizer(self) -> Iterator[None]:
        """The optimizer works inside the block."""
        before, self._optimizer = self._optimizer, True
        try:
            yield
        except Exception:
            self.failed_in = Phase.OPTIMIZER
            raise
        finally:
            self._optimizer = before

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The hooks are in place inside the block."""
        plain = record.record_operation
        record.record_operation = self._recorder(plain)
        pywrap_tfe.TFE_Py_RegisterGradientFunction(self._gradient_function)
        op_callbacks.add_op_callback(self._on_operation)
        try:
            yield
        finally:
            op_callbacks.remove_op_callback(self._on_operation)
            pywrap_tfe.TFE_Py_RegisterGradientFunction(backprop._gradient_function)
            record.record_operation = plain

    def _on_operation(
        self, op_type: Any, inputs: Any, attrs: Any, outputs: Any, op_name: Any = None, graph: Any = None
    ) -> None:
        if self._busy or graph is not None or threading.get_ident() != self._thread:
            return
        self._busy = True
        try:
            native = op_type.decode() if isinstance(op_type, bytes) else op_type
            self._look_at(native, inputs, outputs)
        finally:
            self._busy = False

    def _look_at(self, native: str, inputs: Any, outputs: Any) -> None:
        self._trace.count()
        if native.startswith("Assign") and native.endswith("VariableOp"):
            self._assigned(inputs)
            return
        site = self._site(native)
        self._remember(native, site, inputs, outputs)
        operands = [(value, self._nodes.get(value._id)) for value in inputs if isinstance(value, tf.Tensor)]
        operands = [
            (value, node)
            for value, node in operands
            if node is not None or value.dtype.is_floating or value.dtype.is_integer
        ]
        numbers = [value for value in outputs if isinstance(value, tf.Tensor) and value.dtype.is_floating]
        handles = [node for value, node in operands if value.dtype == tf.resource]
        plain = [(value, node) for value, node in operands if value.dtype != tf.resource]
        if handles:  # what is read from a variable is as non-finite as the variable
            plain += [(numbers[0], node) for node in handles if numbers]
        nodes = self._trace.operation(plain, numbers, lambda: self._describe(native, site))
        for value, node in zip(numbers, nodes, strict=True):
            if node is not None:
                self._nodes[value._id] = node
                self._alive.append(value)

    def _site(self, native: str) -> Site:
        running = self._running[-1] if self._running else None
        if running is None:
            return self._finder.site(native)
        if running.hand_written:
            site = self._finder.site(native, custom_gradient=True)
            return replace(site, place=running.forward.site.place) if running.forward else site
        return running.forward.site if running.forward else Site(native)

    def _describe(self, native: str, site: Site) -> Happening:
        happening = Happening(native, site, late=self._late, optimizer=self._optimizer)
        if self._running:
            running = self._running[-1]
            happening.derivative = True
            kept = running.forward.operands if running.forward else ()
            happening.operands = tuple(self._trace.summary(value) for value in kept)
            gradients = [value for value in running.gradients if isinstance(value, tf.Tensor)]
            happening.gradient = self._trace.summary(gradients[0]) if gradients else None
        return happening

    def _remember(self, native: str, site: Site, inputs: Any, outputs: Any) -> None:
        if self._running or self._optimizer:
            return
        operands = tuple(value for value in inputs if isinstance(value, tf.Tensor) and value.dtype != tf.resource)
        forward = _Forward(site, operands if neutral_name(native) in SINGULAR else ())
        for value in (*outputs, *inputs):  # the tape keeps outputs or inputs, whichever the gradient needs
            if isinstance(value, tf.Tensor):
                self._forward[native, value._id] = forward

    def _assigned(self, inputs: Any) -> None:
        handle, value = inputs[0], inputs[1]
        node = self._nodes.get(value._id)
        if node is not None:
            self._nodes[handle._id] = node
        elif self._trace.is_bad(value):
            self._nodes[handle._id] = self._trace.graph.constant()

    def _gradient_function(
        self, name: str, attrs: Any, count: int, inputs: Any, outputs: Any, gradients: Any, *rest: Any
    ) -> Any:
        """Stands in for TensorFlow's: which forward operation is being differentiated?"""
        if threading.get_ident() != self._thread:
            return backprop._gradient_function(name, attrs, count, inputs, outputs, gradients, *rest)
        self._late = True
        tensors = [*(outputs or ()), *(inputs or ())]
        known = (self._forward.get((name, value._id)) for value in tensors if isinstance(value, tf.Tensor))
        forward = next((each for each in known if each is not None), None)
        with self._differentiating(_Derivative(forward, tuple(gradients or ()))):
            return backprop._gradient_function(name, attrs, count, inputs, outputs, gradients, *rest)

    def _recorder(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """Marks the gradients that users wrote by hand, as they are recorded."""

        def record_operation(op_type: Any, outputs: Any, inputs: Any, backward: Any, forward: Any = None) -> Any:
            if threading.get_ident() != self._thread:
                return plain(op_type, outputs, inputs, backward, forward)
            self._busy, busy = True, self._busy
            try:
                site = self._finder.site(str(op_type))
            finally:
                self._busy = busy
            hand_written = is_user_file(_written_in(backward))

            def differentiate(*gradients: Any) -> Any:
                self._late = True
                known = _Derivative(_Forward(site, tuple(inputs)), gradients, hand_written)
                with self._differentiating(known):
                    return backward(*gradients)

            return plain(op_type, outputs, inputs, differentiate, forward)

        return record_operation

    @contextmanager
    def _differentiating(self, derivative: _Derivative) -> Iterator[None]:
        self._running.append(derivative)
        try:
            yield
        except Exception:
            self.failed_in = Phase.BACKWARD
            raise
        finally:
            self._running.pop()


def _written_in(backward: Any) -> str:
    """The file of the gradient function inside TensorFlow's wrapper around it."""
    code = backward.__code__
    closure = dict(zip(code.co_freevars, backward.__closure__ or (), strict=True))
    inner = closure["grad_fn"].cell_contents if "grad_fn" in closure else backward
    return str(getattr(getattr(inner, "__code__", None), "co_filename", "<unknown>"))
