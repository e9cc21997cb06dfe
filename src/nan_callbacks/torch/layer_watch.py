"""When the layers of a fit are looked at: one probe at a time, for one step at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from nan_callbacks.core.layer_observation import LayerObservation
from nan_callbacks.torch.gate import optimizer_parameters
from nan_callbacks.torch.health_probe import HealthProbe, can_be_watched, compiled_graphs


class LayerWatch:
    """Holds the probe of the present step, if there is one.

    Args:
        module: The model.
        optimizers: Its optimizers.
    """

    def __init__(self, module: nn.Module, optimizers: Sequence[Any]) -> None:
        self._module, self._optimizers = module, optimizers
        self._probe: HealthProbe | None = None
        self._compiled = compiled_graphs()

    def begin(self) -> None:
        """Look at the layers during the coming step."""
        if self._probe is None and compiled_graphs() == self._compiled and can_be_watched(self._module):
            self._probe = HealthProbe(self._module)

    def before_update(self, optimizer: Optimizer) -> None:
        """The gradients are there, the weights are as they were.

        Args:
            optimizer: The one that is about to update.
        """
        if self._probe is not None:
            self._probe.before_update(optimizer_parameters(optimizer))

    def end(self, *, applied: bool = False) -> tuple[tuple[LayerObservation, ...], float]:
        """What was seen since :meth:`begin`, and how many seconds that took.

        Args:
            applied: Whether the step went through; of a dropped one nothing is told.
        """
        probe, self._probe = self._probe, None
        if probe is None:
            return (), 0.0
        probe.leave()
        layers = probe.layers(self._optimizers) if applied else ()
        return layers, probe.seconds
