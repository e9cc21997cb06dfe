"""What each layer does with one batch: its activations, weights and gradients, measured in one watched pass."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from nan_callbacks.core.gates import GateObservation, taken_together
from nan_callbacks.diagnosis.evidence import LayerEvidence
from nan_callbacks.torch.activation_calls import BOUNDED, RECTIFIERS, FunctionMode, PatchedFunctions
from nan_callbacks.torch.gates import GateWatch
from nan_callbacks.torch.metric_calls import is_metric

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
    consumed: bool = False
    differentiable: bool = False


class ActivationProbe:
    """Watches the layers of a module while it runs: modules without children, and activation functions called as such.

    Args:
        module: The module.
        most_values: Values looked at per tensor, evenly spaced.
        in_training: Whether the module runs in the user's own step rather than on copies: then functions are seen by
            names of torch's that are replaced for a while. A mode would turn fused kernels off and make compiled code
            compile anew.
    """

    def __init__(self, module: nn.Module, most_values: int = MOST_VALUES, *, in_training: bool = False) -> None:
        self._module = module
        self._most_values = most_values
        self.seconds = 0.0
        """What measuring has taken."""
        self._names = {id(each): name for name, each in module.named_modules()}
        self._leaves = {id(each) for each in module.modules() if next(each.children(), None) is None}
        self._seen: dict[str, _Seen] = {}
        self._made: dict[int, tuple[ref[Tensor], _Seen]] = {}
        self._stack: list[str] = []
        self._handles: list[Any] = []
        self._gates, self._each_gate = GateWatch(), in_training
        self.weights_of_gates: dict[str, tuple[Tensor, ...]] = {}
        """Weights of the layer that a gate belongs to, by the gate's name; once the evidence has been told."""
        self._functions: Any = PatchedFunctions(self) if in_training else FunctionMode(self)

    def __enter__(self) -> Self:
        # Global hooks: those of a module would be copied and pickled with it.
        self._handles = [
            torch_module.register_module_forward_pre_hook(self._begin),
            torch_module.register_module_forward_hook(self._end, always_call=True),
        ]
        self._functions.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._functions.__exit__(*error)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def evidence(self, updated: Collection[int] | None = None) -> tuple[LayerEvidence, ...]:
        """What was seen, in the order of the forward pass; gradients as they are now.

        Args:
            updated: By ``id``, the parameters that optimizers hold; None if that is not known.
        """
        made: list[LayerEvidence] = []
        modules = {name: seen.module for name, seen in self._seen.items() if seen.module is not None}
        last = [name for name, module in modules.items() if _weight(module) is not None][-1:]
        for name, seen in self._seen.items():
            made.append(self._evidence_of(seen, updated))
            made += self._gates_of(name, consumed=last != [name])
        for name in sorted(self._gates.places - self._seen.keys()):  # called as functions, not by a module of torch's
            made += self._gates_of(name, consumed=True)
        return tuple(made)

    def note_recurrent(self, kind: str, args: Any, output: Any) -> None:
        """A recurrent function was called."""
        began = time.perf_counter()
        self._gates.note(self._stack[-1] if self._stack else "", kind, args, output)
        self.seconds += time.perf_counter() - began

    def note_function(self, kind: str, output: Any) -> None:
        """An activation function was called as such."""
        where = self._stack[-1] if self._stack else ""
        if where and self._is_activation(where):
            return  # the module of that function, seen by its hook
        self._note(f"{where}.{kind}()" if where else f"{kind}()", kind, None, output)

    def _is_activation(self, name: str) -> bool:
        return type(self._module.get_submodule(name)).__name__.lower() in {*BOUNDED, *RECTIFIERS}

    def consume(self, value: Any) -> None:
        """A tensor goes into something else: what has made it is no output."""
        if isinstance(value, Tensor):
            known, seen = self._made.get(id(value), (None, None))
            if known is not None and seen is not None and known() is value:
                seen.consumed = True

    def _begin(self, module: nn.Module, inputs: Any) -> None:
        name = self._names.get(id(module))
        if name is None:
            return
        self._stack.append(name)
        if id(module) in self._leaves:
            for value in inputs:
                self.consume(value)

    def _end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        name = self._names.get(id(module))
        if name is None:
            return
        if self._stack:
            self._stack.pop()
        if id(module) in self._leaves and not is_metric(module):
            self._note(name or type(module).__name__, type(module).__name__, module, output)

    @torch.no_grad()
    def _note(self, name: str, kind: str, module: nn.Module | None, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple) and output else output
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or not tensor.numel():
            return
        began = time.perf_counter()
        seen = self._seen.setdefault(name, _Seen(name, kind, module))
        self._made[id(tensor)] = (ref(tensor), seen)
        seen.differentiable = seen.differentiable or tensor.requires_grad
        self._measure(seen, tensor.detach())
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
            seen.saturated = max(seen.saturated or 0.0, saturated_share(finite, kind))
        if kind in RECTIFIERS and tensor.dim() > 1:
            alive = alive_units(tensor)
            same = seen.alive is not None and seen.alive.shape == alive.shape
            seen.alive = (alive | seen.alive) if same else alive  # type: ignore[operator]

    @torch.no_grad()
    def _evidence_of(self, seen: _Seen, updated: Collection[int] | None) -> LayerEvidence:
        weight = None if seen.module is None else _weight(seen.module)
        parameters = [] if seen.module is None else list(seen.module.parameters())
        held = [each for each in parameters if each.grad is not None]
        # What runs without gradients is another network: a teacher, a target, a head for the log.
        unknown = weight is None or updated is None or not seen.differentiable
        cut_off = updated is not None and not held and any(each.requires_grad for each in parameters)
        return LayerEvidence(
            name=seen.name,
            kind=seen.kind,
            activation_std=seen.std,
            activation_max=seen.largest,
            dtype=seen.dtype,
            consumed=seen.consumed,
            saturated_share=seen.saturated,
            dead_share=None if seen.alive is None else float((~seen.alive).float().mean()),
            weight_norm=None if weight is None else float(weight.float().norm()),
            weight_scale=None if weight is None or isinstance(seen.module, TABLES) else _scale(weight),
            grad_norm=0.0 if cut_off else norm_of([each.grad for each in held if each.grad is not None]),
            trained=None if unknown else any(id(p) in updated for p in held),  # type: ignore[operator]
        )

    def _gates_of(self, where: str, *, consumed: bool) -> Iterator[LayerEvidence]:
        """The gates of a recurrent layer: each in training, where gradients say whether it matters; else all as one."""
        for notes in self._gates.notes(where):
            own = notes.observations()
            for gate in own if self._each_gate else taken_together(own):
                evidence = evidence_of_gate(where, gate, consumed=consumed)
                self.weights_of_gates[evidence.name] = notes.weights
                yield evidence


