"""Which targets of a CTC loss are longer than their inputs: what its infinite loss does not tell."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from nan_callbacks.torch.replay.tracer import Operation


def unalignable(operation: Operation) -> dict[int, str]:
    """Samples whose target needs more steps than their input has, each with a sentence.

    Every token takes a step, and a token that follows its like takes a blank between the two.

    Args:
        operation: Of the forward pass, whatever it is.

    Returns:
        By the number of the sample; empty if the operation is no CTC loss.
    """
    if operation.facts.neutral != "ctc_loss" or operation.node is not None or len(operation.arguments) < 4:
        return {}
    _, targets, inputs, lengths = operation.arguments[:4]
    found = {}
    for row, (given, tokens) in enumerate(zip(_numbers(inputs), _sequences(targets, _numbers(lengths)), strict=False)):
        repeats = sum(one == other for one, other in pairwise(tokens))
        if len(tokens) + repeats > given:
            more = f", {repeats} of them like the one before," if repeats else ""
            found[row] = f"Sample {row} has a target of {len(tokens)} tokens{more} for an input of {given} steps."
    return found


def _numbers(lengths: Any) -> list[int]:
    return lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)


def _sequences(targets: Tensor, lengths: Sequence[int]) -> list[list[int]]:
    """Of padded rows, or of one sequence after the other."""
    if targets.dim() == 2:
        return [row[:length] for row, length in zip(targets.tolist(), lengths, strict=False)]
    flat, found, at = targets.tolist(), [], 0
    for length in lengths:
        found.append(flat[at : at + length])
        at += length
    return found
