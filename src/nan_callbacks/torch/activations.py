"""What each layer does with one batch: its activations, weights and gradients, measured in one watched pass."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nan_callbacks.diagnosis.evidence import LayerEvidence

BOUNDED: dict[str, tuple[float, float]] = {
    "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "hardsigmoid": (0.0, 1.0), "hardtanh": (-1.0, 1.0),
}  # fmt: skip
"""Activations with two bounds."""

RECTIFIERS = frozenset({"relu", "relu6", "threshold"})
"""Activations that are exactly zero for negative inputs."""

SATURATED_WITHIN = 0.01
"""Of the distance between the bounds; what :attr:`.LayerEvidence.saturated_share` says."""

MOST_VALUES = 1 << 20
"""Values looked at per tensor, evenly spaced: a standard deviation of more is none the better."""


@dataclass
class _Seen:
    name: str
    kind: str
    module: nn.Module | None
    std: float | None = None
    largest: float | None = None
    saturated: float | None = None
    alive: Tensor | None = None
    dtype: str = "float32"


class ActivationProbe:
    """Watches the layers of a module while it runs: modules without children, and activation functions called as such.

    Args:
        module: The module.
        most_values: Values looked at per tensor, evenly spaced.
    """

    def __init__(self, module: nn.Module, most_values: int = MOST_VALUES) -> None:
        self._module = module
        self._most_values = most_values
        self.seconds = 0.0
        """What measuring has taken."""
        self._seen: dict[str, _Seen] = {}
        self._stack: list[str] = []
        self._handles: list[Any] = []
        self._functions = _Functions(self)

    def __enter__(self) -> Self:
        for name, module in self._module.named_modules():
            is_leaf = next(module.children(), None) is None
            self._handles.append(module.register_forward_pre_hook(self._entering(name), prepend=True))
            self._handles.append(module.register_forward_hook(self._leaving(name, module, is_leaf), always_call=True))
        self._functions.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._functions.__exit__(*error)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def evidence(self) -> tuple[LayerEvidence, ...]:
        """What was seen, in the order of the forward pass; gradients as they are now."""
        return tuple(self._evidence_of(seen) for seen in self._seen.values())

    def note_function(self, kind: str, output: Any) -> None:
        """An activation function was called as such."""
        where = self._stack[-1] if self._stack else ""
        if where and self._is_activation(where):
            return  # the module of that function, seen by its hook
        self._note(f"{where}.{kind}()" if where else f"{kind}()", kind, None, output)

    def _is_activation(self, name: str) -> bool:
        return type(self._module.get_submodule(name)).__name__.lower() in {*BOUNDED, *RECTIFIERS}

    def _entering(self, name: str) -> Any:
        def enter(module: nn.Module, inputs: Any) -> None:
            self._stack.append(name)

        return enter

    def _leaving(self, name: str, module: nn.Module, is_leaf: bool) -> Any:
        def leave(_: nn.Module, inputs: Any, output: Any) -> None:
            if self._stack:
                self._stack.pop()
            if is_leaf and not type(module).__module__.startswith("torchmetrics"):
                self._note(name or type(module).__name__, type(module).__name__, module, output)

        return leave

    @torch.no_grad()
    def _note(self, name: str, kind: str, module: nn.Module | None, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple) and output else output
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or not tensor.numel():
            return
        began = time.perf_counter()
        self._measure(self._seen.setdefault(name, _Seen(name, kind, module)), tensor.detach())
        self.seconds += time.perf_counter() - began

    def _measure(self, seen: _Seen, tensor: Tensor) -> None:
        flat = tensor.flatten()
        seen.dtype = str(tensor.dtype).removeprefix("torch.")
        flat = flat[:: max(1, flat.numel() // self._most_values)].float()
        finite = flat[torch.isfinite(flat)]
        if not finite.numel():
            return
        if seen.std is None:  # of a layer that is called repeatedly, the first call is the one with fresh inputs
            seen.std = float(finite.std(correction=0))
        seen.largest = max(seen.largest or 0.0, float(finite.abs().max()))
        kind = seen.kind.lower()
        if kind in BOUNDED:
            low, high = BOUNDED[kind]
            margin = SATURATED_WITHIN * (high - low)
            share = float(((finite < low + margin) | (finite > high - margin)).float().mean())
            seen.saturated = max(seen.saturated or 0.0, share)
        if kind in RECTIFIERS and tensor.dim() > 1:
            axis = 1 if tensor.dim() >= 4 else tensor.dim() - 1  # images: channels first
            alive = (tensor != 0).movedim(axis, -1).flatten(0, -2).any(0)
            same = seen.alive is not None and seen.alive.shape == alive.shape
            seen.alive = (alive | seen.alive) if same else alive  # type: ignore[operator]

    @torch.no_grad()
    def _evidence_of(self, seen: _Seen) -> LayerEvidence:
        weight = None if seen.module is None else _weight(seen.module)
        gradients = [] if seen.module is None else [p.grad for p in seen.module.parameters() if p.grad is not None]
        return LayerEvidence(
            name=seen.name,
            kind=seen.kind,
            activation_std=seen.std,
            activation_max=seen.largest,
            dtype=seen.dtype,
            saturated_share=seen.saturated,
            dead_share=None if seen.alive is None else float((~seen.alive).float().mean()),
            weight_norm=None if weight is None else float(weight.float().norm()),
            weight_scale=None if weight is None else _scale(weight),
            grad_norm=math.hypot(*(float(_dense(g).float().norm()) for g in gradients)) if gradients else None,
        )


class _Functions(TorchFunctionMode):
    """Sees activation functions that are called rather than held as modules."""

    def __init__(self, probe: ActivationProbe) -> None:
        super().__init__()
        self.probe = probe
        self.depth = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = getattr(func, "__name__", "").rstrip("_")
        known = kind in BOUNDED or kind in RECTIFIERS
        self.depth += known
        try:
            output = func(*args, **(kwargs or {}))
        finally:
            self.depth -= known
        if known and self.depth == 0:  # F.relu calls torch.relu
            self.probe.note_function(kind, output)
        return output


def _weight(module: nn.Module) -> Tensor | None:
    weights = [p for p in module.parameters(recurse=False) if p.dim() >= 2 and p.is_floating_point()]
    return weights[0].detach() if weights else None


def _scale(weight: Tensor) -> float:
    """Standard deviation of the weights times the square root of the fan-in."""
    fan_in = weight[0].numel()
    return float(weight.float().std(correction=0)) * math.sqrt(fan_in)


def _dense(tensor: Tensor) -> Tensor:
    return tensor.coalesce().values() if tensor.layout is torch.sparse_coo else tensor