def evidence_of_gate(where: str, gate: GateObservation, *, consumed: bool) -> LayerEvidence:
    """A gate as one of the activations of a model.

    Args:
        where: Path of its layer.
        gate: What it was seen to do.
        consumed: Whether other layers follow.
    """
    return LayerEvidence(
        name=f"{where}.{gate.path}".strip("."),
        kind=gate.activation,
        consumed=consumed,
        saturated_share=gate.saturated_share,
        dead_share=gate.dead_share,
    )


def norm_of(tensors: Sequence[Tensor]) -> float | None:
    """Norm of all tensors together; None without any."""
    return math.hypot(*(float(_norm(_dense(each))) for each in tensors)) if tensors else None


def _norm(values: Tensor) -> Tensor:
    norm = values.float().norm()
    # A float32 sum of squares overflows at a norm of about 1e19 with finite elements.
    return norm if bool(torch.isfinite(norm)) else values.double().norm()


def saturated_share(outputs: Tensor, kind: str) -> float:
    """Share of the outputs of a bounded activation that are within 1 % of a bound."""
    low, high = BOUNDED[kind]
    margin = SATURATED_WITHIN * (high - low)
    return float(((outputs < low + margin) | (outputs > high - margin)).float().mean())


def alive_units(outputs: Tensor) -> Tensor:
    """Which units of a rectifier are not zero for the whole batch."""
    axis = 1 if outputs.dim() >= 4 else outputs.dim() - 1  # images: channels first
    return (outputs != 0).movedim(axis, -1).flatten(0, -2).any(0)


def _weight(module: nn.Module) -> Tensor | None:
    weights = [p for p in module.parameters(recurse=False) if p.dim() >= 2 and p.is_floating_point()]
    return weights[0].detach() if weights else None


TABLES = (nn.Embedding, nn.EmbeddingBag)
"""Modules whose weights are rows, not sums over a fan-in."""


def _scale(weight: Tensor) -> float:
    """Standard deviation of the weights times the square root of the fan-in."""
    fan_in = weight[0].numel()
    return float(weight.float().std(correction=0)) * math.sqrt(fan_in)


def _dense(tensor: Tensor) -> Tensor:
    return tensor.coalesce().values() if tensor.layout is torch.sparse_coo else tensor
