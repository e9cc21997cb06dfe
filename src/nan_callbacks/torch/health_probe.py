"""One sampled step of a torch model: activations, gradients before the update, weights before and after it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nan_callbacks.core.layer_observation import LayerObservation
from nan_callbacks.diagnosis.evidence import LayerEvidence
from nan_callbacks.torch.activation_calls import BOUNDED, RECTIFIERS
from nan_callbacks.torch.activations import ActivationProbe, norm_of
from nan_callbacks.torch.replay.module_paths import clean_path

MOST_VALUES = 1 << 14
"""Values looked at per activation, evenly spaced."""

MOST_WEIGHTS = 1 << 26
"""Numbers up to which the weights are copied for the size of their update (256 MiB)."""

ADAPTIVE = ("exp_avg_sq", "square_avg", "sum")
"""What torch's optimizers call their second moments."""


class HealthProbe:
    """Watches one step. Nothing of the step is changed.

    Args:
        module: The model.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.seconds = 0.0
        """What watching has taken beside the step itself, as far as it can be told apart."""
        self._probe: ActivationProbe | None = ActivationProbe(module, most_values=MOST_VALUES, in_training=True)
        self._evidence: tuple[LayerEvidence, ...] = ()
        self._pulled: dict[str, tuple[float, float | None]] = {}
        """Norms of weights and gradients of the layer that a gate belongs to."""
        self._before: dict[str, Tensor] = {}
        self._weights = _weights_of(module)
        self._updated: set[int] = set()
        began = time.perf_counter()
        try:
            self._probe.__enter__()
        except BaseException:
            self._probe.__exit__(None, None, None)
            raise
        self.seconds += time.perf_counter() - began

    def before_update(self, parameters: Sequence[Tensor]) -> None:
        """The gradients are there, the weights are as they were.

        Args:
            parameters: Of the optimizer that is about to update: gradients of others may be left over.
        """
        if self._probe is None:
            return
        self._updated = {id(parameter) for parameter in parameters}
        began = time.perf_counter()
        self._evidence = self._probe.evidence()
        owners = self._probe.weights_of_gates
        norms = {id(weights): self._norms(weights) for weights in owners.values()}
        self._pulled = {name: norms[id(weights)] for name, weights in owners.items()}
        self.leave()
        trained = {name: p for name, p in self._weights.items() if id(p) in self._updated}
        if sum(p.numel() for p in trained.values()) <= MOST_WEIGHTS:
            self._before = {name: p.detach().clone() for name, p in trained.items()}
        self.seconds += time.perf_counter() - began

    def leave(self) -> None:
        """Stop watching, whatever became of the step."""
        if self._probe is not None:
            self._probe.__exit__(None, None, None)
            self.seconds += self._probe.seconds
            self._probe = None

    @torch.no_grad()
    def layers(self, optimizers: Sequence[Any] = ()) -> tuple[LayerObservation, ...]:
        """What was seen, after the update.

        Args:
            optimizers: For their second moments.
        """
        self.leave()
        began = time.perf_counter()
        updates = {
            name: float((self._weights[name].detach() - before).float().norm()) for name, before in self._before.items()
        }
        moments = _at_epsilon(optimizers)
        made = tuple(self._layer(each, updates, moments) for each in self._evidence)
        self.seconds += time.perf_counter() - began
        return made

    @torch.no_grad()
    def _norms(self, weights: Sequence[Tensor]) -> tuple[float, float | None]:
        """Of one layer and direction of a recurrent net, which as a module tells of all of them together."""
        # Not those of the input: their gradient is as large as an unscaled input, and the state is never larger than 1.
        own = [each for each in weights[1:] if each.is_leaf]
        grads = [each.grad for each in own if each.grad is not None and id(each) in self._updated]
        return norm_of([each.detach() for each in own]) or 0.0, norm_of(grads)

    def _layer(self, seen: LayerEvidence, updates: dict[str, float], moments: dict[int, float]) -> LayerObservation:
        own = dict(self.module.named_modules()).get(seen.name)
        parameters = [] if own is None else list(own.parameters(recurse=False))
        is_activation = seen.kind.lower() in {*BOUNDED, *RECTIFIERS}
        weight_norm, grad_norm = self._pulled.get(seen.name, (seen.weight_norm, seen.grad_norm))
        known = [moments[id(p)] for p in parameters if id(p) in moments and not isinstance(own, nn.Embedding)]
        return LayerObservation(
            name=clean_path(seen.name),
            kind=seen.kind,
            is_output=is_activation and not seen.consumed,
            trainable=any(id(p) in self._updated for p in parameters),
            saturated_share=seen.saturated_share,
            dead_share=seen.dead_share,
            largest=seen.activation_max,
            dtype=seen.dtype,
            weight_norm=weight_norm,
            grad_norm=grad_norm,
            update_norm=updates.get(seen.name),
            at_epsilon=min(known, default=None),
        )


def _weights_of(module: nn.Module) -> dict[str, Tensor]:
    """The first matrix of each module, by path of the module: the one whose norm the evidence tells."""
    found: dict[str, Tensor] = {}
    for name, each in module.named_modules():
        own = [p for p in each.parameters(recurse=False) if p.dim() >= 2 and p.is_floating_point()]
        if own:
            found[name] = own[0]
    return found


def _at_epsilon(optimizers: Sequence[Any]) -> dict[int, float]:
    """Share of second moments whose root is below epsilon, by ``id`` of the parameter."""
    found = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            epsilon = group.get("eps")
            if not isinstance(epsilon, float) or not epsilon:
                continue
            for parameter in group["params"]:
                state = optimizer.state.get(parameter, {})
                moment = next((state[name] for name in ADAPTIVE if isinstance(state.get(name), Tensor)), None)
                if moment is not None and moment.dim() >= 2:
                    flat = moment.detach().flatten()
                    flat = flat[:: max(1, flat.numel() // MOST_VALUES)].float()
                    found[id(parameter)] = float((flat.sqrt() < epsilon).float().mean())
    return found


def can_be_watched(module: nn.Module) -> bool:
    """Whether looking at a module is harmless: compiled code would be compiled anew."""
    return not any(
        hasattr(each, "_orig_mod") or getattr(each, "_compiled_call_impl", None) is not None
        for each in module.modules()
    )


def compiled_graphs() -> int:
    """How many graphs torch's compiler has made in this process: what makes one during a fit must be left alone."""
    dynamo = sys.modules.get("torch._dynamo")
    return 0 if dynamo is None else int(dynamo.utils.counters["stats"].get("unique_graphs", 0))
