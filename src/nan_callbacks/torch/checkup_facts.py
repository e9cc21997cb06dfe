"""Facts for the checkup: what the first step of a torch model does, seen once without leaving a trace."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nan_callbacks.checkup.facts import Hazard, InputFacts, LayerFacts, LossFacts
from nan_callbacks.checkup.hazards import POSITIVE, headroom_bits, is_outside, judge_operand
from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.operations import neutral_name
from nan_callbacks.torch.call_kinds import TABLES, as_array, is_the_same_in_every_step, made_by, sources_of
from nan_callbacks.torch.hazard_calls import measured_operand
from nan_callbacks.torch.input_facts import inputs_of
from nan_callbacks.torch.lab_batch import tensors_of
from nan_callbacks.torch.layer_facts import layers_of
from nan_callbacks.torch.loss_calls import losses_of
from nan_callbacks.torch.metric_calls import told_only
from nan_callbacks.torch.picking import picking_parts
from nan_callbacks.torch.recorder import Call, Recorder
from nan_callbacks.torch.replay.call_sites import source_line


@dataclass(kw_only=True)
class FirstLook:
    """One recorded step."""

    recorder: Recorder
    batch: Any
    """As the step received it."""
    loss: Tensor | None = None
    gradients: Mapping[int, Tensor] = field(default_factory=dict)
    """Of parameters and of the layers' outputs, by ``id``."""
    raised: str = ""
    """Class and message of the step's error."""


@dataclass(frozen=True, kw_only=True)
class StepFacts:
    """What one recorded step says."""

    inputs: tuple[InputFacts, ...]
    losses: tuple[LossFacts, ...]
    layers: tuple[LayerFacts, ...]
    hazards: tuple[Hazard, ...]
    rows_read: int
    picking: frozenset[str] = frozenset()
    """Parts of the batch by which the step moves values between its layers."""
    sound: bool = False
    """Whether its gradients are known to be finite."""


def facts_of(look: FirstLook, module: nn.Module, more: Sequence[Any] = (), of_data: Any = None) -> StepFacts:
    """Everything that one recorded step says.

    Args:
        look: The step.
        module: The module.
        more: Further batches of the same structure, of which only the values are read.
        of_data: Rows of the whole data set as one batch; they are read in place of the step's own.
    """
    rows = _all_rows(look.batch, more) if of_data is None else _rows_of(look.batch, of_data)
    picking = picking_parts(look.recorder, look.batch)
    # Elements outside of the domain with finite gradients all the same: whatever comes before masks them.
    sound = all(bool(torch.isfinite(grad).all()) for grad in look.gradients.values() if grad.layout is torch.strided)
    return StepFacts(
        inputs=inputs_of(look.recorder, look.batch, rows, picking),
        losses=losses_of(look.recorder, rows),
        layers=layers_of(look.recorder, module, look.gradients, look.loss),
        hazards=tuple(
            hazard
            for hazard in hazards_of(look.recorder, told_only(look.recorder, module, look.loss))
            if not (sound and hazard.kind == "unguarded_gradient")
        ),
        rows_read=max((len(values) for values in rows.values()), default=0),
        picking=picking,
        sound=sound and bool(look.gradients),
    )


def _all_rows(batch: Any, more: Sequence[Any]) -> dict[int, Any]:
    """Values of each tensor of the batch, by its ``id``, with those of further batches behind them."""
    return {id(tensor): np.concatenate(parts) if len(parts) > 1 else parts[0] for tensor, parts in _parts(batch, more)}


def _rows_of(batch: Any, of_data: Any) -> dict[int, Any]:
    """Values of each tensor of the batch, by its ``id``, in rows of the data set where that holds its like."""
    return {id(tensor): parts[-1] for tensor, parts in _parts(batch, [of_data])}


