"""The gradients of an optimizer, with the names that its parameters have in the module."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from nan_callbacks.torch.gate import optimizer_parameters


class NamedGradients:
    """Looks names up once for each optimizer, and again when it is given other parameters.

    Args:
        module: The module.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._known: dict[int, tuple[list[Tensor], list[str]]] = {}

    def of(self, optimizer: Optimizer) -> tuple[list[str], list[Tensor]]:
        """Names and values of the gradients that there are at present."""
        parameters = optimizer_parameters(optimizer)
        known, names = self._known.get(id(optimizer), ([], []))
        if len(known) != len(parameters) or any(a is not b for a, b in zip(known, parameters, strict=True)):
            by_id = {id(parameter): name for name, parameter in self._module.named_parameters()}
            names = [by_id.get(id(parameter), "unnamed parameter") for parameter in parameters]
            self._known[id(optimizer)] = (parameters, names)
        present = [(name, p.grad) for name, p in zip(names, parameters, strict=True) if p.grad is not None]
        return [name for name, _ in present], [gradient for _, gradient in present]
