"""What the calls of a recorded forward pass are: layers, activations, losses, changes of shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from nan_callbacks.torch.recorder import Call, Recorder, tensors_in

SAME_VALUES = frozenset({
    "reshape", "view", "flatten", "squeeze", "unsqueeze", "float", "double", "half", "bfloat16", "to", "type",
    "type_as", "contiguous", "clone", "detach", "getitem", "permute", "transpose", "t", "expand", "expand_as",
    "movedim", "chunk", "split", "unbind", "select", "narrow", "get", "long", "int", "view_as", "reshape_as", "cat",
    "stack", "as_subclass", "swapaxes", "unflatten", "index_select", "masked_select", "requires_grad", "cpu",
    "cuda", "repeat_interleave", "repeat", "feature_dropout", "dropout", "alpha_dropout", "alias", "tensor_split",
})  # fmt: skip
"""Calls whose results are values that went in, in another shape, dtype or selection (or some of them as zeros)."""

NORMALISING = frozenset({
    "batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "normalize", "local_response_norm",
})  # fmt: skip

ACTIVATIONS = {
    "softmax": "softmax", "log_softmax": "log_softmax", "sigmoid": "sigmoid", "logsigmoid": "log_sigmoid",
    "log_sigmoid": "log_sigmoid", "tanh": "tanh", "relu": "relu", "softplus": "softplus", "exp": "exp", "log": "log",
    "hardsigmoid": "sigmoid", "hardtanh": "tanh", "relu6": "relu", "special_expit": "sigmoid",
}  # fmt: skip

WEIGHTED = frozenset({
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "embedding",
    "embedding_bag", "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell",
    "matmul", "mm", "bmm", "addmm", "einsum", "bilinear", "multi_head_attention_forward", "baddbmm", "mv",
})  # fmt: skip
"""Calls that multiply by weights, or look them up, if one of their operands is a parameter."""

TABLES = frozenset({"embedding", "embedding_bag"})

SELECTING = {
    "getitem": 1, "take": 1, "take_along_dim": 1, "masked_select": 1, "masked_fill": 1, "masked_scatter": 1,
    "index_put": 1, "repeat_interleave": 1, "where": 0, "index_select": 2, "gather": 2, "scatter": 2, "scatter_add": 2,
    "scatter_reduce": 2, "index_add": 2, "index_copy": 2, "index_fill": 2, "index_reduce": 2,
}  # fmt: skip
"""Calls that choose or place values, and the position of the argument that says which or where."""

INDEX_NAMES = ("index", "indices", "mask", "condition", "repeats")
"""Names of that argument."""


def weight_of(call: Call) -> Tensor | None:
    """The weights that a call multiplies by or looks up; None if it is no such call."""
    if call.name not in WEIGHTED:
        return None
    return next((t for t in call.tensors if _is_weight(t)), None)


def matrices_of(call: Call) -> list[Tensor]:
    """All weights that a call multiplies by: several, of a recurrent layer."""
    return [t for t in call.tensors if _is_weight(t)] if call.name in WEIGHTED - TABLES else []


def _is_weight(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter) and tensor.dim() >= 2 and tensor.is_floating_point()


def operand_of(call: Call) -> Tensor | None:
    """What weights are applied to."""
    return next((t for t in call.tensors if not isinstance(t, nn.Parameter)), None)


def sources_of(call: Call) -> list[Tensor]:
    """The tensors whose numbers the result is made of: not those that only say which numbers, or where they go."""
    position = SELECTING.get(call.name)
    if position is None:
        return call.tensors
    args = [each for at, each in enumerate(call.args) if at != position]
    kwargs = {name: each for name, each in call.kwargs.items() if name not in INDEX_NAMES}
    return tensors_in((args, kwargs))


def indices_of(call: Call) -> list[Tensor]:
    """The whole numbers by which a call picks or places values; masks are none."""
    position = SELECTING.get(call.name)
    if position is None:
        return []
    named = [each for name, each in call.kwargs.items() if name in INDEX_NAMES]
    found = tensors_in((call.args[position : position + 1], named))
    return [each for each in found if not (each.is_floating_point() or each.dtype == torch.bool)]


def made_by(recorder: Recorder, tensor: Tensor, through: frozenset[str] = SAME_VALUES) -> Call | None:
    """The call that made a tensor, changes of shape apart; None if it came as it is."""
    call = recorder.maker(tensor)
    while call is not None and call.name in through:
        before = next(iter(call.tensors), None)
        parent = None if before is None else call.parents.get(id(before))
        if parent is None or parent is call:
            return None
        call = parent
    return call


def root_of(recorder: Recorder, tensor: Tensor) -> Tensor | None:
    """The tensor of the batch that a tensor is a changed shape of; None if it was computed."""
    call = recorder.maker(tensor)
    if call is None:
        return tensor
    seen = set()
    while call is not None and call.name in SAME_VALUES and id(call) not in seen:
        seen.add(id(call))
        before = next(iter(call.tensors), None)
        if before is None:
            return None
        parent = call.parents.get(id(before))
        if parent is None:
            return before
        call = parent
    return None


def ancestors(calls: list[Call], stop: Callable[[Call], bool]) -> Iterator[Call]:
    """The calls on the ways to some calls, backwards, not beyond those at which to stop (which are given as well)."""
    waiting, seen = list(calls), set()
    while waiting:
        call = waiting.pop()
        if id(call) in seen:
            continue
        seen.add(id(call))
        yield call
        if not stop(call):
            waiting.extend(call.parents.values())


def activation_of(call: Call | None) -> str:
    """Neutral name of what made the outputs: an activation, ``linear`` for weights without one, empty if unknown."""
    if call is None:
        return ""
    if call.name in ACTIVATIONS:
        return ACTIVATIONS[call.name]
    return "linear" if weight_of(call) is not None else ""


def as_array(tensor: Tensor) -> Any:
    """A tensor for the neutral rooms: on the host, of a dtype that numpy has."""
    host = tensor.detach() if tensor.layout is torch.strided else tensor.detach().to_dense()
    host = host.cpu()
    told = str(host.dtype)
    return (host.float() if "bfloat16" in told or "float8" in told else host).numpy()


COUNTING = frozenset({"arange", "linspace", "logspace", "eye", "zeros", "ones"})
"""Calls that make the same numbers every time, whatever the data are."""

DRAWING = frozenset({
    "uniform", "normal", "exponential", "bernoulli", "random", "cauchy", "geometric", "log_normal", "dropout",
    "rand_like", "randn_like", "randint_like", "multinomial", "poisson",
})  # fmt: skip
"""Calls that draw, so that what they make is another number in the next step."""


def is_the_same_in_every_step(call: Call) -> bool:
    """Whether neither data nor parameters nor chance have a part in what a call takes, as in a table of positions."""
    todo, seen = [call], {id(call)}
    while todo:
        each = todo.pop()
        tensors = each.tensors
        if each.name in DRAWING or (not tensors and each.name not in COUNTING):
            return False
        for tensor in tensors:
            parent = each.parents.get(id(tensor))
            if parent is None:
                return False
            if id(parent) not in seen:
                seen.add(id(parent))
                todo.append(parent)
    return True
