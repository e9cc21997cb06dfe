"""What a call of torch's fused recurrent functions was given and returned: a few of its rows, time first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

FUSED = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
CELLS = frozenset({"lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"})

ROWS = 4
"""Rows that are looked at, each a whole sequence: of a net of several layers they must be computed once more."""

LEAST_POSITIONS = 64
"""Rows times steps that are looked at, if there are as many: enough to tell a dead unit from an idle one."""


@dataclass(frozen=True)
class RecurrentCall:
    """A few rows of one call, in float32 at least."""

    kind: str
    inputs: Tensor
    """Shape [steps, rows, features]; behind the end of a row anything."""
    states: Tensor
    """Of the last layer, shape [steps, rows, directions * units]."""
    lengths: Tensor
    """Steps of each row, on the host."""
    start: tuple[Tensor, ...]
    """Hidden state (and cell state) before the first step, shape [layers * directions, rows, units]."""
    weights: tuple[tuple[Tensor, ...], ...]
    """Of each layer and direction: input, recurrent, the two biases if there are any, projection if there is one."""
    layers: int = 1
    has_biases: bool = True
    bidirectional: bool = False
    drops: bool = False
    """Whether what goes from layer to layer was partly dropped."""

    @property
    def directions(self) -> int:
        """Ways in which each layer reads its rows."""
        return 2 if self.bidirectional else 1

    def states_of(self, layer: int, inputs: Tensor) -> Tensor:
        """What a layer of the net makes of its inputs: what it returned, or, of lower layers, the same once more.

        Dropout is left out: of a net that drops, all layers are told as they are in evaluation.
        """
        if layer == self.layers - 1 and not self.drops:
            return self.states
        own = slice(layer * self.directions, (layer + 1) * self.directions)
        start = tuple(state[own].contiguous() for state in self.start)
        hx = start if self.kind == "lstm" else start[0]
        flat = [wide(each, inputs.dtype) for weights in self.weights[own] for each in weights]
        options = (flat, self.has_biases, 1, 0.0, False, self.bidirectional)
        run = getattr(torch, self.kind)
        # The fused kernels of cuDNN want the weights of the whole net in one piece, and warn otherwise.
        with torch.backends.cudnn.flags(enabled=False):
            if bool((self.lengths == len(inputs)).all()):
                made: Tensor = run(inputs.contiguous(), hx, *options, False)[0]
                return made
            packed = pack_padded_sequence(inputs, self.lengths)
            data = run(packed.data, packed.batch_sizes, hx, *options)[0]
        return pad_packed_sequence(packed._replace(data=data), total_length=len(inputs))[0]


def read_call(kind: str, args: Sequence[Any], output: Any) -> RecurrentCall:
    """A call of a fused function, or of a cell (one step of one layer)."""
    if kind in CELLS:
        return _of_cell(kind.removesuffix("_cell"), args, output)
    is_packed = isinstance(args[1], Tensor) and args[1].dtype is torch.int64
    sizes = args[1] if is_packed else None
    start, flat, has_biases, layers, dropout, training, bidirectional = args[2:9] if is_packed else args[1:8]
    batch_first = not is_packed and args[8]
    start = tuple(start) if kind == "lstm" else (start,)
    count = start[0].shape[1]
    steps = len(sizes) if sizes is not None else args[0].shape[1 if batch_first else 0]
    chosen = _evenly(count, max(ROWS, LEAST_POSITIONS // max(steps, 1)))
    each = len(flat) // (layers * (2 if bidirectional else 1))
    dtype = torch.promote_types(flat[0].dtype, torch.float32)
    lengths = torch.full((len(chosen),), steps) if sizes is None else (sizes[:, None] > chosen).sum(0)
    read = [_few(part.detach(), sizes, batch_first, chosen, lengths).to(dtype) for part in (args[0], output[0])]
    return RecurrentCall(
        kind=kind,
        inputs=read[0],
        states=read[1],
        lengths=lengths,
        start=tuple(state.detach()[:, chosen.to(state.device)].to(dtype) for state in start),
        weights=tuple(tuple(flat[at : at + each]) for at in range(0, len(flat), each)),
        layers=layers,
        has_biases=has_biases,
        bidirectional=bidirectional,
        drops=bool(training and dropout and layers > 1),
    )


def _of_cell(kind: str, args: Sequence[Any], output: Any) -> RecurrentCall:
    inputs, start, *weights = args
    start = tuple(start) if kind == "lstm" else (start,)
    dtype = torch.promote_types(weights[0].dtype, torch.float32)
    chosen = _evenly(len(inputs), LEAST_POSITIONS).to(inputs.device)
    state = output[0] if isinstance(output, tuple | list) else output
    return RecurrentCall(
        kind=kind,
        inputs=inputs.detach()[None, chosen].to(dtype),
        states=state.detach()[None, chosen].to(dtype),
        lengths=torch.ones(len(chosen), dtype=torch.int64),
        start=tuple(state.detach()[None, chosen].to(dtype) for state in start),
        weights=(tuple(each for each in weights if each is not None),),
        has_biases=len(weights) > 2 and weights[2] is not None,
    )


def wide(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights without gradient, in a dtype to compute in."""
    return weight.detach().to(dtype)


def _few(data: Tensor, sizes: Tensor | None, batch_first: bool, chosen: Tensor, lengths: Tensor) -> Tensor:
    """Some rows of sequences, shape [steps, rows, features]."""
    if sizes is None:
        chosen = chosen.to(data.device)
        return data[chosen].transpose(0, 1) if batch_first else data[:, chosen]
    starts = sizes.cumsum(0) - sizes  # where each step begins; the rows of a step lie in order
    made = data.new_zeros(len(sizes), len(chosen), data.shape[-1])
    for column, (row, length) in enumerate(zip(chosen.tolist(), lengths.tolist(), strict=True)):
        made[:length, column] = data[(starts[:length] + row).to(data.device)]
    return made


def _evenly(count: int, most: int) -> Tensor:
    return torch.linspace(0, count - 1, min(count, most)).round().long()
