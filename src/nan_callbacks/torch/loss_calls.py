"""Which loss functions a recorded step called, and with what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from nan_callbacks.checkup.facts import LossFacts
from nan_callbacks.torch.call_kinds import SAME_VALUES, activation_of, ancestors, as_array, made_by, root_of, weight_of
from nan_callbacks.torch.recorder import Call, Recorder
from nan_callbacks.torch.replay.call_sites import source_line

KINDS: dict[str, tuple[str, bool | None, bool]] = {
    "cross_entropy": ("cross_entropy", True, False),
    "nll_loss": ("cross_entropy", False, True),
    "binary_cross_entropy": ("binary_cross_entropy", False, False),
    "binary_cross_entropy_with_logits": ("binary_cross_entropy", True, False),
    "multilabel_soft_margin_loss": ("binary_cross_entropy", True, False),
    "mse_loss": ("squared_error", None, False),
    "l1_loss": ("absolute_error", None, False),
    "smooth_l1_loss": ("absolute_error", None, False),
    "huber_loss": ("absolute_error", None, False),
    "poisson_nll_loss": ("poisson", True, False),
    "kl_div": ("kl_divergence", False, True),
    "ctc_loss": ("alignment", False, True),
    "gaussian_nll_loss": ("squared_error", None, False),
    "sub": ("difference", None, False),
    "mul": ("soft_cross_entropy", False, True),
}
"""Function, neutral kind, whether it takes logits, whether it takes logarithms. A difference counts if one side is a
part of the batch and the other was computed by layers: a loss written out by hand; a product, if what was computed is
a logarithm."""

BY_HAND = frozenset({"sub", "mul"})

MOVING = frozenset({"permute", "transpose", "t", "movedim", "swapaxes", "stack", "get"})
"""Calls after which an axis may be another one; "get" is how attributes such as `T` are recorded."""

DEFAULT_IGNORED = -100


def losses_of(recorder: Recorder, all_rows: Mapping[int, Any]) -> tuple[LossFacts, ...]:
    """The losses that were computed.

    Args:
        recorder: The recorded step.
        all_rows: Values of the batch's tensors over all rows that were read, by ``id`` of the tensor.
    """
    known = [_loss(recorder, call, all_rows) for call in loss_calls(recorder)]
    return (*known, *_normalised_twice(recorder))


def _normalised_twice(recorder: Recorder) -> Iterator[LossFacts]:
    """Probabilities that are normalised on the way to logarithms, as ``Categorical(logits=)`` does with logits."""
    for call in recorder.calls:
        given = call.argument(0, "input")
        if call.name not in ("logsumexp", "log_softmax") or not isinstance(given, Tensor) or not given.dim():
            continue
        if call.name == "logsumexp" and not _is_taken_from(recorder, call, given):
            continue  # a soft maximum
        maker = made_by(recorder, given, through=SAME_VALUES - MOVING)
        if activation_of(maker) != "softmax" or _axis_from_end(call, given) is None:
            continue
        assert maker is not None
        if given.shape[-1] > 1 and _axis_from_end(call, given) == _axis_from_end(maker, maker.result):
            yield LossFacts(
                kind="cross_entropy",
                from_logits=True,
                predictions=as_array(given),
                targets=np.empty(0),
                activation="softmax",
                name=call.name,
                source=source_line(call.place),
            )


def _is_taken_from(recorder: Recorder, total: Call, given: Tensor) -> bool:
    """Whether a sum of exponentials is subtracted from what it is the sum of, which makes logarithms of shares."""
    differences = (call for call in recorder.calls if call.name == "sub" and len(call.tensors) > 1)
    return any(call.tensors[0] is given and made_by(recorder, call.tensors[1]) is total for call in differences)


def _axis_from_end(call: Call, tensor: Tensor | None) -> int | None:
    """The single axis that a call works along, counted from the last, -1; None if there is no such axis."""
    axis = call.argument(1, "dim")
    if isinstance(axis, list | tuple) and len(axis) == 1:
        axis = axis[0]
    if not isinstance(axis, int) or tensor is None or not tensor.dim():
        return None
    return axis % tensor.dim() - tensor.dim()


def loss_calls(recorder: Recorder) -> Iterator[Call]:
    """Calls of known loss functions on tensors that something computed."""
    for call in recorder.calls:
        predicted, target = sides_of(recorder, call)
        if call.name not in KINDS or not isinstance(predicted, Tensor) or not isinstance(target, Tensor):
            continue
        if call.name in BY_HAND and not _is_loss_by_hand(recorder, predicted, target):
            continue
        if call.name == "mul" and activation_of(made_by(recorder, predicted)) not in ("log", "log_softmax"):
            continue
        yield call


def sides_of(recorder: Recorder, call: Call) -> tuple[Any, Any]:
    """What was predicted, and what it is compared with: a difference may have them either way."""
    first, second = call.argument(0, "input"), call.argument(1, "other" if call.name in BY_HAND else "target")
    if call.name in BY_HAND and isinstance(first, Tensor) and root_of(recorder, first) is not None:
        return second, first
    return first, second


def _is_loss_by_hand(recorder: Recorder, predicted: Tensor, target: Tensor) -> bool:
    root = root_of(recorder, target)
    if root is None or isinstance(root, nn.Parameter) or not target.dim() or target.numel() < 2:
        return False
    maker = recorder.maker(predicted)
    return maker is not None and any(weight_of(call) is not None for call in ancestors([maker], lambda _: False))


def _loss(recorder: Recorder, call: Call, all_rows: Mapping[int, Any]) -> LossFacts:
    predicted, target = sides_of(recorder, call)
    kind, from_logits, takes_log = KINDS[call.name]
    ignored: int | None = None
    if kind == "cross_entropy":
        ignored = _ignored(call)
        if call.name == "cross_entropy" and target.is_floating_point():
            kind, ignored = "soft_cross_entropy", None
    if kind == "poisson" and call.argument(2, "log_input", True) is False:
        from_logits = False
    maker = made_by(recorder, predicted)
    activation = activation_of(maker)
    if call.name == "mul" and _before(recorder, maker) != "softmax" and activation != "log_softmax":
        kind = "unknown"  # a sigmoid's logarithm belongs to one of several labels
    root = root_of(recorder, target)
    several = kind in ("cross_entropy", "soft_cross_entropy")
    return LossFacts(
        kind=kind,
        from_logits=from_logits,
        takes_log=takes_log,
        predictions=as_array(predicted),
        targets=as_array(target),
        all_targets=None if root is None else _same_form(all_rows.get(id(root)), target),
        class_axis=(1 if predicted.dim() > 1 else 0) if several else None,
        ignore_index=ignored,
        activation=activation,
        name=call.name,
        source=source_line(call.place),
        of_distribution=call.name in BY_HAND and call.caller.startswith("torch.distributions"),
    )


def _ignored(call: Call) -> int | None:
    position = 4  # of cross_entropy and nll_loss alike: input, target, weight, size_average, ignore_index
    value = call.argument(position, "ignore_index", DEFAULT_IGNORED)
    return value if isinstance(value, int) else DEFAULT_IGNORED


def _same_form(values: Any, target: Tensor) -> Any:
    """All rows, if the loss was given the rows of one batch in one piece."""
    if values is None or not target.dim():
        return None
    array = np.asarray(values)
    return array if array.ndim == target.dim() or array.ndim == 1 or target.dim() == 1 else None


def _before(recorder: Recorder, call: Call | None, most: int = 3) -> str:
    """What made the operand of a logarithm, an added epsilon apart."""
    while call is not None and most:
        operand = next(iter(call.tensors), None)
        call = None if operand is None else made_by(recorder, operand)
        if call is not None and call.name not in ("add", "clamp", "clamp_min"):
            return activation_of(call)
        most -= 1
    return ""