def _parts(batch: Any, more: Sequence[Any]) -> Iterator[tuple[Tensor, list[Any]]]:
    """Each tensor of the batch, and its values in the batch and in those that follow."""
    others = [dict(tensors_of(each)) for each in more]
    for name, tensor in tensors_of(batch):
        if not tensor.dim() or tensor.is_complex() or tensor.is_quantized:
            continue
        parts = [as_array(tensor)]
        for other in others:
            part = other.get(name)
            if part is not None and part.dim() and part.shape[1:] == tensor.shape[1:] and part.dtype == tensor.dtype:
                parts.append(as_array(part))
        yield tensor, parts


# -- hazards ---------------------------------------------------------------------------------------------------------


def hazards_of(recorder: Recorder, left_out: Collection[int] = ()) -> list[Hazard]:
    """Recorded operations that are near the edge of their domain.

    Args:
        recorder: The recorded step.
        left_out: ``id`` of the calls that are not looked at.
    """
    found = []
    chosen = {
        id(made_by(recorder, tensor)) for call in recorder.calls if call.name == "where" for tensor in call.tensors
    }
    for call in recorder.calls:
        if id(call) in left_out:
            continue
        if "half" in call.facts:
            found.append(_half(call))
        if "wrapped" in call.facts and _becomes_a_number(recorder, call):
            found.append(_hazard(call, "wrapped", operand=call.facts["wrapped"]))
        summary: TensorSummary | None = call.facts.get("operand")
        if summary is None or is_the_same_in_every_step(call):
            continue  # nothing that a batch could change
        operation = neutral_name(call.name)
        operand = measured_operand(call)
        maker = None if operand is None else made_by(recorder, operand)
        before = "" if maker is None else neutral_name(maker.name)
        if before == "sum" and _sums_positive_terms(recorder, maker):
            before = ""
        judged = judge_operand(operation, summary, before, counts=_is_count(maker))
        if id(call) in chosen and is_outside(operation, summary):
            judged = "unguarded_gradient", None
        if judged is None:
            continue
        kind, bits = judged
        found.append(_hazard(call, kind, operand=summary, headroom_bits=bits, before=before))
    return found


def _is_count(maker: Call | None) -> bool:
    """Whether a call made whole numbers of an integer type, or added ones up."""
    if maker is None or maker.result is None:
        return False
    summed = next(iter(maker.tensors), None)
    if neutral_name(maker.name) == "sum" and summed is not None and summed.layout is torch.strided:
        return not summed.is_floating_point() or bool((summed == 1).all())
    return not (maker.result.is_floating_point() or maker.result.is_complex())


def _becomes_a_number(recorder: Recorder, call: Call) -> bool:
    """Whether whole numbers are computed with: hashes end in an index, differences of masks in a mask."""
    followed = {id(call)}
    for later in recorder.calls:
        made = later.result
        carriers = {id(tensor) for tensor in sources_of(later)}
        goes_on = any(key in carriers and id(each) in followed for key, each in later.parents.items())
        if made is None or later.name in TABLES or not goes_on:
            continue
        if made.is_floating_point():
            return True
        if made.dtype is not torch.bool:
            followed.add(id(later))
    return False


def _half(call: Call) -> Hazard:
    return _hazard(call, "half_precision", headroom_bits=headroom_bits(float(call.facts["half"]), "float16"))


def _hazard(call: Call, kind: str, **more: Any) -> Hazard:
    source = source_line(call.place)
    return Hazard(operation=neutral_name(call.name), kind=kind, module=call.module, source=source, **more)


def _sums_positive_terms(recorder: Recorder, call: Call | None) -> bool:
    operand = None if call is None else next(iter(call.tensors), None)
    maker = None if operand is None else made_by(recorder, operand)
    return maker is not None and neutral_name(maker.name) in POSITIVE


def components_of(recorder: Recorder, module: nn.Module) -> frozenset[str]:
    """Names of what a step uses, for known issues."""
    names = {call.name for call in recorder.calls} | {type(each).__name__ for each in module.modules()}
    if any(name.startswith("_orig_mod") for name, _ in module.named_modules()):
        names.add("torch.compile")
    return frozenset(names)
