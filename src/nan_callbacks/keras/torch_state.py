"""What a step on torch may change besides the weights, kept so that a dropped step leaves no trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nan_callbacks.torch.snapshot import copy_pairs, grouped


class KeptState:
    """Copies of some variables as they were before the present step; their memory is used again at every step.

    Args:
        variables: Keras variables.
    """

    def __init__(self, variables: Sequence[Any] = ()) -> None:
        self._variables = list(variables)
        self._seen: list[Any] = []
        self._memory: list[int] = []
        self.live: list[Tensor] = []
        """The values, sharing memory with the variables, in their order."""
        self.before: list[Tensor] = []
        """The copies."""

    @torch.no_grad()
    def capture(self) -> None:
        """Copy the values as they are now."""
        # Not `variable.value`, which asks for scopes and devices each time: 5 microseconds a variable.
        values = [variable._value for variable in self._variables]
        memory = [0 if value is None else value.data_ptr() for value in values]
        # The same tensor may have been given other memory: `module.to(...)` rebinds what its parameters hold.
        if memory != self._memory or any(a is not b for a, b in zip(values, self._seen, strict=True)):
            self._seen, self._memory = values, memory
            self.live = [variable.value.detach() for variable in self._variables]
            self.before = [tensor.clone() for tensor in self.live]
            self._groups = grouped(zip(self.before, self.live, strict=True))
            return
        for copies, sources in self._groups:
            torch._foreach_copy_(copies, sources)

    @torch.no_grad()
    def restore(self, *, only_non_finite: bool = False, leave: Sequence[Any] = ()) -> None:
        """Put the copies back.

        Args:
            only_non_finite: Leave variables alone that hold finite values.
            leave: Variables to be left alone whatever they hold.
        """
        left = {id(variable) for variable in leave}
        kept = zip(self._variables, self.live, self.before, strict=True)
        pairs = [(live, old) for variable, live, old in kept if id(variable) not in left]
        copy_pairs([(live, old) for live, old in pairs if not (only_non_finite and bool(torch.isfinite(live).all()))])


def torch_modules(model: Any) -> list[nn.Module]:
    """A model's layers and the torch modules inside of them, each once. Keras does not register layers with torch."""
    found: dict[int, nn.Module] = {}
    for layer in model._flatten_layers(include_self=True, recursive=True):
        if isinstance(layer, nn.Module):
            found.update({id(module): module for module in layer.modules()})
    return list(found.values())


class BufferCopies:
    """The buffers that layers and torch modules register beside Keras variables, for a snapshot.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        owners = [module._buffers for module in torch_modules(model)]
        self._copies = [
            (home, name, buffer, None if buffer is None else buffer.detach().clone())
            for home in owners
            for name, buffer in home.items()
        ]

    @torch.no_grad()
    def restore(self) -> None:
        """Put the copies back."""
        for home, name, buffer, copy in self._copies:
            if buffer is not None and copy is not None:
                if buffer.shape != copy.shape:
                    buffer.data = copy.clone()
                else:
                    buffer.copy_(copy)
            home[name] = buffer


def random_streams() -> tuple[Any, Any]:
    """State of torch's global generators, from which unseeded layers draw on this backend."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return torch.get_rng_state(), cuda


def set_random_streams(state: tuple[Any, Any]) -> None:
    """Continue from a state of :func:`random_streams`."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state_all(state[1])
