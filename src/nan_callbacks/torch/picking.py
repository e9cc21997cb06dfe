"""Parts of a batch that point into it: edges, bonds, positions by which the model moves values between its layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nan_callbacks.torch.call_kinds import SAME_VALUES, indices_of, sources_of, weight_of
from nan_callbacks.torch.lab_batch import tensors_of
from nan_callbacks.torch.recorder import Call, Recorder

Names = frozenset[str]

SHIFTING = frozenset({"add", "sub", "clamp", "clamp_min", "clamp_max", "flip", "roll"})
"""Calls that make an index of an index."""


def picking_parts(recorder: Recorder, batch: Any) -> Names:
    """Whole numbers of the batch that say which values a layer receives, or where they go.

    A label picks as well, but what it picks goes into the loss.

    Args:
        recorder: The recorded step.
        batch: As the step received it.
    """
    ways = _Ways(batch)
    for call in recorder.calls:
        ways.follow(call)
    return frozenset(ways.found)


class _Ways:
    """What the tensors of a step are made of, and by which parts of the batch they were picked."""

    def __init__(self, batch: Any) -> None:
        self.found: set[str] = set()
        named = list(tensors_of(batch))
        self._made_of: dict[int, Names] = {id(tensor): frozenset([name]) for name, tensor in named}
        self._pointers: dict[int, Names] = {
            id(tensor): frozenset([name])
            for name, tensor in named
            if not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
        }
        """What may be an index as it stands: what others are sorted by is none."""
        self._picked_by: dict[int, Names] = {}
        self._learnt: set[int] = set()
        """Made with weights, or from what was."""

    def follow(self, call: Call) -> None:
        """One call, in the order of the step."""
        results = [id(tensor) for tensor in call.results]
        if weight_of(call) is not None:
            self.found |= _joined(self._picked_by, call.tensors)
            self._learnt.update(results)
            return
        sources = sources_of(call)
        picking = _joined(self._pointers, indices_of(call))
        learnt = any(id(tensor) in self._learnt or isinstance(tensor, nn.Parameter) for tensor in sources)
        of_batch = frozenset() if learnt else _joined(self._made_of, sources)
        # What is picked out of a constant, as a row of an identity matrix, is the picking number in another form.
        of_values = learnt or bool(of_batch - picking)
        picked = _joined(self._picked_by, sources) | (picking if of_values else frozenset())
        if learnt:
            self._learnt.update(results)
        if call.name in SAME_VALUES | SHIFTING:
            self._pointers.update(dict.fromkeys(results, _joined(self._pointers, sources)))
        self._made_of.update(dict.fromkeys(results, of_batch))
        self._picked_by.update(dict.fromkeys(results, picked))


def _joined(known: dict[int, Names], tensors: Iterable[Tensor]) -> Names:
    return frozenset().union(*(known.get(id(tensor), frozenset()) for tensor in tensors))
