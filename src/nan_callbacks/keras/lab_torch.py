"""The laboratory's step on torch: the model's own train step on copies of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import numpy as np
import torch

from nan_callbacks.keras.interception import Interception
from nan_callbacks.keras.lab_batch import own_tensors
from nan_callbacks.keras.lab_hands import Numbers, Probe, Turns, Watcher, models_fault
from nan_callbacks.keras.lab_state import attributes_kept, loss_objects
from nan_callbacks.keras.model_parts import optimizers_of
from nan_callbacks.keras.replay_state import all_variables, layer_losses_kept, python_streams_kept
from nan_callbacks.keras.torch_state import torch_modules
from nan_callbacks.torch.lab_start import Widened, cast_state
from nan_callbacks.torch.lab_state import buffer_stand_ins, stand_ins


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
        """Copies stand in for the data of all parameters, buffers and variables."""
        model = self._model
        with ExitStack() as stack:
            stack.enter_context(python_streams_kept())
            stack.enter_context(attributes_kept(model))
            stack.enter_context(layer_losses_kept(model))
            stack.enter_context(stand_ins(model, (), [*model.metrics, *optimizers_of(model), *loss_objects(model)]))
            stack.enter_context(_stand_ins(self._others()))
            stack.enter_context(buffer_stand_ins(torch_modules(model)))
            stack.enter_context(torch.enable_grad())
            yield

    @contextmanager
    def cast(self, dtype: str) -> Iterator[None]:
        """The copies in another dtype."""
        known = getattr(torch, dtype)
        variables = [each for each in all_variables(self._model) if keras.backend.is_float_dtype(each._dtype)]
        before = [(variable, variable._dtype) for variable in variables]
        default = torch.get_default_dtype()
        cast_state(known, self._model, ())
        for variable in variables:
            variable.value.data = variable.value.data.to(known)
            variable._dtype = dtype
        torch.set_default_dtype(known)
        try:
            with Widened(known):
                yield
        finally:
            torch.set_default_dtype(default)
            for variable, own in before:
                variable._dtype = own

    def step(self, batch: Any, turns: Turns) -> Numbers:
        """The train step."""
        watcher = Watcher(turns, _dense, _times)
        interception = Interception(self._model, optimizers_of(self._model), "apply")
        batch = own_tensors(batch)
        for variable in all_variables(self._model):
            variable.value.grad = None
        with models_fault(torch.OutOfMemoryError), interception.watching(watcher):
            logs = self._model.train_step(batch)
        return watcher.numbers(logs)

    def outputs(self, probe: Probe, call: Callable[..., Any], *inputs: Any) -> list[np.ndarray]:
        """Outputs of layers."""
        with models_fault(torch.OutOfMemoryError), torch.no_grad(), probe.watching() as seen:
            call(*own_tensors(inputs))
        return [each.detach().float().cpu().numpy() for each in seen]

    def _others(self) -> list[Any]:
        """Tensors of variables that are no parameters of the model: moments, metrics, seeds."""
        known = {id(parameter) for parameter in self._model.parameters()}
        return [each.value for each in all_variables(self._model) if id(each.value) not in known]


@contextmanager
def _stand_ins(tensors: list[Any]) -> Iterator[None]:
    before = [(tensor, tensor.data, tensor.grad) for tensor in tensors]
    try:
        for tensor, data, _ in before:
            tensor.grad = None
            tensor.data = data.clone()
        yield
    finally:
        for tensor, data, grad in before:
            tensor.grad = None
            tensor.data = data
            tensor.grad = grad


def _dense(grad: Any) -> Any:
    return grad.detach().coalesce().values() if grad.is_sparse else grad.detach()


def _times(grad: Any, factor: Any) -> Any:
    return grad * factor.to(grad.dtype)
