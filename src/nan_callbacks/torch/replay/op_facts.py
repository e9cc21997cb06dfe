"""What the schema of an operation says about it, looked up once per operation."""

from __future__ import annotations

from typing import Any

import torch

from nan_callbacks.diagnosis.operations import neutral_name

UNINITIALISED = {"empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "empty_permuted"}
"""Whatever was in memory comes out: never an origin by itself."""

_STAYS_FINITE = {
    "clone", "cat", "stack", "index", "index_select", "gather", "embedding", "relu", "threshold_backward", "neg", "abs",
    "sigmoid", "tanh", "zeros_like", "zeros", "ones", "ones_like", "zero", "clamp_min", "detach", "sgn", "sign",
    "repeat", "flip", "roll", "tril", "triu", "rand", "randn", "rand_like", "randn_like", "bernoulli",
    "new_zeros", "new_ones", "max_pool2d_with_indices", "lift_fresh", "leaky_relu",
    "where", "masked_select", "masked_scatter", "take", "sort", "topk", "max", "min", "amax", "amin", "maximum",
    "minimum", "select_backward", "slice_backward", "tanh_backward", "sigmoid_backward", "normal", "uniform", "unfold",
    "im2col", "_reshape_copy",
}  # fmt: skip
"""Finite operands of one type give a finite result: a reading can be saved. The derivatives have factors up to 1."""

_LOOKUPS = {"index", "index_select", "gather", "take", "embedding", "nll_loss_forward", "nll_loss2d_forward"}
"""What comes out is what an index picks."""

_IGNORES_OLD_VALUE = {
    "copy",
    "fill",
    "zero",
    "normal",
    "uniform",
    "bernoulli",
    "random",
    "set",
    "resize",
    "exponential",
}


class OpFacts:
    """Facts about one overload.

    Attributes:
        name: Base name without namespace, overload and trailing underscore.
        native: As torch writes it: ``aten.log.default``.
        neutral: The name that the diagnosis knows it by.
        argument_names: Of the positional arguments, in order.
        written: Positions or names of the arguments that are written to.
        is_view: The outputs share memory with an operand and nothing is written.
        is_pointwise: Each output value depends on the operands at the same position (after broadcasting) only.
        is_uninitialised: The output is memory as it was found.
        stays_finite: Finite operands give a finite result.
        is_lookup: An index picks what comes out.
        needs_old_value: What is written depends on what was there.
    """

    def __init__(self, func: Any) -> None:
        schema = func._schema
        self.name = schema.name.split("::")[-1].rstrip("_")
        self.native = str(func)
        self.neutral = neutral_name(self.native)
        self.argument_names = [argument.name for argument in schema.arguments]
        aliases = [(i, argument.name, argument.alias_info) for i, argument in enumerate(schema.arguments)]
        self.written = tuple((i, name) for i, name, alias in aliases if alias is not None and alias.is_write)
        returns_alias = [value.alias_info is not None for value in schema.returns]
        self.is_view = bool(returns_alias) and all(returns_alias) and not self.written
        self.is_view = self.is_view or self.name in ("_unsafe_view", "_reshape_alias")
        self.is_pointwise = torch.Tag.pointwise in func.tags
        self.is_uninitialised = self.name in UNINITIALISED
        self.stays_finite = self.name in _STAYS_FINITE
        self.is_lookup = self.name in _LOOKUPS
        ignores = self.name in _IGNORES_OLD_VALUE or schema.overload_name.endswith("out")
        self.needs_old_value = bool(self.written) and not ignores


_known: dict[Any, OpFacts] = {}


def facts(func: Any) -> OpFacts:
    """The facts about an overload."""
    known = _known.get(func)
    if known is None:
        known = _known[func] = OpFacts(func)
    return known
