"""One sampled step of a torch model: activations, gradients before the update, weights before and after it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nan_callbacks.core.layer_observation import LayerObservation
from nan_callbacks.diagnosis.evidence import LayerEvidence
from nan_callbacks.torch.activations import BOUNDED, RECTIFIERS, ActivationProbe
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
        self._probe: ActivationProbe | None = ActivationProbe(module, most_values=MOST_VALUES)
        self._evidence: tuple[LayerEvidence, ...] = ()
        self._before: dict[str, Tensor] = {}
        self._weights = {name: p for name, p in module.named_parameters() if p.dim() >= 2 and p.is_floating_point()}
        began = time.perf_counter()
        self._probe.__enter__()
        self.seconds += time.perf_counter() - began

    def before_update(self) -> None:
        """The gradients are there, the weights are as they were."""
        if self._probe is None:
            return
        began = time.perf_counter()
        self._evidence = self._probe.evidence()
        self.leave()
        trained = {name: p for name, p in self._weights.items() if p.requires_grad}
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
            name.rpartition(".")[0]: float((self._weights[name].detach() - before).float().norm())
            for name, before in self._before.items()
        }
        moments = _at_epsilon(optimizers)
        last = max((i for i, each in enumerate(self._evidence) if each.weight_norm is not None), default=-1)
        made = tuple(self._layer(each, index > last, updates, moments) for index, each in enumerate(self._evidence))
        self.seconds += time.perf_counter() - began
        return made

    def _layer(
        self, seen: LayerEvidence, after_last: bool, updates: dict[str, float], moments: dict[int, float]
    ) -> LayerObservation:
        own = dict(self.module.named_modules()).get(seen.name)
        parameters = [] if own is None else list(own.parameters(recurse=False))
        is_activation = seen.kind.lower() in {*BOUNDED, *RECTIFIERS}
        known = [moments[id(p)] for p in parameters if id(p) in moments and not isinstance(own, nn.Embedding)]
        return LayerObservation(
            name=clean_path(seen.name),
            kind=seen.kind,
            is_output=after_last and is_activation,
            trainable=any(p.requires_grad for p in parameters),
            saturated_share=seen.saturated_share,
            dead_share=seen.dead_share,
            largest=seen.activation_max,
            dtype=seen.dtype,
            weight_norm=seen.weight_norm,
            grad_norm=seen.grad_norm,
            update_norm=updates.get(seen.name),
            at_epsilon=min(known, default=None),
        )


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
    """Whether hooks on a module are harmless: compiled modules would be compiled anew for them."""
    return not any(
        hasattr(each, "_orig_mod") or getattr(each, "_compiled_call_impl", None) is not None
        for each in module.modules()
    )
