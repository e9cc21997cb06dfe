"""Facts for the checkup: what the first step of a torch model does, seen once without leaving a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nan_callbacks.checkup.facts import Hazard, InputFacts, LayerFacts, LossFacts
from nan_callbacks.checkup.hazards import POSITIVE, headroom_bits, is_outside, judge_operand
from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.operations import neutral_name
from nan_callbacks.torch.call_kinds import (
    NORMALISING,
    TABLES,
    WEIGHTED,
    as_array,
    made_by,
    operand_of,
    root_of,
    weight_of,
)
from nan_callbacks.torch.hazard_calls import measured_operand
from nan_callbacks.torch.lab_batch import tensors_of
from nan_callbacks.torch.layer_facts import layers_of
from nan_callbacks.torch.loss_calls import KINDS, losses_of
from nan_callbacks.torch.recorder import Call, Recorder
from nan_callbacks.torch.replay.call_sites import source_line

COMPARING = frozenset({*KINDS, "eq", "gather", "cosine_similarity", "log_prob", "dist", "cdist"})
"""Calls that take what layers have returned together with what they should have returned."""

JOINING = frozenset({"cat", "stack", "add", "concat", "concatenate", "hstack"})
"""Calls whose results hold an input beside what layers have returned."""


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


def facts_of(look: FirstLook, module: nn.Module, more: Sequence[Any] = ()) -> StepFacts:
    """Everything that one recorded step says.

    Args:
        look: The step.
        module: The module.
        more: Further batches of the same structure, of which only the values are read.
    """
    rows = _all_rows(look.batch, more)
    # Elements outside of the domain with finite gradients all the same: whatever comes before masks them.
    sound = all(bool(torch.isfinite(grad).all()) for grad in look.gradients.values() if grad.layout is torch.strided)
    return StepFacts(
        inputs=tuple(_inputs(look, rows)),
        losses=losses_of(look.recorder, rows),
        layers=layers_of(look.recorder, module, look.gradients, look.loss),
        hazards=tuple(each for each in hazards_of(look.recorder) if not (sound and each.kind == "unguarded_gradient")),
        rows_read=max((len(values) for values in rows.values()), default=0),
    )


def _all_rows(batch: Any, more: Sequence[Any]) -> dict[int, Any]:
    """Values of each tensor of the batch, by its ``id``, with those of further batches behind them."""
    others = [dict(tensors_of(each)) for each in more]
    joined = {}
    for name, tensor in tensors_of(batch):
        if not tensor.dim() or tensor.is_complex() or tensor.is_quantized:
            continue
        parts = [as_array(tensor)]
        for other in others:
            part = other.get(name)
            if part is not None and part.dim() and part.shape[1:] == tensor.shape[1:] and part.dtype == tensor.dtype:
                parts.append(as_array(part))
        joined[id(tensor)] = np.concatenate(parts) if len(parts) > 1 else parts[0]
    return joined


# -- inputs ----------------------------------------------------------------------------------------------------------


def _inputs(look: FirstLook, rows: Mapping[int, Any]) -> list[InputFacts]:
    named = {id(tensor): name for name, tensor in tensors_of(look.batch) if id(tensor) in rows}
    reached: dict[int, Call] = {}
    masks: set[int] = set()
    compared: set[int] = set()
    computed: set[int] = set()
    mixed: set[int] = set()
    unsure: set[int] = set()
    """Inputs that their first layer receives together with others: what it receives says nothing about one of them."""
    behind = _normalised(look.recorder)
    tainted: dict[int, frozenset[int]] = {key: frozenset([key]) for key in named}
    for call in look.recorder.calls:
        sources = [(tensor, tainted[id(tensor)]) for tensor in call.tensors if id(tensor) in tainted]
        weight = weight_of(call)
        made = call.result
        if made is not None and (weight is not None or any(id(tensor) in computed for tensor in call.tensors)):
            computed.add(id(made))
        if not sources:
            continue
        if weight is not None:
            operand = operand_of(call)
            if operand is not None:
                for key in tainted.get(id(operand), ()):
                    if key not in reached and id(operand) in mixed:
                        unsure.add(key)
                    reached.setdefault(key, call)
            continue
        given_as_mask = [value for key, value in call.kwargs.items() if "mask" in key]
        for tensor, keys in sources:
            if tensor.dtype == torch.bool or any(tensor is each for each in given_as_mask):
                masks.update(keys)
            elif call.name in COMPARING and any(id(other) in computed for other in call.tensors):
                compared.update(keys)
        result = call.result
        if result is None or call.name in WEIGHTED:
            continue
        others = [tensor for tensor in call.tensors if id(tensor) in computed]
        if others and call.name not in JOINING:
            # It scales or gates what layers have returned; what comes of that is theirs.
            masks.update(key for _, keys in sources for key in keys if call.name in ("mul", "where", "masked_fill"))
            continue
        joined = frozenset().union(*(keys for _, keys in sources))
        tainted[id(result)] = joined
        if others or len(joined) > 1 or any(id(tensor) in mixed for tensor, _ in sources):
            mixed.add(id(result))
    uses = {key: "mask" if key in masks else "target" if key in compared else "" for key in named}
    untouched = {key for key, call in reached.items() if _is_root(look.recorder, operand_of(call), key)}
    facts = {
        key: _input(name, rows[key], reached.get(key), uses[key], untouched=key in untouched)
        for key, name in named.items()
    }
    return [
        replace(
            each, received=None if key in unsure else each.received, normalised_after=id(reached.get(key)) in behind
        )
        for key, each in facts.items()
    ]


def _normalised(recorder: Recorder) -> set[int]:
    """Calls whose result goes into a normalisation at once."""
    found = set()
    for call in recorder.calls:
        if call.name in NORMALISING:
            operand = next(iter(call.tensors), None)
            maker = None if operand is None else made_by(recorder, operand)
            found.add(id(maker))
    return found


def _is_root(recorder: Recorder, operand: Tensor | None, key: int) -> bool:
    """Whether a layer receives the values of an input as they are."""
    return operand is not None and id(root_of(recorder, operand)) == key


def _input(name: str, values: Any, reached: Call | None, use: str, *, untouched: bool) -> InputFacts:
    if reached is None:
        return InputFacts(name=name, values=values, use=use or ("mask" if values.dtype.kind == "b" else "unknown"))
    weight = weight_of(reached)
    layer = reached.module or reached.name
    if reached.name in TABLES:
        rows = None if weight is None or not untouched else int(weight.shape[0])
        return InputFacts(name=name, values=values, use="indices", first_layer=layer, table_rows=rows)
    convolves = reached.name.startswith("conv")
    return InputFacts(
        name=name,
        values=values,
        use="numbers",
        first_layer=layer,
        received=reached.facts.get("received"),
        channel_axis=1 if convolves or values.ndim == 4 else -1,
    )


# -- hazards ---------------------------------------------------------------------------------------------------------


def hazards_of(recorder: Recorder) -> list[Hazard]:
    """Recorded operations that are near the edge of their domain."""
    found = []
    chosen = {
        id(made_by(recorder, tensor)) for call in recorder.calls if call.name == "where" for tensor in call.tensors
    }
    for call in recorder.calls:
        if "half" in call.facts:
            found.append(_half(call))
        if "wrapped" in call.facts:
            found.append(_hazard(call, "wrapped", operand=call.facts["wrapped"]))
        summary: TensorSummary | None = call.facts.get("operand")
        if summary is None:
            continue
        operation = neutral_name(call.name)
        operand = measured_operand(call)
        maker = None if operand is None else made_by(recorder, operand)
        before = "" if maker is None else neutral_name(maker.name)
        if before == "sum" and _sums_positive_terms(recorder, maker):
            before = ""
        judged = judge_operand(operation, summary, before)
        if id(call) in chosen and is_outside(operation, summary):
            judged = "unguarded_gradient", None
        if judged is None:
            continue
        kind, bits = judged
        found.append(_hazard(call, kind, operand=summary, headroom_bits=bits, before=before))
    return found


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
