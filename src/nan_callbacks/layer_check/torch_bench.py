"""Torch modules, losses and functions on the bench. Torch is imported with the first call, not with this file."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nan_callbacks.diagnosis.origin import Origin, SourceLine
from nan_callbacks.layer_check.bench import Outcome, Run
from nan_callbacks.layer_check.calling import arguments, definition_of, name_of
from nan_callbacks.layer_check.cases import ordinary
from nan_callbacks.layer_check.spec import Arrays, Signature
from nan_callbacks.layer_check.streams import seeded
from nan_callbacks.layer_check.torch_tensors import (
    as_array,
    as_tensor,
    default_dtype,
    float_tensors,
    module_kept,
    non_leaf,
)


class TorchBench:
    """See :class:`.Bench`. A module is copied first, so that not even its Python attributes change.

    Args:
        layer: A module or a function.
        signature: What it takes.
        seed: Where random streams begin.
    """

    framework = "torch"

    def __init__(self, layer: Any, signature: Signature, seed: int) -> None:
        import torch

        self.name = name_of(layer)
        self.has_modes = isinstance(layer, torch.nn.Module)
        self._signature, self._seed = signature, seed
        self._layer = layer
        held = [*layer.parameters(), *layer.buffers()] if self.has_modes else []
        self._device = held[0].device if held else torch.get_default_device()
        self._copies: dict[str, Any] = {}
        if self.has_modes and any(map(torch.nn.parameter.is_lazy, held)):
            self.run(ordinary(signature, seed), Run())

    def run(self, arrays: Arrays, how: Run) -> Outcome:
        """See :meth:`.Bench.run`."""
        with self._ready(how):
            return self._call(arrays, how)

    def run_twice(self, arrays: Arrays, how: Run) -> tuple[Outcome, Outcome]:
        """See :meth:`.Bench.run_twice`."""
        with self._ready(how):
            return self._call(arrays, how), self._call(arrays, how)

    def parameters(self, precision: str) -> dict[str, NDArray[Any]]:
        """See :meth:`.Bench.parameters`."""
        return {name: as_array(parameter) for name, parameter in self._trained(self._at(precision)).items()}

    def origin(self, arrays: Arrays, how: Run, phase: str) -> Origin | None:
        """See :meth:`.Bench.origin`."""
        from nan_callbacks.torch.replay import replay

        layer = self._at(how.precision)
        modules = {"": layer} if self.has_modes else {}
        with self._ready(how):
            tensors = self._tensors(arrays, how)
            inputs = {name: tensor for name, tensor in tensors.items() if tensor.requires_grad}

            def step() -> Any:
                outputs = float_tensors(self._output(tensors, how))
                # Adding up finite outputs must not overflow, and every output must get a gradient of 1 all the same.
                if phase == "backward":
                    return sum((output - output.detach()).sum() for output in outputs)
                return sum((output * (1.0 / max(1, output.numel()))).sum() for output in outputs)

            found = replay(step, modules=modules, parameters={**inputs, **self._trained(layer)}, batch=tensors)
        return found.origin

    def hand_written_gradient(self, arrays: Arrays) -> tuple[str, SourceLine | None] | None:
        """See :meth:`.Bench.hand_written_gradient`."""
        how = Run(gradients=True)
        with self._ready(how):
            outputs = float_tensors(self._output(self._tensors(arrays, how), how))
            waiting: list[Any] = [output.grad_fn for output in outputs]
            seen: set[Any] = set()
            while waiting:
                node = waiting.pop()
                if node is None or node in seen:
                    continue
                seen.add(node)
                function = getattr(type(node), "_forward_cls", None)
                if function is not None:
                    return function.__name__, definition_of(function.backward)
                waiting += [following for following, _ in node.next_functions]
        return None

    def definition(self) -> SourceLine | None:
        """See :meth:`.Bench.definition`."""
        return definition_of(self._inner(self._layer))

    # ---- one call

    def _call(self, arrays: Arrays, how: Run) -> Outcome:
        import torch

        try:
            tensors = self._tensors(arrays, how)
            outputs = float_tensors(self._output(tensors, how))
            gradients: dict[str, NDArray[Any]] = {}
            differentiable = False
            if how.gradients:
                wanted = {name: tensor for name, tensor in tensors.items() if tensor.requires_grad}
                wanted.update(self._trained(self._at(how.precision)))
                gradients, differentiable = _differentiated(outputs, wanted, how)
            return Outcome(outputs=tuple(map(as_array, outputs)), gradients=gradients, differentiable=differentiable)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            return Outcome(error=error)

    def _tensors(self, arrays: Arrays, how: Run) -> dict[str, Any]:
        made = {}
        for spec in self._signature.specs:
            tensor = as_tensor(arrays[spec.name], how.precision, self._device)
            differentiable = tensor.is_floating_point() and spec.kind != "mask"
            differentiable = differentiable and spec in self._signature.inputs  # nobody differentiates by labels
            made[spec.name] = tensor.requires_grad_(how.gradients and differentiable)
        return made

    def _output(self, tensors: dict[str, Any], how: Run) -> Any:
        layer = self._at(how.precision)
        fresh = {name: non_leaf(tensor) for name, tensor in tensors.items()}  # code may write into its input
        positional, named = arguments(layer, self._inner(layer), self._signature, fresh)
        return layer(*positional, **named)

    @contextmanager
    def _ready(self, how: Run) -> Iterator[None]:
        """Mode, parameters, precision and random streams are set inside; afterwards all is as it was."""
        import torch

        layer = self._at(how.precision)
        with seeded(self._seed), torch.random.fork_rng(), torch.enable_grad(), default_dtype(how.precision):
            torch.manual_seed(self._seed)
            if not self.has_modes:
                yield
                return
            with module_kept(layer):
                layer.train(how.training)
                self._set(layer, how)
                yield

    def _set(self, layer: Any, how: Run) -> None:
        import torch

        trained = self._trained(layer)
        with torch.no_grad():
            for name, values in how.parameters.items():
                trained[name].copy_(torch.as_tensor(values))

    def _at(self, precision: str) -> Any:
        if not self.has_modes:
            return self._layer
        if precision not in self._copies:
            try:
                layer = copy.deepcopy(self._at("") if precision else self._layer)
            except Exception:  # tensors that belong to a graph cannot be copied
                if precision:
                    raise
                layer = self._layer
            self._copies[precision] = _converted(layer, precision)
        return self._copies[precision]

    def _trained(self, layer: Any) -> dict[str, Any]:
        from torch.nn.parameter import is_lazy

        named = layer.named_parameters() if self.has_modes else ()
        return {n: p for n, p in named if not is_lazy(p) and p.requires_grad and p.is_floating_point()}

    def _inner(self, layer: Any) -> Callable[..., Any]:
        inner: Callable[..., Any] = layer.forward if self.has_modes else layer
        return inner


def _converted(layer: Any, precision: str) -> Any:
    import torch

    return layer.to(getattr(torch, precision)) if precision else layer


def _differentiated(outputs: list[Any], wanted: dict[str, Any], how: Run) -> tuple[dict[str, NDArray[Any]], bool]:
    """Gradients by name, and whether there is anything to differentiate."""
    import torch

    weights = how.cotangents or [np.ones(tuple(output.shape)) for output in outputs]
    pairs = [
        (o, torch.as_tensor(w, dtype=o.dtype, device=o.device))
        for o, w in zip(outputs, weights, strict=True)
        if o.requires_grad
    ]
    if not pairs or not wanted:
        return {}, False
    found = torch.autograd.grad(
        [output for output, _ in pairs], list(wanted.values()), [weight for _, weight in pairs], allow_unused=True
    )
    return {name: as_array(grad) for name, grad in zip(wanted, found, strict=True) if grad is not None}, True
