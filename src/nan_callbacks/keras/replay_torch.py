"""Replay on torch: the model's own train step under the shared torch tracer, with names as Keras gives them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch

from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.origin import Origin, OriginKind, Phase, ReplayResult
from nan_callbacks.keras.interception import Interception, LossMemory
from nan_callbacks.keras.lab_batch import own_tensors
from nan_callbacks.keras.model_parts import optimizers_of
from nan_callbacks.keras.replay_batch import named_parts
from nan_callbacks.keras.replay_layers import LayerStack, Place, owner_of, place_of
from nan_callbacks.keras.replay_state import all_variables, layer_losses_kept, python_streams_kept
from nan_callbacks.torch.replay import replay as replay_on_torch


def replay(model: Any, batch: Any, *, state: Any = None, budget_seconds: float | None = None) -> ReplayResult:
    """See :func:`nan_callbacks.keras.replay.replay`; ``state`` has no meaning here."""
    batch = own_tensors(batch)
    step = _Step(model, batch)
    with ExitStack() as stack:
        for kept in (_variables_kept(model), python_streams_kept(), layer_losses_kept(model)):
            stack.enter_context(kept)
        result = replay_on_torch(
            step,
            modules=_layers_by_path(model),
            parameters={variable.path: variable.value for variable in model.trainable_variables},
            batch=dict(named_parts(batch)),
            budget_seconds=budget_seconds,
            whole_step=True,
        )
    finite = result.loss is not None and math.isfinite(result.loss) and not result.non_finite_gradients
    names = _Names(model, batch, step.layers.on_failure, in_optimizer=finite)
    return replace(
        result,
        origin=names.in_keras(result.origin) if result.origin else None,
        others=tuple(names.in_keras(origin) for origin in result.others),
    )


class _Step:
    """The train step, to be called without arguments; returns the raw loss.

    Args:
        model: The model.
        batch: What its train step is handed.
    """

    def __init__(self, model: Any, batch: Any) -> None:
        self.layers = LayerStack(model)
        self._model = model
        self._batch = batch
        self._loss = LossMemory()
        self._interception = Interception(model, optimizers_of(model), "apply")

    def __call__(self) -> Any:
        with self.layers.watching(), self._interception.installed(), self._interception.watching(self):
            self._model.train_step(self._batch)
        loss = self._loss.value
        return loss if isinstance(loss, torch.Tensor) else None

    def on_loss(self, loss: Any, *, final: bool) -> None:
        """A loss passes by."""
        self._loss.note(loss, final=final)

    def scale_rate(self, stream: int, rate: Any) -> Any:
        """The learning rate stays as it is."""
        return rate

    def on_apply(self, stream: int, optimizer: Any, original: Any, *args: Any) -> Any:
        """The optimizer is called."""
        return original(*args) if optimizer.built else None


class _Names:
    """From the names of the torch tracer to those of Keras."""

    def __init__(self, model: Any, batch: Any, failed: Place, *, in_optimizer: bool) -> None:
        self._failed = failed
        self._in_optimizer = in_optimizer
        self._layers = {path: place_of(layer) for path, layer in _layers_by_path(model).items()}
        self._parts = {f"batch[{name!r}]": name for name, _ in named_parts(batch)}
        self._owners = {variable.path: owner_of(model, variable) for variable in model.variables}

    def in_keras(self, origin: Origin) -> Origin:
        """An origin with its parts, layers and variables named as on the other backends."""
        origin = _without_path_of_module(origin)
        place = self._place(origin)
        operation = self._parts.get(origin.operation, origin.operation)
        late = self._in_optimizer and origin.kind is OriginKind.OPERATION
        origin = replace(
            origin,
            phase=Phase.OPTIMIZER if late else origin.phase,
            operation=operation,
            operands=tuple(self._named(each) for each in origin.operands),
            result=self._named(origin.result) if origin.result else None,
        )
        if place is None:
            return origin
        return replace(origin, module=place.path, module_type=place.kind, module_is_custom=place.is_custom)

    def _place(self, origin: Origin) -> Place | None:
        if origin.kind is OriginKind.EXCEPTION:
            return self._failed
        if origin.kind is OriginKind.PARAMETERS:
            return self._owners.get(origin.operation)
        name = origin.module
        while name and name not in self._layers:
            name = name.rpartition(".")[0]
        return self._layers.get(name)

    def _named(self, summary: TensorSummary) -> TensorSummary:
        return replace(summary, name=self._parts.get(summary.name) or _path_of_variable(summary.name))


def _path_of_variable(name: str) -> str:
    """The path by which Keras knows a variable that is not trained, without that of the module which holds it."""
    return name.partition("._torch_params.")[2] or name


def _without_path_of_module(origin: Origin) -> Origin:
    path = _path_of_variable(origin.operation)
    if origin.kind is not OriginKind.PARAMETERS or path == origin.operation:
        return origin
    return replace(origin, operation=path, detail=origin.detail.replace(origin.operation, path))


def _layers_by_path(model: Any) -> dict[str, Any]:
    """Each layer by a name of its own: its path, numbered where two share one.

    Inner layers come before outer ones, because the tracer takes the first name that it can make.
    """
    named: dict[str, Any] = {}
    for layer in reversed(list(model._flatten_layers(include_self=True, recursive=True))):
        path = place_of(layer).path
        named[path if path not in named else f"{path}#{len(named)}"] = layer
    return named


@contextmanager
def _variables_kept(model: Any) -> Iterator[None]:
    """Every variable holds afterwards what it held before."""
    values = [variable.value for variable in all_variables(model)]
    before = [value.detach().clone() for value in values]
    try:
        yield
    finally:
        with torch.no_grad():
            for value, kept in zip(values, before, strict=True):
                value.copy_(kept)
